"""A sequence-classification model as a reward: one logit a text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from grao.groups import Prompt
from grao.rewards.completions import Completion

logger = logging.getLogger(__name__)


class RewardModel:
    """R(x, y) = the single logit of a classifier that reads prompt and completion.

    Text is prompt + completion, tokenised with the model's special tokens; a conversation goes through the
    tokenizer's chat template instead, which writes them itself. Padding is on the right. Each distinct text is scored
    once a call, without gradients.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        truncation_side: Literal["left", "right"] = "left",
        name: str | None = None,
    ) -> None:
        """Score with a model that is loaded already; it is put in evaluation mode where it is.

        Args:
            model: of one label.
            tokenizer: the model's; it gets the end-of-sequence token to pad with if it has none.
            batch_size: texts in one forward pass.
            max_length: tokens of a text; None = as many as the tokenizer and the model's positions allow.
            truncation_side: where a longer text is cut: "left" keeps the completion, "right" the prompt. Cut texts
                are counted in `num_truncated` and logged.
            name: what metrics are named after; the model's own name if None.
        """
        if batch_size < 1 or truncation_side not in ("left", "right"):
            raise ValueError(
                f"a reward model needs batch_size ≥ 1 and truncation_side 'left' or 'right'; "
                f"found {batch_size} and {truncation_side!r}"
            )
        self.__name__ = name or str(model.config.name_or_path or type(model).__name__).rstrip("/").split("/")[-1]
        _require_one_label(model.config.num_labels, self.__name__)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.max_length = max_length or _longest(model, tokenizer)
        self.num_truncated = 0
        """Distinct texts cut so far."""
        tokenizer.truncation_side = truncation_side
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        # Decoder classifiers read the logit of the last token that is no padding, and find it by this id.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        batch_size: int = 16,
        max_length: int | None = None,
        truncation_side: Literal["left", "right"] = "left",
    ) -> RewardModel:
        """Load from a directory or a hub id; safetensors only.

        Args:
            path: directory or id.
            device: the accelerator if there is one, else the CPU, if None.
            dtype: "auto" = as the weights were saved.
            revision: commit, branch or tag on the hub.
            trust_remote_code: run Python code that comes with the model.
            batch_size: as for the class.
            max_length: as for the class.
            truncation_side: as for the class.

        Raises:
            ValueError: the model has not exactly one label, or its head is not among the weights.
        """
        found: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(path, **found)
        _require_one_label(config.num_labels, str(path))
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **found
        )
        if loading["missing_keys"]:
            raise ValueError(
                f"{str(path)!r} holds no weights for {sorted(loading['missing_keys'])}, so its rewards would be "
                "random; give a model that was trained as a reward model"
            )
        return cls(
            model.to(device if device is not None else _best_device()),
            AutoTokenizer.from_pretrained(path, **found),
            batch_size=batch_size,
            max_length=max_length,
            truncation_side=truncation_side,
            name=str(path).rstrip("/").split("/")[-1],
        )

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Completion], **_: Any) -> list[float]:
        """Score each completion after its prompt."""
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        distinct = list(dict.fromkeys(texts))
        reward_of = dict(zip(distinct, self._logits(self._encode(distinct)), strict=True))
        return [reward_of[text] for text in texts]

    def _text(self, prompt: Prompt, completion: Completion) -> tuple[str, bool]:
        """What the model reads, and whether the tokenizer is to add its special tokens."""
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + completion, True
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return str(self.tokenizer.apply_chat_template([*turns, *completion], tokenize=False)), False

    def _encode(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Token ids, cut to `max_length` where a text is longer."""
        encoded = []
        cut = 0
        for text, special in texts:
            ids = self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]
            if len(ids) > self.max_length:
                cut += 1
                ids = self.tokenizer(text, add_special_tokens=special, truncation=True, max_length=self.max_length)[
                    "input_ids"
                ]
            encoded.append(ids)
        if cut:
            self.num_truncated += cut
            logger.warning(
                "reward model %r cut %d of %d texts to %d tokens (on the %s)",
                *(self.__name__, cut, len(texts), self.max_length, self.tokenizer.truncation_side),
            )
        return encoded

    @torch.no_grad()
    def _logits(self, encoded: Sequence[list[int]]) -> list[float]:
        """One logit a text, in the texts' order; batches hold texts of like length, so that little is padded."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        rewards = [0.0] * len(encoded)
        for begin in range(0, len(order), self.batch_size):
            batch = order[begin : begin + self.batch_size]
            ids, mask = self._padded([encoded[i] for i in batch])
            logits = self.model(input_ids=ids, attention_mask=mask).logits[:, 0]
            for i, reward in zip(batch, logits.double().tolist(), strict=True):
                rewards[i] = reward
        return rewards

    def _padded(self, encoded: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask, [texts, tokens], padded on the right."""
        longest = max(map(len, encoded))
        ids = torch.full((len(encoded), longest), int(self.tokenizer.pad_token_id))
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(encoded):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids.to(self.model.device), mask.to(self.model.device)


def _require_one_label(found: int | None, name: str) -> None:
    if found != 1:
        raise ValueError(
            f"{name!r} is a classifier of {found} labels; a reward model has exactly 1 (num_labels=1 in its config)"
        )


def _longest(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """The fewer of the tokenizer's limit and the model's positions; tokenizers without limit hold a huge number."""
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(int(tokenizer.model_max_length), int(positions or tokenizer.model_max_length))


def _best_device() -> torch.device:
    return torch.accelerator.current_accelerator() or torch.device("cpu")
