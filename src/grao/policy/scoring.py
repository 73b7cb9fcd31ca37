"""log π of every member of every group, through the model's own forward.

The model's `forward` learns one more way to be called: with ``scored_places`` and ``scored_ids`` it returns their
log-probs and entropies instead of logits. Going through `forward` keeps every wrapper at work that lives there: DDP's
gradient hooks, FSDP's gathering, autocast, adapters.
"""

from __future__ import annotations

import functools
import logging
import types
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from grao.groups import GroupBatch
from grao.policy.head import LogitTransform, score_tokens
from grao.policy.layout import member_rows

logger = logging.getLogger(__name__)


@dataclass
class ScoredOutput(ModelOutput):
    """What a scoring forward returns."""

    logprobs: Tensor | None = None
    """[K] log-probs of the scored tokens, in nats."""
    entropy: Tensor | None = None
    """[K] entropy of the distribution each was scored under, in nats; constant."""
    router_loss: Tensor | None = None
    """Load-balancing loss of a mixture of experts, without its coefficient."""


@dataclass(frozen=True, slots=True)
class GroupLogprobs:
    """log-probs of a `GroupBatch`, in its layout."""

    logprobs_PMT: Tensor
    """log π(token) in nats, 0 where masked."""
    entropy_PMT: Tensor
    """Constant; 0 where masked."""
    router_loss: Tensor | None = None


def install_scoring(model: PreTrainedModel) -> None:
    """Teach a causal LM's `forward` to score. Call it before wrapping the model (adapters, DDP, FSDP).

    Checks once, on a few tokens, that the head in chunks gives the model's own logits; if it does not (an unknown
    transform between head and logits), scoring goes through the model's whole logits and says so.
    """
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
        **kwargs: Any,
    ) -> Any:
        if scored_places is None:
            return self._grao_plain_forward(*args, **kwargs)  # type: ignore[operator]
        assert scored_ids is not None
        wants_router = self.training and router_coefficient(self) > 0
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


def group_logprobs(model: Any, batch: GroupBatch, *, temperature: float = 1.0) -> GroupLogprobs:
    """log π(x_t | q, x_<t) for every unmasked member token, by the padded reference path.

    Each member with tokens becomes one row, prompt and member side by side, padded on the right. Causal attention
    never looks there, so no attention mask is passed: that is the fast path, and a mask would give padded rows of a
    sliding window nothing to attend to, hence NaN. Only hidden states that predict a member's token reach the head.

    Args:
        model: a causal LM that went through `install_scoring`, possibly wrapped.
        batch: groups; a member whose mask is all False costs nothing.
        temperature: logits are divided by it before the softmax.
    """
    P, M, T = batch.ids_PMT.shape
    rows = member_rows(batch)
    if rows is None:  # nothing to score: one token keeps the graph, and with it DDP's hooks, alive
        out = model(
            input_ids=batch.prompt_ids_PS[:1],
            scored_places=torch.zeros(1, dtype=torch.long, device=batch.ids_PMT.device),
            scored_ids=batch.prompt_ids_PS[0, :1],
            use_cache=False,
        )
        zeros_PMT = out.logprobs.sum() * 0 + out.logprobs.new_zeros(P, M, T)
        return GroupLogprobs(zeros_PMT, zeros_PMT.detach(), out.router_loss)

    out = model(
        input_ids=rows.ids_NL,
        real_tokens=rows.real_NL.long(),
        scored_places=rows.places_K,
        scored_ids=rows.tokens_K,
        scored_temperature=temperature,
        use_cache=False,
    )
    zeros_PMT = out.logprobs.new_zeros(P, M, T)
    return GroupLogprobs(
        zeros_PMT.masked_scatter(batch.mask_PMT, out.logprobs),
        zeros_PMT.masked_scatter(batch.mask_PMT, out.entropy.to(zeros_PMT.dtype)),
        out.router_loss,
    )


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
    """Compare the chunked head with the model's own logits on four tokens.

    Twice, the second time with the head's output a hundred times larger: a cap is invisible on the small logits of
    fresh weights, and would bite only once training has made them grow.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    ids = torch.arange(1, 5, device=device)[None] % model.config.get_text_config().vocab_size
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    agrees = True
    for gain in (1.0, 100.0):
        hook = model.get_output_embeddings().register_forward_hook(lambda _, __, logits, gain=gain: logits * gain)
        try:
            own = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0, :-1]
            own = own.gather(-1, ids[0, 1:, None])[:, 0]
            ours = model(
                input_ids=ids, scored_places=torch.arange(3, device=device), scored_ids=ids[0, 1:], use_cache=False
            ).logprobs.float()
        finally:
            hook.remove()
        agrees = agrees and torch.allclose(own, ours, atol=tolerance, rtol=tolerance)
    model.train(was_training)
    return agrees
