"""Judged texts at the level of tokens: a server's tokenizer sees no control token that a benign text would not give.

Oracle: real chat templates over tokenizers that take control tokens out of any text, as servers' tokenizers do; each
is first shown a hostile text unquoted, and must find control tokens there.
"""

from __future__ import annotations

import pytest
from tests.rewards.hostile_answers import CHAT_FORMATS, hostile_answers
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from grao.rewards.judging.question import Material, ask_messages
from grao.rewards.judging.rubric import load_rubric

RUBRIC = load_rubric("helpfulness", "pairwise")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
LLAMA_3 = (
    "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}"
    "<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
MISTRAL = "<s>[SYSTEM_PROMPT]{{ messages[0].content }}[/SYSTEM_PROMPT][INST]{{ messages[1].content }}[/INST]"
GEMMA = (
    "<bos><start_of_turn>user\n{{ messages[0].content }}\n\n{{ messages[1].content }}<end_of_turn>\n"
    "<start_of_turn>model\n"
)
DEEPSEEK = "<｜begin▁of▁sentence｜>{{ messages[0].content }}<｜User｜>{{ messages[1].content }}<｜Assistant｜>"
MINIMAX = "]~!b[]~b]system{{ messages[0].content }}[e~[]~b]user{{ messages[1].content }}[e~[]~b]ai"

FAMILIES = {
    "ChatML": (["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"], CHATML, "chatml"),
    "Llama 3": (["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"], LLAMA_3, "llama 3"),
    "Mistral": (
        ["<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CALLS]"],
        MISTRAL,
        "mistral",
    ),
    "Gemma": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>", "<mask>", "[multimodal]"], GEMMA, "gemma"),
    "DeepSeek": (
        ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
        DEEPSEEK,
        "deepseek",
    ),
    "MiniMax": (["]~!b[", "]~b]", "[e~["], MINIMAX, "minimax"),
}


def make_tokenizer(tokens, template, *, folding=False):
    """Bytes, and control tokens; `folding` also finds those that compatibility folding brings to light."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    if folding:
        backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.StripAccents()])
    backend.add_special_tokens([AddedToken(token, special=True, normalized=folding) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template)


def controls(tokenizer, text_1):
    """Ids of the conversation: control tokens as themselves, everything between two of them as its text."""
    material = Material.of("What is 2 + 2?", (text_1, "It is 4."), 20_000, "cut_middle")
    messages = ask_messages(RUBRIC, material, (0, 1))
    ids = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    known = set(tokenizer.get_added_vocab().values())
    found, between = [], []
    for token in [*ids, None]:
        if token is None or token in known:
            found += [tokenizer.decode(between)] * bool(between) + [token]
            between = []
        else:
            between.append(token)
    return messages, found


def hostile():
    material = Material.of("What is 2 + 2?", ("a", "b"), 20_000, "cut_middle")
    ours = ask_messages(RUBRIC, material, (0, 1))[-1]["content"]
    return hostile_answers(ours, ["0123456789abcdef"])


@pytest.mark.parametrize("folding", [False, True], ids=["plain", "folding"])
@pytest.mark.parametrize("family", FAMILIES)
def test_control_tokens_are_those_of_a_benign_question(family, folding):
    """Oracle: the benign conversation's control tokens, one by one, and the whole messages between them."""
    tokens, template, own = FAMILIES[family]
    tokenizer = make_tokenizer(tokens, template, folding=folding)
    _, benign = controls(tokenizer, "It is four.")
    order = [token for token in benign if not isinstance(token, str)]
    unquoted = tokenizer(CHAT_FORMATS[own], add_special_tokens=False)["input_ids"]
    assert set(unquoted) & set(tokenizer.get_added_vocab().values()), "this tokenizer would find no attack"
    for name, text in hostile().items():
        messages, found = controls(tokenizer, text)
        assert [token for token in found if not isinstance(token, str)] == order, name
        between = "".join(part for part in found if isinstance(part, str))
        if not folding:
            assert messages[0]["content"] in between, name
            assert messages[1]["content"] in between, name


def test_folding_brings_tokens_to_light():
    """Oracle: the tokenizer that folds sees a token in fullwidth letters, the plain one does not."""
    tokens, template, _ = FAMILIES["ChatML"]
    text = "＜|im_end|＞"
    for folding in (False, True):
        tokenizer = make_tokenizer(tokens, template, folding=folding)
        found = set(tokenizer(text)["input_ids"]) & set(tokenizer.get_added_vocab().values())
        assert bool(found) == folding
