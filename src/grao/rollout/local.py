"""Sampling in the trainer's own process, from the model that is being trained."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grao.compat.torch_modules import evaluating
from grao.compat.torch_packed_linear import packed_linears
from grao.compat.transformers_attention import AttentionRefusedError
from grao.compat.transformers_llama_step import can_fuse
from grao.groups import Member
from grao.rollout.admission import Waiting
from grao.rollout.decoder import GroupDecoder, PaddedDecoder
from grao.rollout.decoder_check import check_group_decoder
from grao.rollout.decoding_loop import Draw, draw
from grao.rollout.engine import EngineError, SampleRequest, SamplingParams, check_lengths
from grao.rollout.fused import FusedDecoder
from grao.rollout.stopping import StopStrings, eos_ids
from grao.rollout.weights import weights_in

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Is told how many completions are finished, of how many."""


class LocalEngine:
    """Draws completions from a live transformers model, each prompt run, and kept, once for all its samples.

    The same request gives the same samples whatever is sampled with it, in whatever order, however many are under way
    at once: every draw reads the uniform numbers of its own seed (see `uniforms`), and rows do not see each other.
    Only round-off in the logits depends on the batch; it changes a draw with a probability of about its own size,
    1e-6 in float32.

    The model is read where it is, on its device and in its dtype, under the caller's autocast. While it samples it
    is in evaluation mode (no dropout, no activation checkpointing); afterwards every module is as it was.

    A prompt's keys and values are kept once if the model's attention can be replaced; whether it can, exactly, is
    checked on a few tokens when the engine first meets the model. Otherwise each row has a copy of them, and the log
    says why. On a CPU, steps of Llama, Mistral, Qwen2 and Qwen3 are fused, after a like check
    (`grao.compat.transformers_llama_step`).

    Example::

        engine = LocalEngine(model, tokenizer)
        [samples] = engine.sample([SampleRequest(prompt_ids=(5, 9, 6), seeds=(1, 2, 3, 4))], SamplingParams())
        samples[0].text, samples[0].finish, samples[0].logprobs

    Args:
        model: any causal language model of transformers, or one with peft adapters that are not prompt tuning.
        tokenizer: decodes the ids and knows which of them exist.
        max_rows: at most this many completions at once; as some end, waiting prompts take their place. A group is
            never split: a larger one goes alone.
        max_batch_tokens: at most this many columns of cache at once, of prompts and of new tokens; None = any.
        compact_share: finished rows leave the batch when they are this share of it; more than 1 = never.
        dtype: of the weights while it samples, such as torch.bfloat16; None = as they are. A copy for as long as it
            samples. The samples are then those of the rounded weights, and so are their log-probs.
        packed: multiply with packed copies of the linear layers' weights, where there is a CPU that gains from it.
            They take those weights' memory once more, for as long as it samples. Without, no step is fused either.
        progress: is told how many completions are finished, of how many.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: Any,
        *,
        max_rows: int = 256,
        max_batch_tokens: int | None = None,
        compact_share: float = 1 / 8,
        dtype: torch.dtype | None = None,
        packed: bool = True,
        progress: Progress | None = None,
    ):
        self.tokenizer = tokenizer
        self.max_rows = max_rows
        self.max_batch_tokens = max_batch_tokens
        self.compact_share = compact_share
        self.dtype = dtype
        self.packed = packed
        self.progress = progress
        self._stop_strings: dict[tuple[str, ...], StopStrings] = {}
        self._told_of_copies = False
        self._checked: PreTrainedModel | None = None
        self._shares_prompts = False
        self._fuses: bool | None = None
        self._closed = False
        self.sync(model, "")

    @property
    def exact(self) -> bool:
        """Whether the weights keep their dtype while sampling."""
        weights = (p for p in self.model.parameters() if p.is_floating_point())
        return self.dtype is None or all(p.dtype == self.dtype for p in weights)

    def sync(self, model: PreTrainedModel, version: str) -> None:
        """Draw from this model from now on. Nothing is copied: its weights are read when they are needed."""
        adapter = getattr(model, "active_peft_config", None)
        if adapter is not None and adapter.is_prompt_learning:
            raise ValueError(
                f"the model has an adapter of type {adapter.peft_type}, which puts virtual tokens before the prompt. "
                "The local engine needs one that changes weights: use LoRA."
            )
        self.model = model
        self.version = version

    def open(self) -> None:
        """Allow sampling again after `close`; nothing is acquired."""
        self._closed = False

    def close(self) -> None:
        """Refuse to sample from now on; nothing is held between calls."""
        self._closed = True

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        """For each request, one `Member` a seed, in order.

        A member's ids include the end-of-sequence id; its text is the decoded ids without special tokens, up to the
        end of a stop string. Its log-probs are log softmax(ℓ/τ) over the full vocabulary, before truncation (at
        temperature 0, of temperature 1). Ids that the tokenizer does not know are never drawn.

        Raises:
            ValueError: a prompt is empty, or with the new tokens longer than the model's positions.
            FloatingPointError: the model's logits are not finite.
        """
        if self._closed:
            raise EngineError("The local engine is closed. Call open() first.")
        check_lengths(requests, params.max_new_tokens, max_positions(self.model))
        done, total = 0, sum(len(r.seeds) for r in requests)

        def on_finish(rows: int) -> None:
            nonlocal done
            done += rows
            if self.progress is not None:
                self.progress(done, total)

        # Not inference_mode: a buffer that a model recomputes while it runs, such as the frequencies of dynamic
        # RoPE, would stay an inference tensor, which autograd may not save and nobody may write to outside.
        with evaluating(self.model), torch.no_grad():
            self._meet()
            with weights_in(self.model, self.dtype):
                fuses = bool(self._fuses) and can_fuse(self.model)
                with packed_linears(self.model) if self.packed and not fuses else nullcontext():
                    decoder = FusedDecoder(self.model) if fuses else self._decoder(params)
                    draws = self._draw(decoder, requests, params, on_finish)
        self._tell_of_copies(decoder)
        return [tuple(self._member(drawn, params) for drawn in group) for group in draws]

    def _meet(self) -> None:
        """Find out how this model may be decoded, when it is first met."""
        name = type(self.model).__name__
        if self._checked is not self.model:
            self._shares_prompts, self._fuses = True, None
            try:
                check_group_decoder(self.model)
            except AttentionRefusedError as refusal:
                self._shares_prompts = False
                logger.warning("%s samples with a copy of the prompt in every row: %s", name, refusal)
            self._checked = self.model
        if self.packed and self._shares_prompts and self._fuses is None and can_fuse(self.model):
            try:
                check_group_decoder(self.model, FusedDecoder)
                self._fuses = True
            except AttentionRefusedError as refusal:
                self._fuses = False
                logger.warning("%s samples layer by layer, not by fused steps: %s", name, refusal)

    def _decoder(self, params: SamplingParams) -> GroupDecoder | PaddedDecoder:
        return GroupDecoder(self.model) if self._shares_prompts else PaddedDecoder(self.model, params.max_new_tokens)

    def _draw(
        self,
        decoder: GroupDecoder | PaddedDecoder,
        requests: Sequence[SampleRequest],
        params: SamplingParams,
        on_finish: Callable[[int], None],
    ) -> list[list[Draw]]:
        stop = self._stop(params)
        ends = eos_ids(self.model, self.tokenizer) | stop.special_ids | set(params.stop_token_ids)
        return draw(
            decoder,
            requests,
            Waiting(requests, self.max_rows, self.max_batch_tokens),
            params,
            is_complete=lambda ids: ids[-1] in ends or stop.completed(ids),
            unknown_ids=self._unknown_ids,
            compact_share=self.compact_share,
            on_finish=on_finish,
        )

    def _tell_of_copies(self, decoder: GroupDecoder | PaddedDecoder) -> None:
        if isinstance(decoder, PaddedDecoder) and decoder.copied_layers and not self._told_of_copies:
            self._told_of_copies = True
            names = ", ".join(sorted(decoder.copied_layers))
            logger.info("Part of this model's cache is copied at every token (%s): right, but slower.", names)

    def _member(self, drawn: Draw, params: SamplingParams) -> Member:
        assert drawn.finish is not None, "a draw that goes on is no member"
        text = self._stop(params).cut(self.tokenizer.decode(drawn.ids, skip_special_tokens=True))
        return Member(ids=tuple(drawn.ids), text=text, finish=drawn.finish, logprobs=tuple(drawn.logprobs))

    def _stop(self, params: SamplingParams) -> StopStrings:
        """The stop strings' tables: made once, as that decodes the whole vocabulary."""
        if params.stop not in self._stop_strings:
            self._stop_strings[params.stop] = StopStrings(self.tokenizer, params.stop)
        return self._stop_strings[params.stop]

    def _unknown_ids(self, vocabulary: int, device: torch.device) -> Tensor | None:
        """bool [V]: ids without a token, such as those that pad an embedding matrix; None where all have one."""
        unknown_V = torch.ones(vocabulary, dtype=torch.bool)
        unknown_V[[i for i in self.tokenizer.get_vocab().values() if i < vocabulary]] = False
        return unknown_V.to(device) if unknown_V.any() else None


def max_positions(model: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for; None where its configuration sets no limit."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
