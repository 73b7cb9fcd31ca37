"""Attention of ours inside models of transformers: what may be replaced, and what must be refused."""

from grao.attention.agreement import FAILURES, check_difference
from grao.attention.interface import (
    AttentionRefusedError,
    check_replaceable,
    is_causal_rule,
    refuse_what_changes_attention,
    register,
    replaced,
)

__all__ = [
    "FAILURES",
    "AttentionRefusedError",
    "check_difference",
    "check_replaceable",
    "is_causal_rule",
    "refuse_what_changes_attention",
    "register",
    "replaced",
]
