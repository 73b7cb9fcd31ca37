"""The paper's bounds, compared with a run (docs/methods.md, convergence).

    paper    ‖g‖² ≤ M²,  M = B (1 + β + 2λ)(C_A + R_max)                C_A = √G, the joint group's;  R_max = 1
    tight    ‖g‖² ≤ B² (G + 1) ((1 + λ)²/G + (β + λ/G)²)                joint advantages

B bounds ‖∇J(x)‖ over all weights and texts, which cannot be computed. Here B is the largest norm observed: over
the validation prompts' reference answers, under the base's weights and under the trained ones. So a share below 1 says
that the bound held even with a B that is, if anything, too small; a share above 1 may be B's fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from grao.data import EncodedExample
from grao.objectives import GRAO
from grao.policy import LoadedPolicy

R_MAX = 1.0
"""Of a verdict in {−1, 0, 1}."""


def paper_bound(objective: GRAO, samples: int) -> float:
    """Return M/B of the paper."""
    return (1 + objective.beta + 2 * objective.lam) * (math.sqrt(samples) + R_MAX)


def tight_bound(objective: GRAO, samples: int) -> float:
    """Return M/B as it follows from Σ Â = 0 and Σ Â² = G + 1 in the joint group."""
    beta, lam = objective.beta, objective.lam
    return math.sqrt((samples + 1) * ((1 + lam) ** 2 / samples + (beta + lam / samples) ** 2))


def bound_metrics(
    objective: GRAO, samples: int, largest: float, series: Mapping[str, Sequence[float | None]]
) -> dict[str, float]:
    """What was met of the second moment and of the advantages, as shares of their bounds.

    Args:
        objective: of the run.
        samples: G.
        largest: B, the largest ‖∇J‖ that was met.
        series: `grad/second_moment` (‖g‖² of each step's gradient) and `advantage/abs_max` by step.
    """
    squares = [value for value in series.get("grad/second_moment", ()) if value is not None]
    advantages = [value for value in series.get("advantage/abs_max", ()) if value is not None]
    metrics = {"largest_gradient": largest}
    if squares:
        metrics |= {
            "second_moment_mean": sum(squares) / len(squares),
            "second_moment_max": max(squares),
            "second_moment_least": min(squares),
            "share_of_paper_bound": max(squares) / (largest * paper_bound(objective, samples)) ** 2,
            "share_of_tight_bound": max(squares) / (largest * tight_bound(objective, samples)) ** 2,
        }
    if advantages:
        metrics["share_of_advantage_bound"] = max(advantages) / math.sqrt(samples)
    return metrics


def largest_gradient(policy: LoadedPolicy, rows: Sequence[EncodedExample]) -> float:
    """max over reference answers y of ‖∇J(y)‖, J the mean token log-prob, over all trained weights."""
    model = policy.model.eval()
    weights = [p for p in model.parameters() if p.requires_grad]
    largest = 0.0
    for row in rows:
        assert row.reference_ids is not None, "a task's rows have references"
        ids = torch.tensor([[*row.prompt_ids, *row.reference_ids]])
        logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        own = logprobs.gather(-1, ids[0, 1:, None])[len(row.prompt_ids) - 1 :]
        gradients = torch.autograd.grad(own.mean(), weights)
        largest = max(largest, float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt()))
    return largest
