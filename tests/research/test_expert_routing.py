"""How a mixture of experts routes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from grao.data import Encoder, load_examples
from grao.demo.dialogue import Dialogue
from grao.demo.synthetic_task import write_task
from grao.policy import ModelConfig, load_policy
from research.expert_routing import expert_metrics, routing


def test_routing_by_hand() -> None:
    """Oracle: two tokens, four experts, two a token: (0, 1) and (0, 2): shares ½, ¼, ¼, 0."""
    logits = torch.log(torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.4, 0.2, 0.3, 0.1]]))
    found = routing(logits, k=2)
    one = -sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1))
    assert found["router_entropy"] == pytest.approx(one, rel=1e-6)
    assert found["expert_load_max"] == 4 * 0.5
    assert found["expert_load_entropy"] == pytest.approx((0.5 * math.log(2) + 2 * 0.25 * math.log(4)) / math.log(4))


def test_a_balanced_router_and_one_that_takes_the_same_experts_always() -> None:
    """Oracle: the definitions: 1 and 1 in balance; E/k and log k / log E for k experts only."""
    balanced = routing(torch.eye(4) * 5, k=1)
    assert (balanced["expert_load_max"], balanced["expert_load_entropy"]) == (1.0, pytest.approx(1.0))
    same = routing(torch.tensor([[5.0, 4.0, 0.0, 0.0]] * 6), k=2)
    assert (same["expert_load_max"], same["expert_load_entropy"]) == (2.0, pytest.approx(0.5))


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_of_a_model(tmp_path: Path, family: str) -> None:
    """Oracle: hooks on the routers of the model, text by text; a dense model has no routing."""
    write_task(Dialogue(), tmp_path, n_train=4, n_validation=4, n_test=4, steps=5, family=family, quiet=True)
    policy = load_policy(ModelConfig(str(tmp_path / "base")))
    rows = Encoder(policy.tokenizer).encode_all(load_examples(tmp_path / "test.jsonl"))[0]
    found = expert_metrics(policy, rows)
    if family == "qwen3":
        assert found == {}
        return
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in policy.model.named_modules():
        if type(module).__name__.endswith("Router"):
            module.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out[0]))
    for row in rows:
        with torch.no_grad():
            policy.model(input_ids=torch.tensor([[*row.prompt_ids, *(row.reference_ids or ())]]), use_cache=False)
    layers = [routing(torch.cat(logits), 2) for logits in seen.values()]
    assert len(layers) == 2
    assert found == pytest.approx({key: (layers[0][key] + layers[1][key]) / 2 for key in layers[0]})
