"""Groups: one prompt with all its members, on the host (`Group`) and as tensors (`GroupBatch`)."""

from grao.groups.batch import GroupBatch, collate
from grao.groups.group import Finish, Group, Member, Prompt, scored_members
from grao.groups.policy_output import PolicyOutput

__all__ = ["Finish", "Group", "GroupBatch", "Member", "PolicyOutput", "Prompt", "collate", "scored_members"]
