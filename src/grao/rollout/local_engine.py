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
from grao.rollout.admission import AdmissionQueue
from grao.rollout.decoder import GroupDecoder, PaddedDecoder
from grao.rollout.decoder_check import check_group_decoder
from grao.rollout.decoding_loop import SampleState, sample_completions
from grao.rollout.engine import EngineError, SampleRequest, SamplingParams, check_lengths
from grao.rollout.fused_decoder import FusedDecoder
from grao.rollout.rounded_weights import rounded_weights
from grao.rollout.stopping import StopStrings, eos_ids

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with (completions done, total)."""


class LocalEngine:
    """Draws completions from a live transformers model; each prompt runs, and is kept, once for all its samples.

    Each draw reads the uniform numbers of its own seed (`uniforms`), and rows do not see each other, so a sample does
    not depend on its batch. Rounding of the logits does; it changes a draw with a probability of about its own size,
    1e-6 in float32.

    The model is read where it is, on its device, under the caller's autocast. While it samples it is in evaluation
    mode (no dropout, no activation checkpointing); afterwards every module is as it was.

    A prompt's keys and values are kept once if the model's attention can be replaced exactly. That is checked on a
    few tokens when the engine first sees the model; otherwise each row has a copy, and the log says why. On a CPU,
    steps of Llama, Mistral, Qwen2 and Qwen3 are fused after a similar check (`grao.compat.transformers_llama_step`).

    Example::

        engine = LocalEngine(model, tokenizer)
        [samples] = engine.sample([SampleRequest(prompt_ids=(5, 9, 6), seeds=(1, 2, 3, 4))], SamplingParams())
        samples[0].text, samples[0].finish, samples[0].logprobs

    Args:
        model: A causal language model of transformers, with or without peft adapters, except prompt tuning. The
            engine is open and synced with it from the start.
        tokenizer: Decodes the ids and knows which of them exist.
        max_rows: Completions in progress at once; as some end, waiting prompts take their place. A group is never
            split: a larger one runs alone.
        max_batch_tokens: Columns of key-value cache at once, for prompts and new tokens; None = no limit.
        compact_share: Finished rows leave the batch when they are this share of it; more than 1 = never.
        dtype: Dtype of the weights while sampling, such as torch.bfloat16; None = unchanged. Holds a rounded copy
            while it samples. Samples and log-probs are then those of the rounded weights.
        packed: Multiply with packed copies of the linear layers' weights on a CPU that gains from it. They take those
            weights' memory once more while sampling. False also turns off fused steps.
        progress: Called with (completions done, total).
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
        self._warned_of_copies = False
        self._checked: PreTrainedModel | None = None
        self._shares_prompts = False
        self._fuses: bool | None = None
        self._open = True
        self.sync(model, "")

    @property
    def exact(self) -> bool:
        """Whether the weights keep their dtype while sampling."""
        weights = (p for p in self.model.parameters() if p.is_floating_point())
        return self.dtype is None or all(p.dtype == self.dtype for p in weights)

    def open(self) -> None:
        """Allow sampling; there is nothing to start."""
        self._open = True

    def close(self) -> None:
        """Refuse to sample until opened again."""
        self._open = False

    def sync(self, model: PreTrainedModel, version: str) -> None:
        """Sample from this model from now on. Nothing is copied: its weights are read when they are needed."""
        self._check_open()
        adapter = getattr(model, "active_peft_config", None)
        if adapter is not None and adapter.is_prompt_learning:
            raise ValueError(
                f"the model has an adapter of type {adapter.peft_type}, which puts virtual tokens before the prompt. "
                "The local engine needs one that changes weights: use LoRA."
            )
        self.model = model
        self.version = version

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams) -> list[tuple[Member, ...]]:
        """SampleState one completion per seed of each request, as `Engine` promises.

        Ids that the tokenizer does not know are never drawn.
        """
        self._check_open()
        check_lengths(requests, params.max_new_tokens, max_positions(self.model))
        done, total = 0, sum(len(r.seeds) for r in requests)

        def on_finish(rows: int) -> None:
            nonlocal done
            done += rows
            if self.progress is not None:
                self.progress(done, total)

        # Not inference_mode: a buffer that the model recomputes here, such as the frequencies of dynamic RoPE, would
        # stay an inference tensor, which autograd cannot save and later code cannot write to.
        with evaluating(self.model), torch.no_grad():
            self._check_decoders()
            with rounded_weights(self.model, self.dtype):
                fuses = bool(self._fuses) and can_fuse(self.model)
                with packed_linears(self.model) if self.packed and not fuses else nullcontext():
                    decoder = FusedDecoder(self.model) if fuses else self._decoder(params)
                    samples = self._sample(decoder, requests, params, on_finish)
        self._warn_of_copies(decoder)
        return [tuple(self._member(sample, params) for sample in group) for group in samples]

    def _check_open(self) -> None:
        if not self._open:
            raise EngineError("The local engine is closed. Call open() first.")

    def _check_decoders(self) -> None:
        """Find out which decoders are exact for a model that the engine has not seen before."""
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

    def _sample(
        self,
        decoder: GroupDecoder | PaddedDecoder,
        requests: Sequence[SampleRequest],
        params: SamplingParams,
        on_finish: Callable[[int], None],
    ) -> list[list[SampleState]]:
        stop = self._stop(params)
        ends = eos_ids(self.model, self.tokenizer) | stop.special_ids | set(params.stop_token_ids)
        return sample_completions(
            decoder,
            requests,
            AdmissionQueue(requests, self.max_rows, self.max_batch_tokens),
            params,
            is_complete=lambda ids: ids[-1] in ends or stop.completed(ids),
            unknown_ids=self._unknown_ids,
            compact_share=self.compact_share,
            on_finish=on_finish,
        )

    def _warn_of_copies(self, decoder: GroupDecoder | PaddedDecoder) -> None:
        """Log once if part of the cache is copied at every token."""
        if isinstance(decoder, PaddedDecoder) and decoder.copied_layers and not self._warned_of_copies:
            self._warned_of_copies = True
            names = ", ".join(sorted(decoder.copied_layers))
            logger.info("Part of this model's cache is copied at every token (%s): correct, but slower.", names)

    def _member(self, sample: SampleState, params: SamplingParams) -> Member:
        assert sample.finish is not None, "the sample is not finished"
        text = self._stop(params).cut(self.tokenizer.decode(sample.ids, skip_special_tokens=True))
        return Member(ids=tuple(sample.ids), text=text, finish=sample.finish, logprobs=tuple(sample.logprobs))

    def _stop(self, params: SamplingParams) -> StopStrings:
        """Return the stop strings' tables, made once: that decodes the whole vocabulary."""
        if params.stop not in self._stop_strings:
            self._stop_strings[params.stop] = StopStrings(self.tokenizer, params.stop)
        return self._stop_strings[params.stop]

    def _unknown_ids(self, vocabulary: int, device: torch.device) -> Tensor | None:
        """Return bool [V], True on ids without a token, such as padding of an embedding matrix; None without any."""
        unknown_V = torch.ones(vocabulary, dtype=torch.bool)
        unknown_V[[i for i in self.tokenizer.get_vocab().values() if i < vocabulary]] = False
        return unknown_V.to(device) if unknown_V.any() else None


def max_positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens the model has positions for; None if its configuration sets no limit."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)
