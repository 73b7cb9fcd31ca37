"""Next-token logits of many rows, one token at a time, each prompt run once.

The one file that knows how a model is called to decode. Suffixes: P prompts, N rows (samples being drawn), S prompt
tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grao.compat.transformers_attention import use_attention
from grao.compat.transformers_cache import write_in_place
from grao.rollout import group_attention
from grao.rollout.group_cache import GroupCache

PREFILL_TOKENS = 8192
"""Prompt tokens run at a time: what a forward holds for each of them grows with the model, not with its cache."""


class Decoder(Protocol):
    """Rows that are sampled together: `join`, then `step` and `keep` until all are finished."""

    joins: bool
    """Whether prompts may join while others are sampled; otherwise only when no row is left."""

    def join(self, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
        """Run these prompts and append counts[p] rows for prompt p; return logits [ΣN_p, V] of the new rows."""
        ...

    def step(self, ids_N: Tensor) -> Tensor:
        """Append one token to every row; return logits [N, V] of the next one."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows; indices in rising order."""
        ...

    def columns(self, groups: Sequence[tuple[int, int]], max_new_tokens: int) -> int:
        """Return the columns of cache that groups of (prompt tokens, rows) need at most."""
        ...


class GroupDecoder:
    """A prompt's keys and values are kept once for all its rows (`grao.rollout.group_attention`).

    Prompts of any length run side by side as one row without padding, and rows may differ in length.
    """

    joins = True

    def __init__(self, model: PreTrainedModel):
        self.model = model
        self.device = input_device(model)
        self._cache = GroupCache()

    def join(self, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
        """Run these prompts and append counts[p] rows for prompt p; return logits [ΣN_p, V] of the new rows."""
        parts = []
        for start, end in _runs([len(p) for p in prompts], PREFILL_TOKENS):
            parts.append(self._prefill(prompts[start:end]))
            self._cache.add_rows(counts[start:end], self.device)
        prompts_N = torch.arange(len(prompts)).repeat_interleave(torch.tensor(counts))
        return torch.cat(parts)[prompts_N.to(self.device)]

    def step(self, ids_N: Tensor) -> Tensor:
        """Append one token to every row; return logits [N, V] of the next one."""
        logits = self._forward(ids_N[:, None], self._positions(), torch.zeros(1, dtype=torch.long))
        self._cache.advance()
        return logits[:, 0]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows; indices in rising order."""
        self._cache.keep(rows, self.device)

    def columns(self, groups: Sequence[tuple[int, int]], max_new_tokens: int) -> int:
        """Return the columns of cache that groups of (prompt tokens, rows) need at most."""
        longest = max(prompt for prompt, _ in groups)  # all are kept as wide as that one
        return len(groups) * longest + sum(rows for _, rows in groups) * max_new_tokens

    def _positions(self) -> Tensor:
        """Return the positions [N, 1] of each row's next token."""
        cache = self._cache
        starts = torch.tensor(cache.prompts).repeat_interleave(torch.tensor(cache.counts))
        return (starts + torch.tensor(cache.filled))[:, None]

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        lengths = [len(prompt) for prompt in prompts]
        ids = torch.tensor([token for prompt in prompts for token in prompt])[None]
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        self._cache.begin(lengths)
        return self._forward(ids, positions, torch.tensor(list(accumulate(lengths))) - 1)[0]

    def _forward(self, ids: Tensor, positions: Tensor, places: Tensor) -> Tensor:
        """Return the logits at these places of each row."""
        ids = ids.to(self.device)
        with use_attention(self.model.config, group_attention.NAME):
            output = self.model(
                input_ids=ids,
                # All ones: no effect, but keeps transformers from looking for packed sequences in the positions.
                attention_mask=torch.ones_like(ids),
                position_ids=positions.to(self.device),
                logits_to_keep=places.to(self.device),
                group_cache=self._cache,
                use_cache=False,
                **unwanted_outputs(self.model),
            )
        logits: Tensor = output.logits
        return logits


class PaddedDecoder:
    """transformers' own cache, with a copy of the prompt in each row; for any model.

    Prompts are padded on the left, so that all rows write the same column of the cache. A padded column is masked,
    and positions count real tokens only: a row's logits do not depend on the rows beside it.
    """

    joins = False

    def __init__(self, model: PreTrainedModel, max_new_tokens: int):
        self.model = model
        self.max_new_tokens = max_new_tokens
        self.device = input_device(model)
        self.copied_layers: set[str] = set()
        """Class names of cache layers that are not written in place."""
        self._accepts = accepted_arguments(model)

    def join(self, prompts: Sequence[Sequence[int]], counts: Sequence[int]) -> Tensor:
        """Run these prompts with counts[p] rows each, in place of all rows; return logits [ΣN_p, V] of the rows."""
        self._cache = DynamicCache(config=self.model.config)
        self._length = 0
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
        prompts_N = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        self.keep(prompts_N.tolist())
        return logits_PV[prompts_N.to(self.device)]

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order."""
        rows_N = torch.tensor(rows, dtype=torch.long, device=self.device)
        self._cache.reorder_cache(rows_N)  # type: ignore[arg-type]
        self._positions = self._positions[rows_N]
        self._mask = None if self._mask is None else self._mask[rows_N]

    def step(self, ids_N: Tensor) -> Tensor:
        """Append one token to every row; return logits [N, V] of the next one."""
        self._positions = self._positions + 1
        return self._forward(ids_N.to(self.device)[:, None], self._positions[:, None])

    def columns(self, groups: Sequence[tuple[int, int]], max_new_tokens: int) -> int:
        """Return the columns of cache that groups of (prompt tokens, rows) need at most."""
        return sum(rows for _, rows in groups) * (max(prompt for prompt, _ in groups) + max_new_tokens)

    def _forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        self._length += ids.shape[1]
        arguments = {
            "attention_mask": None if self._mask is None else self._mask[:, : self._length],
            "position_ids": positions,
            # Otherwise prefill computes logits of every prompt token: P · S · V numbers, of which P · V are read.
            "logits_to_keep": 1,
        }
        output = self.model(
            input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
            **unwanted_outputs(self.model),
            **{name: value for name, value in arguments.items() if name in self._accepts},
        )
        logits: Tensor = output.logits
        return logits[:, -1]


def accepted_arguments(model: PreTrainedModel) -> frozenset[str]:
    """Return the names that the model's `forward` takes, without any adapter wrapper."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    return frozenset(inspect.signature(type(base).forward).parameters)


def unwanted_outputs(model: PreTrainedModel) -> dict[str, bool]:
    """Return arguments that turn off unused outputs.

    A mixture of experts would compute its router loss at every token, and fails with more columns than tokens.
    """
    wants_router = getattr(model.config.get_text_config(), "output_router_logits", False)
    return {"output_router_logits": False} if wants_router else {}


def input_device(model: PreTrainedModel) -> torch.device:
    """Return the device of the input embeddings; other layers may be elsewhere."""
    device = model.get_input_embeddings().weight.device
    assert isinstance(device, torch.device)
    return device


def _runs(lengths: Sequence[int], limit: int) -> list[tuple[int, int]]:
    """Cut the lengths into runs (start, end) of at most `limit` in total, or one item that exceeds it."""
    runs: list[tuple[int, int]] = []
    total = 0
    for i, length in enumerate(lengths):
        total += length
        if not runs or total > limit:
            runs.append((i, i))
            total = length
        runs[-1] = (runs[-1][0], i + 1)
    return runs
