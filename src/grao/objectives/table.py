"""The one table from the names a configuration uses to objectives. Code passes objects; only configurations name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from grao.objectives.dpo import DPO
from grao.objectives.grao import GRAO
from grao.objectives.grpo import GRPO
from grao.objectives.objective import Objective
from grao.objectives.ppo import PPO
from grao.objectives.sft import SFT
from grao.spelling import did_you_mean

OBJECTIVES: dict[str, tuple[type[Objective], Callable[..., Objective]]] = {
    "grao": (GRAO, GRAO),
    "grao-recommended": (GRAO, GRAO.recommended),
    "grpo": (GRPO, GRPO),
    "dr-grpo": (GRPO, GRPO.dr_grpo),
    "dapo": (GRPO, GRPO.dapo),
    "rloo": (GRPO, GRPO.rloo),
    "sft": (SFT, SFT),
    "dpo": (DPO, DPO),
    "ppo": (PPO, PPO),
}
"""Name → (class whose fields may be set, how it is made)."""


def make_objective(name: str, settings: Mapping[str, Any] | None = None, where: str = "objective") -> Objective:
    """The objective of that name with these fields set; `where` is its key in the configuration, for messages.

    >>> make_objective("grao", {"beta": 0.3}).beta
    0.3

    Raises:
        ValueError: no such name or field (the nearest is told), or a value the objective refuses.
    """
    settings = dict(settings or {})
    if name not in OBJECTIVES:
        raise ValueError(f"{where}.name is {name!r}{did_you_mean(name, OBJECTIVES)}; known: {', '.join(OBJECTIVES)}")
    cls, make = OBJECTIVES[name]
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    for key in settings:
        if key not in known:
            raise ValueError(f"{where}.{key} is not known{did_you_mean(key, known)}; {name} has {', '.join(known)}")
    try:
        return make(**settings)
    except TypeError as error:  # a preset without its required field, or a value that does not compare
        raise ValueError(f"{where} {name!r}: {error}") from error
