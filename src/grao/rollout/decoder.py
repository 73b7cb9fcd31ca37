"""Next-token logits of many rows, one token at a time, each prompt run once.

The one file that knows how a model is called with a cache. Suffixes: P prompts, N rows (samples being drawn),
S prompt tokens, left-padded, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grao.rollout.cache import write_in_place


class Decoder:
    """The state of one batch: `prefill`, `fork` into samples, then `step` and `keep` until all is drawn.

    Prompts are padded on the left, so that all rows write the same column of the cache. A padded column is masked,
    and positions count real tokens only: a row's logits do not depend on the rows beside it.

    A decoder that keeps a prompt's columns once for all its samples fits behind the same four methods: `fork` says
    which rows share a prompt.
    """

    def __init__(self, model: PreTrainedModel, max_new_tokens: int):
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.device = input_device(model)
        self.copied_layers: set[str] = set()
        """Class names of cache layers that are not written in place."""
        self._accepts = accepted_arguments(model)
        self._cache = DynamicCache(config=model.config)
        self._mask: Tensor | None = None
        self._positions = torch.zeros(0, dtype=torch.long)
        self._length = 0

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Run P prompts; returns [P, V] logits of each one's first new token."""
        S = max(map(len, prompts))
        ids_PS = torch.zeros(len(prompts), S, dtype=torch.long)
        # The columns of tokens to come are real: the mask is written once and read in growing slices.
        mask = torch.ones(len(prompts), S + self.max_new_tokens, dtype=torch.long)
        for p, prompt in enumerate(prompts):
            ids_PS[p, S - len(prompt) :] = torch.tensor(prompt)
            mask[p, : S - len(prompt)] = 0
        # Without padding no mask is needed, and attention without one is faster.
        padded = any(len(prompt) < S for prompt in prompts)
        self._mask = mask.to(self.device) if padded else None
        positions_PS = (mask[:, :S].cumsum(-1) - 1).clamp(min=0).to(self.device)
        self._positions = positions_PS[:, -1]
        logits_PV = self._forward(ids_PS.to(self.device), positions_PS)
        self.copied_layers = write_in_place(self._cache)
        return logits_PV

    def fork(self, counts: Sequence[int]) -> Tensor:
        """Give prompt p counts[p] rows; returns int64 [N], the prompt of each row."""
        prompts_N = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)).to(self.device)
        self.keep(prompts_N)
        return prompts_N

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order."""
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]
        self._positions = self._positions[rows]
        self._mask = None if self._mask is None else self._mask[rows]

    def step(self, ids_N: Tensor) -> Tensor:
        """Append one token to every row; returns [N, V] logits of the next one."""
        self._positions = self._positions + 1
        return self._forward(ids_N.to(self.device)[:, None], self._positions[:, None])

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        self._length += ids.shape[1]
        arguments = {
            "attention_mask": None if self._mask is None else self._mask[:, : self._length],
            "position_ids": positions,
            # Otherwise prefill computes the logits of every prompt token: P · S · V numbers for P · V that are read.
            "logits_to_keep": 1,
        }
        output = self.model(
            input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in arguments.items() if name in self._accepts},
        )
        return output.logits[:, -1]


def accepted_arguments(model: PreTrainedModel) -> frozenset[str]:
    """The names that the model's `forward` takes; of the model within, where adapters are wrapped around it."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return frozenset(inspect.signature(type(base).forward).parameters)


def input_device(model: PreTrainedModel) -> torch.device:
    """Where the model reads its ids, which need not be where all of it lies."""
    device = model.get_input_embeddings().weight.device
    assert isinstance(device, torch.device)
    return device
