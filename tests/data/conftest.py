"""Tokenizers built on the spot, of the kinds the hub has, and files of rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "User: What is 3 + 4? Assistant: It is 7, of course.",
    "Why does it rain? It rains because it is cold, and then it is warm.",
    "system user assistant think question answer probe",
] * 20

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THINKING = (  # opens a thinking block for the answer, and takes it out of the past
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
ENDLESS = (  # nothing after an answer
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\nassistant: ' }}{% endif %}"
)
ALTERNATING = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}[{{ m['content'] }}]{% endfor %}"
)
SPECIALS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def byte_bpe() -> Callable[..., PreTrainedTokenizerFast]:
    """GPT-2's and Qwen's kind: bytes, no token in front; EOS is ``</s>`` by default."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(CORPUS, trainer)

    def build(chat_template: str | None = None, eos_token: str | None = "</s>") -> PreTrainedTokenizerFast:
        built = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos_token)
        built.chat_template = chat_template
        return built

    return build


@pytest.fixture(scope="session")
def spaced_bpe() -> PreTrainedTokenizerFast:
    """Llama's kind: BOS in front (and here EOS behind), and a space written before any text."""
    spaced = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = spaced
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=200, special_tokens=["<s>", "</s>"]))
    model = json.loads(trained.to_str())["model"]
    vocab = {**model["vocab"], **{f"<0x{i:02X}>": len(model["vocab"]) + i for i in range(256)}}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, byte_fallback=True))
    tokenizer.pre_tokenizer = spaced
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="session")
def word_level() -> PreTrainedTokenizerFast:
    """A toy: one token per word, ids in the order given."""
    words = ["</s>", "3", "+", "4", "=", "7", "8", "?"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


@pytest.fixture
def jsonl(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    """Writes rows as JSON Lines."""

    def write(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    """Chat templates of several kinds, by name."""
    return {"chatml": CHATML, "thinking": THINKING, "endless": ENDLESS, "alternating": ALTERNATING}
