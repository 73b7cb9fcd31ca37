"""Check once per model, on a few tokens, that it decodes the same with each prompt kept once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from grao.compat.rounding_check import FAILURES, check_difference
from grao.compat.transformers_attention import AttentionRefusedError, check_replaceable
from grao.rollout.decoder import Decoder, GroupDecoder, PaddedDecoder

STEPS = 3


def check_group_decoder(model: PreTrainedModel, kind: Callable[[PreTrainedModel], Decoder] = GroupDecoder) -> None:
    """Compare a decoder's logits with the padded one's on two prompts with three rows, in the weights' dtype.

    The padded one runs each prompt by itself, so that nothing is padded. Under autocast both are under it.

    Raises:
        AttentionRefusedError: they differ, or prompts cannot be kept once at all; the message says why.
    """
    base: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    check_replaceable(base)
    if len({p.device for p in model.parameters()}) > 1:
        raise AttentionRefusedError("its layers are on several devices")
    embeddings: Any = model.get_input_embeddings()
    weight: Tensor = embeddings.weight
    vocabulary = int(weight.shape[0])
    prompts = [[(7 * i * i + 3) % vocabulary for i in range(start, end)] for start, end in ((0, 3), (10, 15))]
    ids_TN = torch.tensor([(t, 10 * t, 100 * t) for t in range(1, STEPS)]) % vocabulary
    alone = PaddedDecoder(model, STEPS)
    expected = torch.cat(
        [_logits(alone, prompts[:1], [2], ids_TN[:, :2]), _logits(alone, prompts[1:], [1], ids_TN[:, 2:])], 1
    )
    try:
        found = _logits(kind(model), prompts, [2, 1], ids_TN)
    except AttentionRefusedError:
        raise
    except FAILURES as error:
        raise AttentionRefusedError(f"its forward cannot do without ({type(error).__name__}: {error})") from error
    check_difference("logits", found, expected, _product_dtype(weight))


def _logits(decoder: Decoder, prompts: list[list[int]], counts: list[int], ids_TN: Tensor) -> Tensor:
    """[1 + T, N, V] logits of rows that go on with these ids; relative to their mean, which no softmax sees."""
    logits = [decoder.join(prompts, counts), *(decoder.step(ids_N) for ids_N in ids_TN)]
    logits_TNV = torch.stack(logits).double()
    return logits_TNV - logits_TNV.mean(-1, keepdim=True)


def _product_dtype(weight: Tensor) -> torch.dtype:
    """Autocast's where it is on."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
