"""Attention of ours inside models of transformers: what may be replaced, and what must be refused."""

from grao.attention.interface import (
    AttentionRefusedError,
    check_replaceable,
    is_causal_rule,
    refuse_what_changes_attention,
    register,
    replaced,
)

__all__ = [
    "AttentionRefusedError",
    "check_replaceable",
    "is_causal_rule",
    "refuse_what_changes_attention",
    "register",
    "replaced",
]
