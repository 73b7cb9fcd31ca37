"""Scoring: log π of given tokens, through the model's own forward.

`install_scoring` puts a `PolicyScorer` in the place of the model's `forward`. Called with ``scored_places`` and
``scored_ids`` it returns their log-probs and entropies; otherwise it is the model's own forward. Going through
`forward` keeps every wrapper at work that lives there: DDP's gradient hooks, FSDP's gathering, autocast, adapters.

There are two layouts. The *padded* path gives each member a row, prompt and member side by side: any causal model
reads it. The *stream* path lays all groups into one row of real tokens, each prompt once: several times less to
compute, for models whose attention can be replaced (`grao.policy.stream_attention`). Log-probs and gradients of both
are compared on a few tokens when scoring is installed; where they differ, padded rows are used.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass
from types import MethodType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from grao.compat.torch_modules import evaluating
from grao.compat.transformers_attention import (
    AttentionRefusedError,
    avoid_uncapped_attention,
    use_attention_with_keyword,
)
from grao.compat.transformers_router_loss import router_coefficient, router_loss
from grao.groups import GroupBatch, PolicyOutput
from grao.policy.head import LogitTransform, score_tokens
from grao.policy.logprobs import nothing_to_score, padded_logprobs, stream_logprobs
from grao.policy.stream_attention import NAME, attention_over, check_streamable
from grao.policy.stream_check import check_stream
from grao.policy.token_layout import Segments

logger = logging.getLogger(__name__)

Scoring = Literal["auto", "stream", "padded"]
"""`stream`: each prompt once, no padding. `padded`: one row per member. `auto`: the stream where it is exact."""


@dataclass
class ScoredOutput(ModelOutput):
    """The result of a scoring forward."""

    logprobs: Tensor | None = None
    """[K] log-probs of the scored tokens, in nats."""
    entropy: Tensor | None = None
    """[K] entropy of the distribution at each, in nats; constant unless its gradient was asked for."""
    router_loss: Tensor | None = None
    """Load-balancing loss of a mixture of experts over the tokens that ran, without its coefficient."""


class PolicyScorer:
    """A causal LM's `forward` that can also score tokens, and what is known about scoring this model.

    It is bound to a model like a function of its class (`model.forward = MethodType(scorer, model)`), and takes the
    model at each call. So a deep copy of the model is scored with its own weights, shares what is known, and needs no
    attribute of ours; and accelerate, which rebinds `forward.__func__` for mixed precision, keeps it.
    """

    def __init__(self, model: PreTrainedModel, requested: Scoring) -> None:
        forward = model.forward
        if not (isinstance(forward, MethodType) and forward.__self__ is model):
            raise ValueError(
                f"The forward of {type(model).__name__} was replaced by {forward!r}. Call install_scoring before "
                "anything that wraps the model."
            )
        self.requested: Scoring = requested
        self.streams = False
        """Whether members are scored as a stream."""
        self.head_in_chunks = True
        """Whether the head runs on scored tokens only; False where the model changes its logits in an unknown way."""
        self._plain_forward = forward.__func__
        self._transform = LogitTransform.of(model.config)
        # What callers read off a function: transformers looks at the names of a forward's arguments.
        self.__name__ = "forward"
        self.__doc__ = forward.__doc__
        self.__signature__ = inspect.signature(forward.__func__)

    def __call__(
        self,
        model: PreTrainedModel,
        *args: Any,
        scored_places: Tensor | None = None,
        scored_ids: Tensor | None = None,
        scored_temperature: float = 1.0,
        scored_entropy_grad: bool = False,
        real_tokens: Tensor | None = None,
        stream_segments: Segments | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the model's own forward or, given places in the flattened input, score the tokens that follow them."""
        if scored_places is None:
            return self._plain_forward(model, *args, **kwargs)
        assert scored_ids is not None
        wants_router = model.training and router_coefficient(model) > 0
        if wants_router:
            kwargs["output_router_logits"] = True
        if stream_segments is not None:
            kwargs["stream_segments"] = stream_segments  # down to the attention
        with attention_over(model.config, stream_segments):
            if self.head_in_chunks:
                hidden, router_logits = _backbone(model, *args, **kwargs)
                head, transform = model.get_output_embeddings(), self._transform
            else:  # exact for any architecture, at the price of [tokens × vocabulary]
                out = self._plain_forward(model, *args, **kwargs)
                hidden, router_logits = out.logits, getattr(out, "router_logits", None)
                head, transform = _WholeLogits(hidden.shape[-1]), LogitTransform()
            hidden_KD = hidden.flatten(0, 1)[scored_places]
        logprobs, entropy = score_tokens(
            hidden_KD, scored_ids, head, transform, scored_temperature, entropy_grad=scored_entropy_grad
        )
        # Not the model's own aux_loss: without an attention mask that counts padding.
        loss = router_loss(model, router_logits, real_tokens) if wants_router else None
        return ScoredOutput(logprobs=logprobs, entropy=entropy, router_loss=loss)

    def fall_back(self, model: Any, refusal: AttentionRefusedError) -> None:
        """Use padded rows from now on, and log why.

        Raises:
            AttentionRefusedError: The stream was requested.
        """
        if self.requested == "stream":
            raise AttentionRefusedError(
                f"{type(model).__name__} cannot be scored as a stream: {refusal}. Set model.scoring to auto or padded"
            ) from refusal
        self.streams = False
        logger.warning("%s is scored by padded rows, not as a stream: %s", type(model).__name__, refusal)


def install_scoring(model: PreTrainedModel, scoring: Scoring = "auto") -> None:
    """Make a causal LM's `forward` able to score. Call it before wrapping the model (adapters, DDP, FSDP).

    Two checks run on a few tokens. First, that the head in chunks gives the model's own logits; where it does not (an
    unknown transform between head and logits), scoring holds all logits and a warning says so. Second, that the
    stream's log-probs and gradients are those of padded rows; where they are not, or the model cannot be streamed at
    all, `auto` falls back to padded rows and says why. Installing again changes nothing.

    Raises:
        ValueError: An unknown `scoring`, `stream` for a model that cannot be streamed, or a forward that was replaced.
    """
    if scoring not in get_args(Scoring):
        raise ValueError(f"scoring is {scoring!r}; it must be one of {', '.join(get_args(Scoring))}")
    if _scorer_in(model) is not None:
        return
    avoid_uncapped_attention(model)
    scorer = PolicyScorer(model, scoring)
    model.forward = MethodType(scorer, model)
    scorer.head_in_chunks = _head_agrees(model)
    if not scorer.head_in_chunks:
        logger.warning(
            "%s changes its logits in a way the chunked head does not know: scoring holds all logits at once",
            type(model).__name__,
        )
    if scoring != "padded":
        try:
            check_streamable(model)
            check_stream(model, padded_logprobs, stream_logprobs)
            use_attention_with_keyword(model, NAME, "stream_segments")
            scorer.streams = True
        except AttentionRefusedError as refusal:
            scorer.fall_back(model, refusal)


def group_logprobs(
    model: Any, batch: GroupBatch, *, temperature: float = 1.0, entropy_grad: bool = False
) -> PolicyOutput:
    """log π(x_t | q, x_<t) for every unmasked member token, each prompt computed once where the model allows it.

    Only hidden states that predict a member's token reach the head.

    Args:
        model: A causal LM that went through `install_scoring`, possibly wrapped.
        batch: Groups; a member whose mask is all False costs nothing.
        temperature: Logits are divided by it before the softmax.
        entropy_grad: Make the entropy differentiable; constant otherwise.
    """
    if not bool(batch.mask_PMT.any()):
        return nothing_to_score(model, batch, entropy_grad=entropy_grad)
    scorer = scorer_of(model)
    if scorer.streams:
        try:
            return stream_logprobs(model, batch, temperature=temperature, entropy_grad=entropy_grad)
        except AttentionRefusedError as refusal:
            scorer.fall_back(_scored_module(model), refusal)
    return padded_logprobs(model, batch, temperature=temperature, entropy_grad=entropy_grad)


def scorer_of(model: Any) -> PolicyScorer:
    """Return the scorer of a model, inside any wrapper.

    Raises:
        ValueError: There is none.
    """
    scorer = _scorer_in(_scored_module(model))
    if scorer is None:
        raise ValueError(f"{type(model).__name__} cannot score: call install_scoring on it first.")
    return scorer


def scoring_in_use(model: Any) -> Scoring:
    """Return how a model is scored: `padded`, or as a stream, which under `auto` may still fall back."""
    scorer = _scorer_in(_scored_module(model))
    return scorer.requested if scorer is not None and scorer.streams else "padded"


def _scored_module(model: Any) -> Any:
    """Return the causal LM with a scorer inside a model, or the model itself."""
    return next((module for module in model.modules() if _scorer_in(module) is not None), model)


def _scorer_in(module: Any) -> PolicyScorer | None:
    """Return the scorer in a module's own `forward`, also under functions that accelerate wraps around it."""
    forward = vars(module).get("forward")
    found = getattr(forward, "__func__", forward)
    while found is not None and not isinstance(found, PolicyScorer):
        found = getattr(found, "__wrapped__", None)
    return found


def _backbone(model: PreTrainedModel, *args: Any, **kwargs: Any) -> tuple[Tensor, Any]:
    """Return the last hidden states [N, L, D] and the router logits."""
    of_head = ("labels", "logits_to_keep", "return_dict")
    out = model.base_model(*args, **{k: v for k, v in kwargs.items() if k not in of_head and v is not None})
    return out.last_hidden_state, getattr(out, "router_logits", None)


class _WholeLogits(nn.Identity):
    """A head for "hidden states" that are logits already."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.weight = torch.empty(vocabulary, 0)


@torch.no_grad()
def _head_agrees(model: PreTrainedModel) -> bool:
    """Compare the head on scored tokens with the model's own logits, on four tokens.

    Twice, the second time with the head's output a hundred times larger: a cap is invisible on the small logits of
    fresh weights, and would bite only once training has made them grow. (The second time the head has a hook, so it
    goes in chunks; the first time as it will.)
    """
    device = next(model.parameters()).device
    ids = torch.arange(1, 5, device=device)[None] % model.config.get_text_config().vocab_size
    places = torch.arange(3, device=device)
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    agrees = True
    with evaluating(model):
        for gain in (None, 100.0):
            hook = gain and model.get_output_embeddings().register_forward_hook(
                lambda *call, gain=gain: call[2] * gain
            )
            try:
                own = model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)[0, :-1]
                own = own.gather(-1, ids[0, 1:, None])[:, 0]
                ours = model(input_ids=ids, scored_places=places, scored_ids=ids[0, 1:], use_cache=False).logprobs
            finally:
                if hook:
                    hook.remove()
            agrees = agrees and torch.allclose(own, ours.float(), atol=tolerance, rtol=tolerance)
    return agrees
