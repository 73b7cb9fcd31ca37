"""log π of every member of every group, through the model's own forward.

The model's `forward` learns one more way to be called: with ``scored_places`` and ``scored_ids`` it returns their
log-probs and entropies instead of logits. Going through `forward` keeps every wrapper at work that lives there: DDP's
gradient hooks, FSDP's gathering, autocast, adapters.

Two layouts lead there. The *padded* path gives each member a row, prompt and member side by side: any causal model
reads it. The *stream* path lays all groups into one row of real tokens, each prompt once: several times less to
compute, for models whose attention can be replaced (`grao.policy.stream`). A model is checked once, when scoring is
installed: log-probs and gradients of both paths on a few tokens must agree, else it is scored by padded rows.
"""

from __future__ import annotations

import functools
import logging
import types
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from grao.compat.transformers_attention import AttentionRefusedError
from grao.groups import GroupBatch, PolicyOutput
from grao.policy.agreement import check_agreement
from grao.policy.head import LogitTransform, score_tokens
from grao.policy.layout import Segments, member_rows, token_stream
from grao.policy.stream import attention_over, check_streamable, follow_segments, use_flex

logger = logging.getLogger(__name__)

Scoring = Literal["auto", "stream", "padded"]
"""`stream`: each prompt once, no padding. `padded`: a row for each member. `auto`: the stream where it is exact."""


@dataclass
class ScoredOutput(ModelOutput):
    """What a scoring forward returns."""

    logprobs: Tensor | None = None
    """[K] log-probs of the scored tokens, in nats."""
    entropy: Tensor | None = None
    """[K] entropy of the distribution each was scored under, in nats; constant."""
    router_loss: Tensor | None = None
    """Load-balancing loss of a mixture of experts over the tokens that ran, without its coefficient."""


def install_scoring(model: PreTrainedModel, scoring: Scoring = "auto") -> None:
    """Teach a causal LM's `forward` to score. Call it before wrapping the model (adapters, DDP, FSDP).

    Checks once, on a few tokens, that the head in chunks gives the model's own logits; if it does not (an unknown
    transform between head and logits), scoring goes through the model's whole logits and says so. Then, that the
    stream's log-probs and gradients are those of padded rows; if they are not, or the model cannot be streamed at all,
    `auto` falls back on padded rows and says why.

    Raises:
        ValueError: `scoring` is no such choice, or it is `stream` and the model cannot be streamed.
    """
    if scoring not in get_args(Scoring):
        raise ValueError(f"scoring is {scoring!r}; it must be one of {', '.join(get_args(Scoring))}")
    if getattr(model, "_grao_scores", False):
        return
    transform = LogitTransform.of(model.config)

    @functools.wraps(type(model).forward)
    def forward(
        self: PreTrainedModel,
        *args: Any,
        scored_places: Tensor | None = None,
        scored_ids: Tensor | None = None,
        scored_temperature: float = 1.0,
        real_tokens: Tensor | None = None,
        stream_segments: Segments | None = None,
        **kwargs: Any,
    ) -> Any:
        if scored_places is None:
            return self._grao_plain_forward(*args, **kwargs)  # type: ignore[operator]
        assert scored_ids is not None
        wants_router = self.training and router_coefficient(self) > 0
        if stream_segments is not None:
            kwargs["stream_segments"] = stream_segments  # down to the attention
        with attention_over(self.config, stream_segments):
            if not getattr(self, "_grao_chunked_head", True):
                return _score_whole_logits(
                    self, scored_places, scored_ids, scored_temperature, wants_router, real_tokens, *args, **kwargs
                )
            hidden, router_logits = _backbone(self, wants_router, *args, **kwargs)
        logprobs, entropy = score_tokens(
            hidden.flatten(0, 1)[scored_places],
            scored_ids,
            self.get_output_embeddings(),
            transform,
            scored_temperature,
        )
        router_loss = _router_loss(self, router_logits, real_tokens) if wants_router else None
        return ScoredOutput(logprobs=logprobs, entropy=entropy, router_loss=router_loss)

    # A bound method in the instance, so that a deep copy (the frozen policy) carries its own.
    model._grao_plain_forward = model.forward  # type: ignore[assignment]
    model.forward = types.MethodType(forward, model)
    model._grao_scores = True  # type: ignore[assignment]
    model._grao_chunked_head = _head_agrees(model)  # type: ignore[assignment]
    if not model._grao_chunked_head:
        logger.warning(
            "%s changes its logits in a way the chunked head does not know: scoring holds all logits at once",
            type(model).__name__,
        )
    model._grao_scoring = scoring  # type: ignore[assignment]
    model._grao_streams = False  # type: ignore[assignment]
    model._grao_flex_tried = False  # type: ignore[assignment]
    if scoring != "padded":
        try:
            check_streamable(model)
            check_agreement(model, padded_logprobs, stream_logprobs)
            follow_segments(model)
            model._grao_streams = True  # type: ignore[assignment]
        except AttentionRefusedError as refusal:
            _fall_back(model, refusal)


def group_logprobs(model: Any, batch: GroupBatch, *, temperature: float = 1.0) -> PolicyOutput:
    """log π(x_t | q, x_<t) for every unmasked member token, each prompt computed once where the model allows it.

    Only hidden states that predict a member's token reach the head.

    Args:
        model: a causal LM that went through `install_scoring`, possibly wrapped.
        batch: groups; a member whose mask is all False costs nothing.
        temperature: logits are divided by it before the softmax.
    """
    if not bool(batch.mask_PMT.any()):
        return _nothing_to_score(model, batch)
    inner = _inner(model)
    if inner._grao_streams:
        if batch.ids_PMT.device.type == "cuda" and not inner._grao_flex_tried:
            try_flex(inner)
        try:
            return stream_logprobs(model, batch, temperature=temperature)
        except AttentionRefusedError as refusal:
            _fall_back(inner, refusal)
    return padded_logprobs(model, batch, temperature=temperature)


def try_flex(model: Any) -> None:
    """Attend by flex attention from now on, if log-probs and gradients on a few tokens are those of padded rows.

    On the device of the first scoring: models are loaded, and checked, before they are moved. Not where weights are
    sharded, for the check calls the bare model.
    """
    model._grao_flex_tried = True
    if not all(type(parameter) is torch.nn.Parameter and parameter.numel() for parameter in model.parameters()):
        return
    use_flex(model, True)
    try:
        with torch.autocast(model.device.type, enabled=False):
            check_agreement(model, padded_logprobs, stream_logprobs)
    except AttentionRefusedError as refusal:
        use_flex(model, False)
        logger.warning("%s attends member by member, not by flex attention: %s", type(model).__name__, refusal)


def stream_logprobs(model: Any, batch: GroupBatch, *, temperature: float = 1.0) -> PolicyOutput:
    """`group_logprobs` by the stream: all groups in one row of real tokens, each prompt once.

    The router loss of a mixture of experts is the mean over the tokens of the stream: those that ran, each once. (By
    padded rows a prompt counts as often as it has members, and members' last tokens, which run there, count too.)

    Raises:
        AttentionRefusedError: the model's attention was asked for what it cannot do.
    """
    stream = token_stream(batch)
    assert stream is not None, "group_logprobs looks after batches without tokens"
    out = model(
        **stream.inputs(),
        scored_places=stream.places_K,
        scored_ids=stream.tokens_K,
        scored_temperature=temperature,
    )
    return _laid_out(batch, out)


def padded_logprobs(model: Any, batch: GroupBatch, *, temperature: float = 1.0) -> PolicyOutput:
    """`group_logprobs` by padded rows: each member with tokens one row, prompt and member side by side.

    Padding is on the right. Causal attention never looks there, so no attention mask is passed: that is the fast way,
    and a mask would give padded rows of a sliding window nothing to attend to, hence NaN. The router loss of a mixture
    of experts is the mean over the rows' real tokens.
    """
    rows = member_rows(batch)
    assert rows is not None, "group_logprobs looks after batches without tokens"
    out = model(
        input_ids=rows.ids_NL,
        real_tokens=rows.real_NL.long(),
        scored_places=rows.places_K,
        scored_ids=rows.tokens_K,
        scored_temperature=temperature,
        use_cache=False,
    )
    return _laid_out(batch, out)


def _laid_out(batch: GroupBatch, out: ScoredOutput) -> PolicyOutput:
    """Values of the K unmasked tokens in the batch's layout."""
    assert out.logprobs is not None
    assert out.entropy is not None
    zeros_PMT = out.logprobs.new_zeros(batch.mask_PMT.shape)
    return PolicyOutput(
        zeros_PMT.masked_scatter(batch.mask_PMT, out.logprobs),
        zeros_PMT.masked_scatter(batch.mask_PMT, out.entropy.to(zeros_PMT.dtype)),
        router_loss=out.router_loss,
    )


def _nothing_to_score(model: Any, batch: GroupBatch) -> PolicyOutput:
    """Zeros that depend on the model: one token keeps the graph, and with it DDP's hooks, alive."""
    out = model(
        input_ids=batch.prompt_ids_PS[:1, :1],
        scored_places=torch.zeros(1, dtype=torch.long, device=batch.ids_PMT.device),
        scored_ids=batch.prompt_ids_PS[0, :1],
        use_cache=False,
    )
    zeros_PMT = out.logprobs.sum() * 0 + out.logprobs.new_zeros(batch.mask_PMT.shape)
    return PolicyOutput(zeros_PMT, zeros_PMT.detach(), router_loss=out.router_loss)


def scoring_in_use(model: Any) -> Scoring:
    """How a model is scored after what was found out about it: as a stream, where `auto` may fall back, or padded."""
    inner = _taught(model)
    return inner._grao_scoring if inner is not None and inner._grao_streams else "padded"


def _taught(model: Any) -> Any:
    """The causal LM that was taught to score, inside whatever wraps it; None where there is none."""
    return next((module for module in model.modules() if "_grao_scores" in vars(module)), None)


def _inner(model: Any) -> Any:
    inner = _taught(model)
    if inner is not None:
        return inner
    raise ValueError(f"{type(model).__name__} was not taught to score: call install_scoring on it first")


def _fall_back(model: Any, refusal: AttentionRefusedError) -> None:
    """Score this model by padded rows from now on, and say why; where the stream was demanded, raise."""
    if model._grao_scoring == "stream":
        raise AttentionRefusedError(
            f"{type(model).__name__} cannot be scored as a stream: {refusal}. Set model.scoring to auto or padded"
        ) from refusal
    model._grao_streams = False
    logger.warning("%s is scored by padded rows, not as a stream: %s", type(model).__name__, refusal)


def _backbone(model: PreTrainedModel, wants_router: bool, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    """Last hidden states [N, L, D] and router logits."""
    kwargs = {
        k: v for k, v in kwargs.items() if k not in ("labels", "logits_to_keep", "return_dict") and v is not None
    }
    if wants_router:
        kwargs["output_router_logits"] = True
    out = model.base_model(*args, **kwargs)
    return out.last_hidden_state, getattr(out, "router_logits", None)


def router_coefficient(model: Any) -> float:
    """Weight of the load-balancing loss in the model's config; 0 where it has none.

    `output_router_logits` is not asked: released mixtures of experts ship with it off (it is a matter of what
    `forward` returns) and with the coefficient that they were trained with.
    """
    config = model.config.get_text_config()
    if not hasattr(config, "output_router_logits"):
        return 0.0  # a family without this loss, such as DeepSeek-V3
    return float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0)


def _router_loss(model: PreTrainedModel, router_logits: Any, real_tokens: Tensor | None) -> Tensor:
    """The load-balancing loss of Switch Transformers (arXiv 2101.03961, Eq. 4–6), over real tokens only."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

    config = model.config.get_text_config()
    experts = getattr(config, "num_experts", None) or config.num_local_experts
    loss = load_balancing_loss_func(router_logits, experts, config.num_experts_per_tok, real_tokens)
    assert isinstance(loss, Tensor), "a model that routes returns its router logits"
    return loss


def _score_whole_logits(
    model: Any,
    places: Tensor,
    ids: Tensor,
    temperature: float,
    wants_router: bool,
    real_tokens: Tensor | None,
    *args: Any,
    **kwargs: Any,
) -> ScoredOutput:
    """Score through the model's own logits: exact for any architecture, at the price of [tokens × vocabulary]."""
    if wants_router:
        kwargs["output_router_logits"] = True
    out = model._grao_plain_forward(*args, **kwargs)
    identity = torch.nn.Identity()
    identity.weight = out.logits[0, 0]
    logprobs, entropy = score_tokens(out.logits.flatten(0, 1)[places], ids, identity, LogitTransform(), temperature)
    # Not the model's own aux_loss: without an attention mask that counts padding.
    router_loss = _router_loss(model, out.router_logits, real_tokens) if wants_router else None
    return ScoredOutput(logprobs=logprobs, entropy=entropy, router_loss=router_loss)


@torch.no_grad()
def _head_agrees(model: PreTrainedModel) -> bool:
    """Compare the head on scored tokens with the model's own logits, on four tokens.

    Twice, the second time with the head's output a hundred times larger: a cap is invisible on the small logits of
    fresh weights, and would bite only once training has made them grow. (The second time the head has a hook, so it
    goes in chunks; the first time as it will.)
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids = torch.arange(1, 5, device=device)[None] % model.config.get_text_config().vocab_size
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    agrees = True
    for gain in (None, 100.0):
        hook = gain and model.get_output_embeddings().register_forward_hook(lambda *call, gain=gain: call[2] * gain)
        try:
            own = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0, :-1]
            own = own.gather(-1, ids[0, 1:, None])[:, 0]
            ours = model(
                input_ids=ids, scored_places=torch.arange(3, device=device), scored_ids=ids[0, 1:], use_cache=False
            ).logprobs.float()
        finally:
            if hook:
                hook.remove()
        agrees = agrees and torch.allclose(own, ours, atol=tolerance, rtol=tolerance)
    model.train(was_training)
    return agrees
