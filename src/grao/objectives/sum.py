"""A weighted sum of objectives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from grao.groups import GroupBatch, PolicyOutput
from grao.objectives.objective import LossOutput, Mean, Needs, Objective, Progress
from grao.objectives.schedule import Schedule, Weight, check_weight


@dataclass(frozen=True)
class Sum(Objective):
    """A weighted sum of objectives, each with its own advantages and its own denominators.

        L = Σ_k w_k(step) L_k

    Example::

        Sum(((GRPO(), 1.0), (SFT(), Schedule("linear", start=1.0, end=0.1))))

    Each part is named after its class: `grpo`, `sft`; a second GRPO is `grpo_2`. The logged terms are the weighted
    ones (`loss/grpo/policy`, `loss/sft/imitation`), and `weight/<part>` is the weight. A metric keeps its name unless
    several parts report it: then each has its part's name in front. The parts of an inner sum count as parts.

    A part with weight 0 at a step is not scored. Its terms are 0 and it reports no metrics at that step.
    """

    parts: tuple[tuple[Objective, Weight], ...]
    """Objectives with their weights, 0 or more."""

    def __post_init__(self) -> None:
        given = (self.parts,) if isinstance(self.parts, Objective) else tuple(self.parts)
        for i, part in enumerate(given):
            if not isinstance(part, tuple | list) or len(part) != 2:
                raise ValueError(f"part {i} of a sum is {part!r}; give an objective with its weight: (GRPO(), 1.0)")
        object.__setattr__(self, "parts", tuple((objective, weight) for objective, weight in given))
        if not self.parts:
            raise ValueError("a sum has no parts; give at least one objective with its weight")
        for i, (objective, weight) in enumerate(self.parts):
            if not isinstance(objective, Objective):
                raise ValueError(
                    f"part {i} of a sum is a {type(objective).__name__}; give an objective such as GRPO()"
                )
            if not isinstance(weight, Schedule):
                check_weight(f"the weight of part {i} of a sum", weight)

    @property
    def needs(self) -> Needs:
        """The union of what the parts need."""
        return Needs.union(objective.needs for objective, _ in self.parts)

    @property
    def title(self) -> str:
        """The parts' titles, such as GRPO + SFT."""
        return " + ".join(objective.title for objective, _ in self.parts)

    def summands(self) -> tuple[Objective, ...]:
        """Return the parts, those of inner sums included."""
        return tuple(leaf for leaf, _ in self._leaves())

    def advantages(self, batch: GroupBatch) -> Tensor:
        """Return the advantages that metrics and records show: those of the first part that draws samples.

        They are on the scale of that part's rewards, which a weighted sum of advantages would not be. Where no part
        draws samples, they are the first part's.
        """
        leaves = self.summands()
        return next((leaf for leaf in leaves if leaf.needs.samples), leaves[0]).advantages(batch)

    def with_advantages(self, batch: GroupBatch) -> GroupBatch:
        """Return the batch with `part_advantages_PM`, one tensor per part, and `advantages_PM` set."""
        parts = tuple(_advantages(leaf.with_advantages(batch)) for leaf, _ in self._leaves())
        return batch.with_(advantages_PM=self.advantages(batch), part_advantages_PM=parts)

    def contributing(self, batch: GroupBatch, progress: Progress) -> Tensor:
        """Return the members that contribute to any part with a weight above 0: bool [P, M]."""
        contributing_PM = torch.zeros_like(batch.scored_PM)
        for (leaf, weights), part in zip(self._leaves(), self._batches(batch), strict=True):
            if _weight_at(weights, progress) > 0:
                contributing_PM |= leaf.contributing(part, progress)
        return contributing_PM

    def denominator(self, batch: GroupBatch) -> Tensor:
        """Return the parts' denominators, one after the other."""
        leaves = zip(self._leaves(), self._batches(batch), strict=True)
        return torch.cat([leaf.denominator(part) for (leaf, _), part in leaves])

    def loss(self, batch: GroupBatch, output: PolicyOutput, denominator: Tensor, progress: Progress) -> LossOutput:
        """Return the weighted terms of all parts, under the names that the class documents."""
        terms: dict[str, Tensor] = {}
        reported: list[tuple[str, float, dict[str, Mean]]] = []
        names = self._names()
        for name, (leaf, weights), part in zip(names, self._leaves(), self._batches(batch), strict=True):
            weight = _weight_at(weights, progress)
            size = len(leaf.denominator(part))
            one = leaf.loss(part, output, denominator[:size], progress)
            denominator = denominator[size:]
            for term, value in one.terms.items():
                # Without a weight, log-probs may be missing: what was computed from them must not be read.
                terms[f"{name}/{term}"] = weight * value if weight > 0 else 0 * output.logprobs_PMT.sum()
            reported.append((name, weight, one.metrics))
        shared = Counter(metric for _, _, metrics in reported for metric in metrics)
        ones = torch.ones(())
        metrics = {f"weight/{name}": Mean(weight * ones, ones) for name, weight, _ in reported}
        for name, weight, own in reported:
            if weight > 0:
                metrics |= {f"{name}/{metric}" if shared[metric] > 1 else metric: mean for metric, mean in own.items()}
        return LossOutput(terms, metrics)

    def _leaves(self) -> Iterator[tuple[Objective, tuple[Weight, ...]]]:
        """Yield the parts, those of inner sums included, each with the weights on the way to it."""
        for objective, weight in self.parts:
            if isinstance(objective, Sum):
                yield from ((leaf, (weight, *inner)) for leaf, inner in objective._leaves())
            else:
                yield objective, (weight,)

    def _names(self) -> list[str]:
        """Return one name per part, unique in the sum."""
        names: list[str] = []
        for leaf, _ in self._leaves():
            name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(leaf).__name__).lower()
            number = next(n for n in range(1, len(names) + 2) if (name if n == 1 else f"{name}_{n}") not in names)
            names.append(name if number == 1 else f"{name}_{number}")
        return names

    def _batches(self, batch: GroupBatch) -> Iterator[GroupBatch]:
        """Yield the batch once per part, with that part's advantages where they are set."""
        if not batch.part_advantages_PM:
            yield from (batch for _ in self._leaves())
        for advantages_PM in batch.part_advantages_PM:
            yield batch.with_(advantages_PM=advantages_PM, part_advantages_PM=())


def _advantages(batch: GroupBatch) -> Tensor:
    assert batch.advantages_PM is not None
    return batch.advantages_PM


def _weight_at(weights: tuple[Weight, ...], progress: Progress) -> float:
    """Return the product of the weights at this step."""
    total = 1.0
    for weight in weights:
        total *= weight.at(progress) if isinstance(weight, Schedule) else weight
    return total
