"""Groups: one prompt with all its members, on the host (`Group`) and as tensors (`GroupBatch`)."""

from grao.groups.batch import GroupBatch, collate
from grao.groups.group import Finish, Group, Member, Prompt, scored_members

__all__ = ["Finish", "Group", "GroupBatch", "Member", "Prompt", "collate", "scored_members"]
