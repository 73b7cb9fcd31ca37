"""When a completion ends: end-of-sequence ids and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

UNKNOWN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


def eos_ids(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    """Return every end-of-sequence id: of the model's generation config (one or several) and of the tokenizer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = configured if isinstance(configured, list | tuple) else [configured]
    return frozenset(int(i) for i in [*found, tokenizer.eos_token_id] if i is not None)


class StopStrings:
    """Finds the token that completes a stop string, which may begin and end within tokens.

    A token can only complete a string if it holds the string's last character, so a row is decoded only after such
    a token. `special_ids` are stop strings that are special tokens: decoding skips those, so they are matched by id.
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str]):
        special = {t.content: i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        self.special_ids = frozenset(special[s] for s in strings if s in special)
        self.strings = tuple(s for s in strings if s not in special)
        self._tokenizer = tokenizer
        self._completing = _completing_ids(tokenizer, self.strings) if self.strings else frozenset()
        # A token is at least a byte of text, so that many tokens hold the longest string; twice that and some more
        # leaves room for the token that begins it, for one that runs past its end and for tokens without text.
        self._window = 2 * max((len(s.encode()) for s in self.strings), default=0) + 16

    def completed(self, ids: Sequence[int]) -> bool:
        """Return whether the last of these tokens completes a stop string."""
        if ids[-1] not in self._completing:
            return False
        tail = self._tokenizer.decode(ids[-self._window :], skip_special_tokens=True)
        return any(s in tail for s in self.strings)

    def cut(self, text: str) -> str:
        """Cut the text after the stop string that ends first, if there is one."""
        ends = [text.index(s) + len(s) for s in self.strings if s in text]
        return text[: min(ends, default=len(text))]


def _completing_ids(tokenizer: Any, strings: Sequence[str]) -> frozenset[int]:
    """Return the ids whose text may hold the last character of one of the strings."""
    ids = sorted(tokenizer.get_vocab().values())
    ends = {s[-1] for s in strings}
    if " " in ends:
        return frozenset(ids)  # decoding a lone token of the SentencePiece family drops the space it begins with
    texts = tokenizer.batch_decode([[i] for i in ids])
    # A token that is part of a character decodes to U+FFFD alone: it may be the last byte of any.
    ends.add(UNKNOWN_CHARACTER)
    return frozenset(i for i, text in zip(ids, texts, strict=True) if not ends.isdisjoint(text))
