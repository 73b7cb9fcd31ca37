"""A sequence-classification model as a reward: one logit a text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
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
    once a call, without gradients. A logit that is not finite is handed on as it is: what called the model names the
    row and stops, or leaves it unscored.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        batch_size: int = 16,
        max_length: int | None = None,
        truncation_side: Literal["left", "right"] = "left",
        append_eos: bool = False,
        name: str | None = None,
    ) -> None:
        """Score with a model that is loaded already; it is put in evaluation mode where it is.

        Args:
            model: of one label.
            tokenizer: the model's. Where it has no padding token, the model's own is used, else the tokenizer's end of
                sequence.
            batch_size: texts in one forward pass.
            max_length: tokens of a text; None = as many as the tokenizer and the model's positions allow.
            truncation_side: where a longer text is cut: "left" keeps the completion, "right" the prompt. Cut texts
                are counted in `num_truncated` and `rewards/{name}/cut`, and logged now and then.
            append_eos: end text with the end-of-sequence token, for models that were trained so on plain text, as by
                TRL's RewardTrainer unless told otherwise; a chat template writes its own end.
            name: what metrics are named after; the model's own name if None.

        Raises:
            ValueError: the model has not exactly one label; there is no token to pad or to end a text with.
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
        self.append_eos = append_eos
        self.num_truncated = 0
        """Distinct texts cut so far."""
        self.num_mended = 0
        """Distinct texts so far that held surrogates, which no tokenizer can read."""
        self._told = 0
        tokenizer.truncation_side = truncation_side
        if append_eos and tokenizer.eos_token_id is None:
            raise ValueError(
                f"append_eos needs an end-of-sequence token, and the tokenizer of {self.__name__!r} has none; set "
                "tokenizer.eos_token, or leave append_eos out"
            )
        # Decoder classifiers read the logit of the last token that is no padding, and find it by this id.
        self._pad_id = _padding(model, tokenizer, self.__name__)
        model.config.get_text_config().pad_token_id = self._pad_id

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
        append_eos: bool = False,
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
            append_eos: as for the class.

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
            append_eos=append_eos,
            name=str(path).rstrip("/").split("/")[-1],
        )

    def __call__(
        self,
        prompts: Sequence[Prompt],
        completions: Sequence[Completion],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float]:
        """Score each completion after its prompt.

        Args:
            prompts: texts or conversations.
            completions: as many, of the shape that goes with their prompts.
            log_metric: told how many distinct texts were cut, as `rewards/{name}/cut`; the name is the model's own.

        Raises:
            ValueError: a conversation and no chat template, one that the template refuses, or a text without a token.
        """
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        distinct = list(dict.fromkeys(texts))
        before = self.num_truncated
        reward_of = dict(zip(distinct, self._logits(self._encode(distinct)), strict=True))
        if log_metric is not None:
            log_metric(f"rewards/{self.__name__}/cut", float(self.num_truncated - before))
        return [reward_of[text] for text in texts]

    def token_ids(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[list[int]]:
        """What the model reads of each completion after its prompt: train on these, and training equals scoring."""
        pairs = zip(prompts, completions, strict=True)
        return self._encode([self._text(prompt, completion) for prompt, completion in pairs])

    def _text(self, prompt: Prompt, completion: Completion) -> tuple[str, bool]:
        """What the model reads, and whether it is plain: then the tokenizer adds its special tokens."""
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + completion, True
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"reward model {self.__name__!r} was given a conversation, and its tokenizer has no chat template; "
                "set tokenizer.chat_template to the one the model was trained with, or give it text prompts (for hh: "
                "leave out as_messages)"
            )
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        said = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
        try:
            return str(self.tokenizer.apply_chat_template([*turns, *said], tokenize=False)), False
        except TemplateError as error:
            roles = ", ".join(str(turn["role"]) for turn in [*turns, *said])
            raise ValueError(
                f"the chat template of reward model {self.__name__!r} refuses a conversation of roles {roles}: {error}"
            ) from error

    def _encode(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Token ids, cut to `max_length` where a text is longer."""
        encoded = []
        cut = mended = 0
        for text, plain in texts:
            readable = _without_lone_surrogates(text)
            ids, whole = self._ids(readable, plain)
            if not ids:
                raise ValueError(
                    f"reward model {self.__name__!r} was given an empty text, of which its tokenizer makes no token; "
                    "drop rows with an empty prompt"
                )
            cut += not whole
            mended += readable != text
            encoded.append(ids)
        if cut:
            self._say_cut(cut, len(texts))
        if mended:
            self.num_mended += mended
            logger.warning(
                "reward model %r read %d of %d texts with U+FFFD for surrogates that have no partner",
                *(self.__name__, mended, len(texts)),
            )
        return encoded

    def _say_cut(self, cut: int, texts: int) -> None:
        """Count, and say so in the log as often as the count has doubled: a line a step would hide the others."""
        self.num_truncated += cut
        if self.num_truncated < 2 * self._told:
            return
        self._told = self.num_truncated
        logger.warning(
            "reward model %r cut %d of %d texts to %d tokens (on the %s); %d so far",
            *(self.__name__, cut, texts, self.max_length, self.tokenizer.truncation_side, self.num_truncated),
        )

    def _ids(self, text: str, plain: bool) -> tuple[list[int], bool]:
        """The ids of one text, and whether they are all of it."""
        end = [self.tokenizer.eos_token_id] if plain and self.append_eos else []
        ids = list(self.tokenizer(text, add_special_tokens=plain, verbose=False)["input_ids"])
        end = [] if ids[-1:] == end else end
        if len(ids) + len(end) <= self.max_length:
            return ids + end, True
        room = self.max_length - len(end)
        ids = list(self.tokenizer(text, add_special_tokens=plain, truncation=True, max_length=room)["input_ids"])
        return ids + end, False

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
        ids = torch.full((len(encoded), longest), self._pad_id)
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


def _padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """The id to pad with: the tokenizer's, else the model's, else the end of sequence."""
    ids = (tokenizer.pad_token_id, model.config.get_text_config().pad_token_id, tokenizer.eos_token_id)
    found = next((i for i in ids if i is not None), None)
    if found is None:
        raise ValueError(
            f"the tokenizer of reward model {name!r} has neither a padding nor an end-of-sequence token, so texts of "
            "unequal length could not share a batch; set tokenizer.pad_token to a token of its vocabulary and save it"
        )
    return int(found)


def _without_lone_surrogates(text: str) -> str:
    """The text with U+FFFD for each surrogate that has no partner: JSON can hold them, UTF-8 and tokenizers cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
