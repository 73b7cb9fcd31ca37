"""Tokenizers for small base models: whole words, and byte-level BPE. Both reproduce their texts exactly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"


def word_tokenizer(vocabulary: Sequence[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per word; ``decode(encode(text)) == text`` for words one space apart.

    Ids: 0 `<pad>`, 1 `<eos>`, 2 `<unk>`, then the vocabulary in order. Any other word becomes `<unk>`.

    Raises:
        ValueError: If a word occurs twice, contains white space, or is a special token.
    """
    tokens = [PAD, EOS, UNK, *vocabulary]
    ids = {token: i for i, token in enumerate(tokens)}
    if len(ids) < len(tokens):
        twice = sorted({token for token in tokens if tokens.count(token) > 1})
        raise ValueError(f"the vocabulary has {twice} more than once: list every word once")
    if broken := [token for token in tokens if token.split() != [token]]:
        raise ValueError(f"the vocabulary has {broken}, which contain white space: split them into words")
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return as_transformers(tokenizer, unk_token=UNK)


def bpe_tokenizer(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `texts`. It reproduces every string exactly.

    The merges depend on the texts alone: the same texts give the same tokenizer.

    Raises:
        ValueError: If `vocab_size` is too small for the 256 bytes and the two special tokens.
    """
    if vocab_size < 258:
        raise ValueError(f"vocab_size is {vocab_size}: give at least 258, for 256 bytes, {PAD} and {EOS}")
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
    return as_transformers(tokenizer)


def as_transformers(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    """Return a transformers tokenizer with padding on the left and these special tokens."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        clean_up_tokenization_spaces=False,  # or "can not ?" would come back as "can not?"
        **special,
    )
