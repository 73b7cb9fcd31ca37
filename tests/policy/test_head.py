"""The head by tiles and in chunks: the same at every size, what is never held, and what models do to their logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from grao.policy import group_logprobs
from grao.policy import head as head_module
from grao.policy import tiled_head as tiled_module
from grao.policy.head import LogitTransform, score_tokens
from grao.policy.tiled_head import tiled_head


def hidden_and_head(
    K: int = 23, D: int = 8, V: int = 31, *, bias: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    """Without a bias the head goes by tiles, with one in chunks."""
    torch.manual_seed(0)
    hidden = torch.randn(K, D, dtype=torch.float64, requires_grad=True)
    return hidden, torch.randint(V, (K,)), torch.nn.Linear(D, V, bias=bias, dtype=torch.float64)


def all_logits_at_once(hidden: torch.Tensor, head: torch.nn.Module, slope: float, cap: float | None) -> torch.Tensor:
    logits = head(hidden) * slope
    return logits if cap is None else torch.tanh(logits / cap) * cap


@pytest.mark.parametrize("tokens_at_a_time", [1, 2, 7, 22, 23, 24, 10_000])
@pytest.mark.parametrize(("bias", "softcap"), [(False, None), (True, None), (False, 2.0), (True, 2.0)])
def test_chunks_and_tiles_change_nothing(
    monkeypatch: pytest.MonkeyPatch, tokens_at_a_time: int, bias: bool, softcap: float | None
) -> None:
    """Oracle: one log-softmax over all logits at once: log-probs, entropies and gradients, for any chunk size.

    Tiles are cut over the tokens too, of which at most 9 come together here.
    """
    hidden, ids, head = hidden_and_head(bias=bias)
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", tokens_at_a_time * 31 + 5)
    monkeypatch.setattr(head_module, "CHUNK_TOKENS", 1)
    monkeypatch.setattr(tiled_module, "ROWS", 9)
    transform = LogitTransform(scale=0.5, softcap=softcap)
    logprobs, entropy = score_tokens(hidden, ids, head, transform, temperature=0.8)
    assert (logprobs.grad_fn.name() == "_TiledHeadBackward") == (not bias and softcap is None)
    logits = all_logits_at_once(hidden, head, 0.5, softcap) / 0.8
    expected = logits.log_softmax(-1)[torch.arange(23), ids]
    assert (logprobs - expected).abs().max().item() <= 1e-14
    assert (entropy - torch.distributions.Categorical(logits=logits).entropy()).abs().max().item() <= 1e-14
    weights = torch.randn(23, dtype=torch.float64)
    wanted = (hidden, *head.parameters())
    ours, theirs = (torch.autograd.grad((x * weights).sum(), wanted) for x in (logprobs, expected))
    assert max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) <= 1e-13


@pytest.mark.parametrize("bias", [False, True])
def test_gradcheck(bias: bool) -> None:
    """Oracle: finite differences of all inputs, through what the backward pass computes again."""
    hidden, ids, head = hidden_and_head(K=3, D=4, V=5, bias=bias)
    transform = LogitTransform(scale=2.0, softcap=1.5 if bias else None)

    def score(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        head.weight = torch.nn.Parameter(weight) if bias else weight  # type: ignore[assignment]
        return score_tokens(hidden, ids % 5, head, transform, 1.3)[0]

    weight = head.weight.detach().clone()
    del head._parameters["weight"]
    assert torch.autograd.gradcheck(score, (hidden, weight.requires_grad_(not bias)))


@pytest.mark.parametrize("tokens_at_a_time", [1, 7, 23, 10_000])
@pytest.mark.parametrize(("bias", "softcap"), [(False, None), (True, None), (False, 2.0), (True, 2.0)])
def test_entropy_has_a_gradient_where_asked_for(
    monkeypatch: pytest.MonkeyPatch, tokens_at_a_time: int, bias: bool, softcap: float | None
) -> None:
    """Oracle: autograd through all logits at once, H = −Σ p log p, in float64: values, and gradients of a mixture.

    Log-probs and entropies are the same bits as without the gradient.
    """
    hidden, ids, head = hidden_and_head(bias=bias)
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", tokens_at_a_time * 31 + 5)
    monkeypatch.setattr(head_module, "CHUNK_TOKENS", 1)
    monkeypatch.setattr(tiled_module, "ROWS", 9)
    transform = LogitTransform(scale=0.5, softcap=softcap)
    constant = score_tokens(hidden, ids, head, transform, temperature=0.8)
    logprobs, entropy = score_tokens(hidden, ids, head, transform, temperature=0.8, entropy_grad=True)
    assert torch.equal(logprobs, constant[0])
    assert torch.equal(entropy, constant[1])
    assert not constant[1].requires_grad
    all_logprobs = (all_logits_at_once(hidden, head, 0.5, softcap) / 0.8).log_softmax(-1)
    expected = -(all_logprobs.exp() * all_logprobs).sum(-1)
    assert (entropy - expected).abs().max().item() <= 1e-14
    of_logprobs, of_entropy = torch.randn(2, 23, dtype=torch.float64)
    wanted = (hidden, *head.parameters())
    chosen = all_logprobs[torch.arange(23), ids]
    for scale in (0.0, 1.0):  # of the log-probs: the entropy alone, then both
        ours, theirs = (
            torch.autograd.grad((scale * of_logprobs * x + of_entropy * h).sum(), wanted, retain_graph=True)
            for x, h in ((logprobs, entropy), (chosen, expected))
        )
        assert max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True)) <= 1e-13


@pytest.mark.parametrize("bias", [False, True])
def test_gradcheck_of_the_entropy(bias: bool) -> None:
    """Oracle: finite differences of both inputs, for both outputs at once."""
    hidden, ids, head = hidden_and_head(K=3, D=4, V=5, bias=bias)
    transform = LogitTransform(scale=2.0, softcap=1.5 if bias else None)

    def score(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return score_tokens(hidden, ids % 5, head, transform, 1.3, entropy_grad=True)

    assert torch.autograd.gradcheck(score, hidden)
    if not bias:
        weight = head.weight.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda w: tiled_head(hidden, w, ids % 5, 0.7, 9, True), weight)


def test_no_second_derivative() -> None:
    """Oracle: by definition: a gradient that is no function of the input must not be handed out as one."""
    hidden, ids, head = hidden_and_head(bias=False)
    logprobs, _ = score_tokens(hidden, ids, head, LogitTransform())
    with pytest.raises(NotImplementedError, match="no second derivative"):
        torch.autograd.grad(logprobs.sum(), hidden, create_graph=True)


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_only_what_is_asked_for_has_a_gradient(trained: str) -> None:
    """Oracle: the other's absence; with both, the same numbers (a frozen head, or a head alone that is trained)."""
    hidden, ids, head = hidden_and_head(bias=False)
    expected = torch.autograd.grad(score_tokens(hidden, ids, head, LogitTransform())[0].sum(), (hidden, head.weight))
    hidden = hidden.detach().requires_grad_(trained == "hidden")
    head.weight.requires_grad_(trained == "weight")
    score_tokens(hidden, ids, head, LogitTransform())[0].sum().backward()
    found = (hidden.grad, head.weight.grad)
    place = 0 if trained == "hidden" else 1
    assert torch.equal(found[place], expected[place])
    assert found[1 - place] is None


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision(monkeypatch: pytest.MonkeyPatch, autocast: bool) -> None:
    """Oracle: chunks of the same bfloat16 products, which round to 3 digits; sums over tiles round less."""
    hidden, ids, plain = hidden_and_head(D=64, V=300, bias=False)
    monkeypatch.setattr(head_module, "CHUNK_LOGITS", 23 * 70)
    found = []
    for hooked in (False, True):
        dtype = torch.float32 if autocast else torch.bfloat16
        head = torch.nn.Linear(64, 300, bias=False, dtype=dtype)
        head.weight.data.copy_(plain.weight.data)
        if hooked:
            head.register_forward_hook(lambda *_: None)
        h = hidden.detach().to(dtype).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logprobs, entropy = score_tokens(h, ids, head, LogitTransform(scale=3.0))
        assert logprobs.dtype == entropy.dtype == torch.float32
        assert (logprobs.grad_fn.name() == "_TiledHeadBackward") != hooked
        (logprobs * torch.linspace(-1, 1, 23)).sum().backward()
        assert h.grad is not None
        assert head.weight.grad is not None
        assert h.grad.dtype == head.weight.grad.dtype == dtype
        found.append((logprobs.detach(), entropy, h.grad.float(), head.weight.grad.float()))
    ours, theirs = found
    assert (ours[0] - theirs[0]).abs().max().item() <= 1e-5  # the logits are the same bfloat16 numbers
    assert (ours[1] - theirs[1]).abs().max().item() <= 1e-5
    for a, b in zip(ours[2:], theirs[2:], strict=True):
        assert ((a - b).norm() / b.norm()).item() <= 0.01


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements of any tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("bias", [False, True])
def test_tokens_times_vocabulary_never_exists(monkeypatch: pytest.MonkeyPatch, bias: bool) -> None:
    """Oracle: the largest tensor of forward and backward, watched at the dispatcher: 20 tokens' logits of 300.

    The control: with one big chunk the watcher sees them all.
    """
    hidden, ids, head = hidden_and_head(K=300, D=2, V=400, bias=bias)
    monkeypatch.setattr(head_module, "CHUNK_TOKENS", 1)
    for tokens in (20, 300):
        monkeypatch.setattr(head_module, "CHUNK_LOGITS", tokens * 400)
        for entropy_grad in (False, True):
            with LargestTensor() as watcher:
                scores = score_tokens(hidden, ids, head, LogitTransform(), entropy_grad=entropy_grad)
                (scores[0] + entropy_grad * scores[1]).sum().backward()
            assert tokens * 400 * 0.9 <= watcher.elements <= tokens * 400


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
    """Oracle: rows that enter the head, counted: the tokens in the loss, no prompts, no padding.

    By a hook, with which the head goes in chunks; then, for tiles, by what they are given.
    """
    model, batch = tiny.tiny_model("qwen2"), tiny.random_batch()
    rows: list[int] = []
    hook = model.lm_head.register_forward_pre_hook(lambda _, args: rows.append(args[0].numel() // args[0].shape[-1]))
    with torch.no_grad():
        group_logprobs(model, batch)
    hook.remove()
    assert sum(rows) == int(batch.mask_PMT.sum())
    given: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_module, "tiled_head", lambda h, *rest: (given.append(len(h)), tiled_head(h, *rest))[1])
        group_logprobs(model, batch)
    assert given == [int(batch.mask_PMT.sum())]


def test_the_default_chunk_is_what_it_says() -> None:
    """Oracle: 2²² logits are 16 MiB in float32, under the 32 MiB from which glibc maps memory for each allocation."""
    assert head_module.CHUNK_LOGITS * 4 == 16 * 2**20


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
