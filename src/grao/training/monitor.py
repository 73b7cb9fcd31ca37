"""What a run measures and shows beyond the loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Monitor:
    """Measurements that cost something, each every N steps."""

    kl_every: int = 10
    """Steps between estimates of the KL to the frozen policy; 0 = never. Costs a copy of the weights (none with
    adapters) and one forward pass on those steps. An objective that needs the frozen policy measures it every step."""
    gradient_shares_every: int = 0
    """Steps between measurements of each loss term's share of the gradient; 0 = never. Costs one backward pass per
    term on those steps."""
    completions_every: int = 10
    """Steps between tables of completions in the terminal; 0 = never. The records hold all of them."""
    completions_shown: int = 4
    """Rows of that table."""

    def __post_init__(self) -> None:
        for name in ("kl_every", "gradient_shares_every", "completions_every", "completions_shown"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}. Give 0 (never) or a number of steps.")
