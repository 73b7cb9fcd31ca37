"""Tokenizers for base models trained on the spot: words, pieces of text, byte-level BPE. Lossless on their texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
PIECE = r" ?[A-Za-z]+|[0-9]|<<|>>|#+|[^A-Za-z0-9]"
"""A token of ordinary text: a word with the space before it, one digit, one sign (a row of # is one), white space."""


def word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a whitespace-separated word; ``decode(encode(text)) == text`` where words stand one space apart.

    Ids: 0 `<pad>`, 1 `<eos>`, 2 `<unk>`, then the vocabulary in its order. A word outside it becomes `<unk>`.

    Raises:
        ValueError: a word occurs twice, holds white space, or is one of the special tokens.
    """
    tokens = [PAD, EOS, UNK, *vocabulary]
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        raise ValueError(f"the vocabulary names {twice} more than once; each word needs exactly one id")
    if broken := [token for token in tokens if token.split() != [token]]:
        raise ValueError(f"{broken} would never be one word of a text split at white space; split them first")
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _as_transformers(tokenizer, unk_token=UNK)


def text_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    r"""One token a `PIECE`: every text made of the pieces of `texts` round-trips, line breaks and numbers included.

    ``"Ada has 12 pens.\n"`` is ``Ada``, `` has``, `` ``, ``1``, ``2``, `` pens``, ``.``, ``\n``: a digit is the same
    token wherever it stands. Ids: 0 `<pad>`, 1 `<eos>`, 2 `<unk>`, then the pieces in alphabetical order.
    """
    pieces = sorted({piece for text in texts for piece in re.findall(PIECE, text)})
    ids = {token: i for i, token in enumerate([PAD, EOS, UNK, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return _as_transformers(tokenizer, unk_token=UNK)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Byte-level BPE learnt from `texts`: every string round-trips, whatever bytes it holds.

    The merges depend on the texts alone, so training twice gives the same tokenizer.

    Raises:
        ValueError: `vocab_size` leaves no room for the 256 bytes and the two special tokens.
    """
    if vocab_size < 258:
        raise ValueError(f"vocab_size is {vocab_size}; 256 bytes, {PAD} and {EOS} need at least 258")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _as_transformers(tokenizer)


def _as_transformers(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,  # or "can not ?" would come back as "can not?"
        **special,
    )
