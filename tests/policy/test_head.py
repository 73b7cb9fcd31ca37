"""The chunked head: the same at every chunk size, what it never holds, and what models do to their logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from grao.policy import group_logprobs
from grao.policy import head as head_module
from grao.policy.head import LogitTransform, score_tokens


def hidden_and_head(K: int = 23, D: int = 8, V: int = 31) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    torch.manual_seed(0)
    hidden = torch.randn(K, D, dtype=torch.float64, requires_grad=True)
    return hidden, torch.randint(V, (K,)), torch.nn.Linear(D, V, bias=True, dtype=torch.float64)


@pytest.mark.parametrize("tokens_at_a_time", [1, 2, 7, 22, 23, 24, 10_000])
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, tokens_at_a_time: int) -> None:
    """Oracle: one log-softmax over all logits at once: log-probs, entropies and gradients, whatever the chunk."""
    hidden, ids, head = hidden_and_head()
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", tokens_at_a_time * 31 + 5)
    logprobs, entropy = score_tokens(hidden, ids, head, LogitTransform(scale=0.5, softcap=2.0), temperature=0.8)
    logits = torch.tanh(head(hidden) * 0.5 / 2.0) * 2.0 / 0.8
    expected = logits.log_softmax(-1)[torch.arange(23), ids]
    assert (logprobs - expected).abs().max().item() <= 1e-14
    assert (entropy - torch.distributions.Categorical(logits=logits).entropy()).abs().max().item() <= 1e-14
    weights = torch.randn(23, dtype=torch.float64)
    wanted = (hidden, head.weight, head.bias)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), wanted) for x in (logprobs, expected))
    assert max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) <= 1e-13


def test_gradcheck() -> None:
    """Oracle: finite differences, through the recomputation in the backward pass."""
    hidden, ids, head = hidden_and_head(K=3, D=4, V=5)
    transform = LogitTransform(scale=2.0, softcap=1.5)
    assert torch.autograd.gradcheck(lambda h: score_tokens(h, ids % 5, head, transform, 1.3)[0], hidden)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned with a vocabulary on its last axis."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.rows = vocabulary, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dim() > 1 and tensor.shape[-1] == self.vocabulary:
                self.rows = max(self.rows, tensor.numel() // self.vocabulary)
        return out


def test_tokens_times_vocabulary_never_exists(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the largest [rows, V] tensor of forward and backward, watched at the dispatcher; 20 rows a chunk.

    The control: with one big chunk the watcher sees all scored tokens at once.
    """
    model, batch = tiny.tiny_model("qwen2"), tiny.random_batch(P=4)
    tokens = int(batch.mask_PMT.sum())
    assert tokens > 60
    for chunk, expected in ((20, 20), (10_000, tokens)):
        monkeypatch.setattr(head_module, "CHUNK_LOGITS", chunk * tiny.VOCABULARY)
        with LargestTensor(tiny.VOCABULARY) as watcher:
            group_logprobs(model, batch).logprobs_PMT.sum().backward()
        assert watcher.rows == expected


def test_no_logits_wait_for_the_backward_pass(tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: tensors that autograd saves, watched as it packs them: none has the vocabulary on its last axis."""
    model, batch = tiny.tiny_model("qwen2"), tiny.random_batch()
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", 4 * tiny.VOCABULARY)
    saved: list[torch.Size] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ours = group_logprobs(model, batch).logprobs_PMT
        assert len(saved) > 10
        assert not [shape for shape in saved if len(shape) > 1 and shape[-1] == tiny.VOCABULARY]
        saved.clear()
        model(batch.prompt_ids_PS).logits.log_softmax(-1)  # the control: the plain path saves them
        assert [shape for shape in saved if len(shape) > 1 and shape[-1] == tiny.VOCABULARY]
    assert ours.requires_grad


def test_only_scored_tokens_reach_the_head(tiny: SimpleNamespace) -> None:
    """Oracle: rows that enter the head, counted by a hook: the tokens in the loss, no prompts, no padding."""
    model, batch = tiny.tiny_model("qwen2"), tiny.random_batch()
    rows: list[int] = []
    model.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0].numel() // args[0].shape[-1]))
    with torch.no_grad():
        group_logprobs(model, batch)
    assert sum(rows) == int(batch.mask_PMT.sum())


def test_the_default_chunk_is_what_it_says() -> None:
    """Oracle: 2²⁴ logits are 64 MiB in float32; 2048 tokens of 8k words, 110 of 152k."""
    assert head_module.CHUNK_LOGITS * 4 == 64 * 2**20
    assert head_module.CHUNK_LOGITS // 8192 == 2048
    assert head_module.CHUNK_LOGITS // 151_936 == 110


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", LogitTransform()),
        ("gemma2", LogitTransform(softcap=0.7)),
        ("gemma3", LogitTransform()),
        ("cohere", LogitTransform(scale=0.0625)),
        ("granite", LogitTransform(scale=0.125)),
    ],
)
def test_transforms_are_read_off_the_config(tiny: SimpleNamespace, family: str, expected: LogitTransform) -> None:
    """Oracle: the configs in conftest; a transform that is left out changes log-probs by more than rounding."""
    model = tiny.tiny_model(family)
    assert LogitTransform.of(model.config) == expected
    if expected != LogitTransform():
        ids = torch.tensor([[3, 4, 5, 6]])
        hidden = model.base_model(ids).last_hidden_state[0, :-1]
        plain, _ = score_tokens(hidden, ids[0, 1:], model.get_output_embeddings(), LogitTransform())
        ours, _ = score_tokens(hidden, ids[0, 1:], model.get_output_embeddings(), expected)
        assert (plain - ours).abs().max().item() > 0.05
