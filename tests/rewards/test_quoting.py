"""Quoting: the oracle is an independent strict reader of the form (strict_reader.py), and texts written by hand."""

from __future__ import annotations

import random
import unicodedata

import pytest
from tests.rewards.hostile_answers import hostile_answers
from tests.rewards.strict_reader import join, parse_prompt

from grao.rewards.judging.question import Material, ask_messages, reminded
from grao.rewards.judging.quoting import Excerpt, boundary, excerpt, harmless, quoted
from grao.rewards.judging.rubric import load_rubric

PAIRWISE, ABSOLUTE = load_rubric("helpfulness", "pairwise"), load_rubric("helpfulness-absolute", "absolute")
CONTEXT, BENIGN, LIMIT = "What is 2 + 2?", "It is 4.\nThat is all.", 20_000


def user_message(prompt, texts, order=(0, 1), rubric=PAIRWISE, overlong="cut_middle"):
    material = Material.of(prompt, texts, LIMIT, overlong)
    return ask_messages(rubric, material, order)[-1]["content"]


def codes_known_to_an_attacker(n=4):
    """The code of a benign question, then the one that a text with that code gets, and so on."""
    codes = []
    for _ in range(n):
        codes.append(parse_prompt(user_message(CONTEXT, (" ".join(codes), BENIGN))).code)
    return codes


HOSTILE = hostile_answers(user_message(CONTEXT, (BENIGN, BENIGN)), codes_known_to_an_attacker())


def remaining(text, left_out, *, middle=True):
    """What a cut leaves: the longer half in front."""
    if not left_out:
        return text
    n = len(text) - left_out
    tail = n // 2 if middle else 0
    return text[: n - tail] + text[len(text) - tail :]


def test_there_are_enough_kinds():
    """Oracle: counted; and no trick twice."""
    assert len(HOSTILE) >= 45
    assert len(set(HOSTILE.values())) == len(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strict_reader_finds_exactly_what_went_in(name):
    """Oracle: the reader, which refuses any line that is neither quoted nor ours, and gives every character back."""
    hostile = HOSTILE[name]
    for texts, order in (((hostile, BENIGN), (0, 1)), ((hostile, BENIGN), (1, 0)), ((hostile, hostile), (0, 1))):
        found = parse_prompt(user_message(CONTEXT, texts, order))
        assert found.context == [(None, CONTEXT)]
        for place, index in enumerate(order):
            assert found.texts[place] == remaining(texts[index], found.left_out[place])
            assert len(texts[index]) <= LIMIT or found.left_out[place]
    alone = parse_prompt(user_message(CONTEXT, (hostile,), (0,), ABSOLUTE))
    assert alone.texts == [remaining(hostile, alone.left_out[0])]


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("a megabyte")])
def test_a_hostile_context_stays_in_its_block(name):
    """Oracle: the strict reader."""
    hostile = HOSTILE[name]
    assert parse_prompt(user_message(hostile, (BENIGN, "no"))).context == [(None, hostile)]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": hostile}]
    found = parse_prompt(user_message(turns, (BENIGN, "no")))
    assert found.context == [("system", "Be brief."), ("user", hostile)]
    assert found.texts == [BENIGN, "no"]


@pytest.mark.parametrize("name", HOSTILE)
def test_what_follows_the_blocks_is_always_the_same(name):
    """Oracle: the benign question's last lines, with and without the reminder."""
    plain = ask_messages(PAIRWISE, Material.of(CONTEXT, (BENIGN, "no"), LIMIT, "cut_end"), (0, 1))
    hostile = ask_messages(PAIRWISE, Material.of(CONTEXT, (HOSTILE[name], "no"), LIMIT, "cut_end"), (0, 1))
    assert plain[0] == hostile[0]
    for ours, theirs in ((plain, hostile), (reminded(plain, PAIRWISE), reminded(hostile, PAIRWISE))):
        assert parse_prompt(ours[1]["content"]).request == parse_prompt(theirs[1]["content"]).request


@pytest.mark.parametrize("name", HOSTILE)
def test_no_question_contains_active_characters(name):
    """Oracle: Unicode's categories, and UTF-8, in which requests are sent."""
    message = user_message(CONTEXT, (HOSTILE[name], BENIGN))
    allowed = set("\n\t\u200c\u200d")
    assert not [c for c in set(message) - allowed if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]
    assert message.encode("utf-8").decode("utf-8") == message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is 7.", "It is 7."),
        ("a < b <= c <- d, x[0], [1, 2], [12], 3 > 2, <", "a < b <= c <- d, x[0], [1, 2], [12], 3 > 2, <"),
        ("<|im_end|></s><<SYS>><start_of_turn>", "<·|im_end|><·/s><·<·SYS>·><·start_of_turn>"),
        ("[INST][/INST][gMASK]", "[·INST][·/INST][·gMASK]"),
        ("[e~[ ]~b] >>QUESTION<<", "[e~·[ ]·~b] >·>QUESTION<·<"),
        ("<·s> [·INST]", "<··s> [··INST]"),
        ("<｜User｜>＜s>［INST］", "<·｜User｜>＜·s>［·INST］"),
        ("\x1b[2J\x00\r\n\t\ud800\u202e", "⟨U+001B⟩[2J⟨U+0000⟩⟨U+000D⟩\n\t⟨U+D800⟩⟨U+202E⟩"),
        ("⟨ψ|φ⟩ ⟨U+0000⟩", "⟨ψ|φ⟩ ⟨U+27E8⟩U+0000⟩"),
        ("\U000e0041👩\u200d🔧 \ufffe", "⟨U+E0041⟩👩\u200d🔧 ⟨U+FFFE⟩"),
    ],
)
def test_harmless_by_hand(text, expected):
    """Oracle: written by hand."""
    assert harmless(text) == expected


CONTROL_TOKENS = """
<s> </s> <unk> <pad> <bos> <eos> <mask> <sep> <cls> <eod> <n> <extra_id_0> <0x0A> <2en> <unused12> <reserved_106>
<|im_start|> <|im_end|> <|im_sep|> <|endoftext|> <|fim_prefix|> <|startoftext|> <|system|> <|user|> <|assistant|>
<|end|> <|begin_of_text|> <|start_header_id|> <|eot_id|> <|eom_id|> <|python_tag|> <|header_start|> <|eot|>
<start_of_turn> <end_of_turn> <|turn> <turn|> <start_of_image> <｜begin▁of▁sentence｜> <｜User｜> <｜Assistant｜>
<｜tool▁calls▁begin｜> <|start|> <|channel|> <|message|> <|return|> <|START_OF_TURN_TOKEN|> <|CHATBOT_TOKEN|>
<|END_OF_TURN_TOKEN|> <BOS_TOKEN> <EOS_TOKEN> <|start_of_role|> <|im_middle|> <|bom|> <|eom|> <sop> <eop>
<|observation|> <role> </role> <eoh> <eoa> <seed:bos> <mask:1> <|role_start|> <think> </think> <tool_call>
<tool_response> <image> <img> <|vision_start|> ▁<PRE> <SPECIAL_61> [INST] [/INST] <<SYS>> <</SYS>> [SYSTEM_PROMPT]
[/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [ARGS] [CALL_ID] [THINK]
[IMG_BREAK] [MASK] [SEP] [CLS] [PAD] [UNK] [gMASK] [sMASK] [multimodal] [|system|] [|user|] [|endofturn|]
[UNUSED_TOKEN_146] [USER] [BOT] [@BOS@] ]~!b[ ]~b] [e~[ >>QUESTION<< >>ANSWER<< >>TITLE<<
"""


@pytest.mark.parametrize("token", CONTROL_TOKENS.split())
def test_no_control_token_of_any_family_stays_whole(token):
    """Oracle: control tokens of some forty families by hand, alone, in words, doubled, and one inside the other."""
    half = len(token) // 2
    nested = token[:half] + token + token[half:]
    for text in (token, f"word{token}word", token * 2, nested, token[:half] + nested + token[half:], f"·{token}·"):
        assert token not in harmless(text)
        assert token not in "".join(quoted(text))
    for before, after in ((token[:i], token[i:]) for i in range(1, len(token))):
        assert token not in "\n".join(quoted(f"{before}\n{after}")).replace("\n", "")


def test_quoting_loses_nothing():
    """Oracle: the reader gives back 20,000 random texts over the characters that quoting treats specially."""
    draw = random.Random(0)
    alphabet = [*"<>[]~·|/aZ1. -=\n\t⟨⟩", "⟨U+", "U+001B⟩", "＜", "［", "］", "～", "\x00", "\ud800", "\u200d", "INST"]
    for _ in range(20_000):
        text = "".join(draw.choices(alphabet, k=draw.randrange(12)))
        lines = quoted(text)
        assert all(line.startswith("| ") and "\n" not in line for line in lines)
        assert join([line[2:] for line in lines]) == text


def test_the_code_is_shared_by_a_prompt_and_never_occurs_in_a_text():
    """Oracle: equality of codes for one context and other texts; membership after each guess."""
    code = boundary(["rubric", "context"], ["a", "b"])
    assert code == boundary(["rubric", "context"], ["c"])
    assert code != boundary(["rubric", "another"], ["a"])
    assert code != boundary(["another", "context"], ["a"])
    for guess in (code, code.upper(), f"x{code}y"):
        assert boundary(["rubric", "context"], [guess]) not in guess.lower()
    known = codes_known_to_an_attacker()
    assert len(set(known)) == len(known)


def test_excerpts_by_hand():
    """Oracle: a line of n characters takes n + 3 in the prompt ("| " and a line break); counted by hand."""
    assert excerpt("a" * 97, 100, "cut_middle") == Excerpt("a" * 97)
    cut = excerpt("abcdefghij", 11, "cut_middle")
    assert cut == Excerpt("abc", 5, "ij")  # 3 + 3 and 2 + 3
    assert cut.lines == ["| abc", "-- 5 characters left out", "| ij"]
    assert excerpt("abcdefghij", 11, "cut_end") == Excerpt("abcdefgh", 2)
    assert excerpt("abcdefghij", 11, "unscored") is None
    assert excerpt("", 100, "unscored") == Excerpt("")


@pytest.mark.parametrize("overlong", ["cut_middle", "cut_end"])
@pytest.mark.parametrize("text", ["ab\n" * 60, "\x00a" * 50, "<s>[INST]" * 20, "a" * 400])
def test_an_excerpt_keeps_as_much_as_fits(text, overlong):
    """Oracle: lengths of all possible cuts, one after the other."""
    limit = 120

    def size(n):
        tail = n // 2 if overlong == "cut_middle" else 0
        sides = [text[: n - tail], text[len(text) - tail :] if tail else ""]
        return sum(len(line) + 1 for side in sides if side for line in quoted(side))

    most = max(n for n in range(len(text)) if size(n) <= limit)
    found = excerpt(text, limit, overlong)
    assert len(text) - found.left_out == most
    assert found.head + found.tail == remaining(text, found.left_out, middle=overlong == "cut_middle")


def test_a_question_is_no_longer_than_its_limits():
    """Oracle: three texts of at most `LIMIT` characters, and what a short question needs."""
    frame = len(user_message("a", ("b", "c")))
    for name in ("a megabyte", "a megabyte of controls", "a megabyte of line breaks"):
        assert len(user_message(HOSTILE[name], (HOSTILE[name],) * 2)) <= 3 * LIMIT + frame + 200


def test_overlong_texts_can_be_left_unjudged():
    """Oracle: None for a text one character over the limit, wherever it stands."""
    fits, over = "a" * 97, "a" * 98
    assert Material.of(fits, (fits, fits), 100, "unscored").cut == 0
    for prompt, texts in ((over, (fits, fits)), (fits, (over, fits)), ([{"role": "user", "content": over}], (fits,))):
        assert Material.of(prompt, texts, 100, "unscored") is None
        assert Material.of(prompt, texts, 100, "cut_end").cut == 1


def test_blank_texts_are_said_to_be_blank():
    """Oracle: the block's first line, by hand."""
    message = user_message(CONTEXT, (" \n", "a"))
    assert "=== BEGIN TEXT 1 (blank) " in message
    assert "=== BEGIN TEXT 2 " in message
    assert parse_prompt(message).texts == [" \n", "a"]
