"""A sequence-classification model as a reward: one logit per text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from jinja2 import TemplateError
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from grao.groups import Prompt
from grao.rewards.reward_function import Completion, LogMetric

logger = logging.getLogger(__name__)


class RewardModel:
    """R(x, y) = the single logit of a classifier that reads prompt and completion.

    Text is prompt + completion, tokenised with the model's special tokens; a conversation is formatted by the
    tokenizer's chat template, which writes them itself. Padding is on the right. Each distinct text is scored once per
    call, without gradients. A logit that is not finite is returned as it is: `on_error` decides what follows.
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
        """Score with a loaded model, which is put in evaluation mode.

        Args:
            model: A model with one label.
            tokenizer: The model's tokenizer. Padding is its padding token, else the model's, else the end of sequence.
            batch_size: Texts per forward pass.
            max_length: Tokens per text; None = as many as the tokenizer and the model's positions allow.
            truncation_side: Which side of a longer text is cut: "left" keeps the completion, "right" the prompt. Cut
                texts are counted in `num_truncated` and `rewards/{name}/cut`, and logged.
            append_eos: End plain text with the end-of-sequence token, for models trained that way (TRL's RewardTrainer
                does so by default); a chat template writes its own end.
            name: Name in metrics; None = the model's own name.

        Raises:
            ValueError: The model does not have exactly one label; there is no token to pad or to end a text with.
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
        # Tokenizers without a limit hold a huge number.
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = max_length or int(min(tokenizer.model_max_length, positions or tokenizer.model_max_length))
        self.append_eos = append_eos
        self.num_truncated = 0
        """Distinct texts cut so far."""
        self.num_surrogates_replaced = 0
        """Distinct texts so far with lone surrogates, which no tokenizer can read."""
        self._num_logged = 0
        tokenizer.truncation_side = truncation_side
        if append_eos and tokenizer.eos_token_id is None:
            raise ValueError(
                f"append_eos needs an end-of-sequence token, but the tokenizer of {self.__name__!r} has none. Set "
                "tokenizer.eos_token, or leave append_eos out."
            )
        # Decoder classifiers read the logit of the last token that is not padding, and find it by this id.
        self._pad_id = _pad_id(model, tokenizer, self.__name__)
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
        """Load from a directory or a hub id; safetensors only. Further arguments as for the class.

        Args:
            path: Directory or hub id.
            device: None = the accelerator if there is one, else the CPU.
            dtype: "auto" = as saved.
            revision: Commit, branch or tag on the hub.
            trust_remote_code: Run Python code that comes with the model.

        Raises:
            ValueError: The model does not have exactly one label, or its weights lack the head.
        """
        found: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        config = AutoConfig.from_pretrained(path, **found)
        _require_one_label(config.num_labels, str(path))
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **found
        )
        if loading["missing_keys"]:
            raise ValueError(
                f"{str(path)!r} has no weights for {sorted(loading['missing_keys'])}, so its rewards would be random. "
                "Give a model that was trained as a reward model."
            )
        return cls(
            model.to(device or torch.accelerator.current_accelerator() or "cpu"),
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
        log_metric: LogMetric | None = None,
        **_: Any,
    ) -> list[float]:
        """Score each completion after its prompt.

        Args:
            prompts: Texts or conversations.
            completions: One per prompt, in the shape of the prompts.
            log_metric: Called with the number of distinct texts that were cut, as `rewards/{name}/cut`.

        Raises:
            ValueError: A conversation without a chat template or refused by it, or a text without a token.
        """
        texts = [self._text(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
        distinct = list(dict.fromkeys(texts))
        before = self.num_truncated
        reward_of = dict(zip(distinct, self._logits(self._encode(distinct)), strict=True))
        if log_metric is not None:
            log_metric(f"rewards/{self.__name__}/cut", float(self.num_truncated - before))
        return [reward_of[text] for text in texts]

    def token_ids(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[list[int]]:
        """Return the ids that the model reads of each completion after its prompt; train on these."""
        pairs = zip(prompts, completions, strict=True)
        return self._encode([self._text(prompt, completion) for prompt, completion in pairs])

    def _text(self, prompt: Prompt, completion: Completion) -> tuple[str, bool]:
        """Return the text, and whether it is plain: then the tokenizer adds its special tokens."""
        if isinstance(prompt, str) and isinstance(completion, str):
            return prompt + completion, True
        if not self.tokenizer.chat_template:
            raise ValueError(
                f"reward model {self.__name__!r} was given a conversation, but its tokenizer has no chat template. "
                "Set tokenizer.chat_template to that of its training, or use text prompts (hh: without as_messages)."
            )
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        turns += [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False)), False
        except TemplateError as error:
            roles = ", ".join(str(turn["role"]) for turn in turns)
            raise ValueError(
                f"the chat template of reward model {self.__name__!r} refuses a conversation of roles {roles}: {error}"
            ) from error

    def _encode(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Return token ids, cut to `max_length` if a text is longer."""
        encoded = []
        cut = replaced = 0
        for text, plain in texts:
            # JSON can hold lone surrogates, UTF-8 and tokenizers cannot: each becomes U+FFFD.
            readable = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            ids, whole = self._ids(readable, plain)
            if not ids:
                raise ValueError(
                    f"reward model {self.__name__!r} was given an empty text, which has no token. "
                    "Drop rows with an empty prompt."
                )
            cut += not whole
            replaced += readable != text
            encoded.append(ids)
        self.num_truncated += cut
        if cut and self.num_truncated >= 2 * self._num_logged:  # not a line per step
            self._num_logged = self.num_truncated
            logger.warning(
                "reward model %r cut %d of %d texts to %d tokens (on the %s); %d so far",
                *(self.__name__, cut, len(texts), self.max_length, self.tokenizer.truncation_side, self.num_truncated),
            )
        if replaced:
            self.num_surrogates_replaced += replaced
            logger.warning(
                "reward model %r read %d of %d texts with U+FFFD for lone surrogates",
                *(self.__name__, replaced, len(texts)),
            )
        return encoded

    def _ids(self, text: str, plain: bool) -> tuple[list[int], bool]:
        """Return the ids of one text, and whether they are complete."""
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
        """Return one logit per text. Batches hold texts of similar length, so that there is little padding."""
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        rewards = [0.0] * len(encoded)
        for begin in range(0, len(order), self.batch_size):
            batch = order[begin : begin + self.batch_size]
            ids_BT = self._padded([torch.tensor(encoded[i]) for i in batch], self._pad_id)
            mask_BT = self._padded([torch.ones(len(encoded[i]), dtype=torch.long) for i in batch], 0)
            logits_B = self.model(input_ids=ids_BT, attention_mask=mask_BT).logits[:, 0]
            for i, reward in zip(batch, logits_B.double().tolist(), strict=True):
                rewards[i] = reward
        return rewards

    def _padded(self, rows: list[Tensor], value: int) -> Tensor:
        return pad_sequence(rows, batch_first=True, padding_value=value).to(self.model.device)


def _require_one_label(found: int | None, name: str) -> None:
    if found != 1:
        raise ValueError(f"{name!r} is a classifier of {found} labels. A reward model has exactly 1 (num_labels=1).")


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> int:
    """Return the id to pad with: the tokenizer's, else the model's, else the end of sequence."""
    ids = (tokenizer.pad_token_id, model.config.get_text_config().pad_token_id, tokenizer.eos_token_id)
    found = next((i for i in ids if i is not None), None)
    if found is None:
        raise ValueError(
            f"the tokenizer of reward model {name!r} has neither a padding nor an end-of-sequence token. Set "
            "tokenizer.pad_token to a token of its vocabulary, and save it."
        )
    return int(found)
