"""A tokenizer of ordinary text for small models: words with the space before them, single digits, signs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from grao.demo.base_model.small_tokenizers import EOS, PAD, UNK, as_transformers

PIECE = r" ?[A-Za-z]+|[0-9]|<<|>>|#+|[^A-Za-z0-9]"
"""A token: a word with the space before it, one digit, one sign (several # are one), or white space."""


def text_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    r"""Return a tokenizer with one token per `PIECE`, which reproduces any text made of the pieces of `texts`.

    ``"Ada has 12 pens.\n"`` is ``Ada``, `` has``, `` ``, ``1``, ``2``, `` pens``, ``.``, ``\n``: a digit is the same
    token wherever it stands. Ids: 0 `<pad>`, 1 `<eos>`, 2 `<unk>`, then the pieces in alphabetical order.
    """
    pieces = sorted({piece for text in texts for piece in re.findall(PIECE, text)})
    ids = {token: i for i, token in enumerate([PAD, EOS, UNK, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return as_transformers(tokenizer, unk_token=UNK)
