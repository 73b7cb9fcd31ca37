"""Token ids: text, conversations, templates of several kinds, limits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast as Tokenizer
from trl.data_utils import apply_chat_template

from grao.data import EncodedExample, Encoder, EncodingReport, Example, ensure_pad_token, load_examples

Build = Callable[..., Tokenizer]
Templates = dict[str, str]

ASK = [{"role": "user", "content": "What is 3 + 4?"}]
CHAT = Example(4, ASK, "It is 7.", "Eight.")
SUM = Example(4, "3 + 4 =", "7", "8")


def both(encoded: EncodedExample) -> list[int]:
    assert encoded.reference_ids is not None
    return [*encoded.prompt_ids, *encoded.reference_ids]


def test_text_is_prompt_then_answer_then_end(word_level: Tokenizer) -> None:
    """Oracle: ids by hand from the vocabulary </s> 3 + 4 = 7 8 ?."""
    encoded = Encoder(word_level).encode(SUM)
    assert encoded == EncodedExample(SUM, (1, 2, 3, 4), (5, 0), (6, 0))


def test_absent_answers_stay_absent(word_level: Tokenizer) -> None:
    """Oracle: by hand."""
    encoded = Encoder(word_level).encode(Example(0, "3 + 4 ="))
    assert (encoded.reference_ids, encoded.rejected_ids) == (None, None)


TEXTS = [("What is 3 + 4?", " It is 7."), ("What is 3 + 4?", "It is 7."), ("It rains. ", "Why?"), ("a", "\n\nü → 𝄞")]


@pytest.mark.parametrize(("prompt", "answer"), TEXTS)
def test_bytes_decode_to_the_text(byte_bpe: Build, prompt: str, answer: str) -> None:
    """Oracle: the text itself and the end token."""
    tokenizer = byte_bpe()
    assert tokenizer.decode(both(Encoder(tokenizer).encode(Example(0, prompt, answer)))) == prompt + answer + "</s>"


@pytest.mark.parametrize(("prompt", "answer"), TEXTS)
def test_a_tokenizer_that_writes_a_space_before_text_adds_none_to_the_answer(
    spaced_bpe: Tokenizer, prompt: str, answer: str
) -> None:
    """Oracle: the text itself; BOS once, in front; the EOS that the tokenizer puts behind any text, only at the end.

    That the tokenizer is of this kind is checked first: tokenised alone, the answer would gain a space.
    """
    alone = [t for text in ("a", "b") for t in spaced_bpe(text, add_special_tokens=False)["input_ids"]]
    assert spaced_bpe.decode(alone) == "a b"
    assert spaced_bpe("a")["input_ids"][-1] == spaced_bpe.eos_token_id
    ids = both(Encoder(spaced_bpe).encode(Example(0, prompt, answer)))
    assert spaced_bpe.decode(ids, skip_special_tokens=True) == prompt + answer
    specials = [(place, i) for place, i in enumerate(ids) if i in (spaced_bpe.bos_token_id, spaced_bpe.eos_token_id)]
    assert specials == [(0, spaced_bpe.bos_token_id), (len(ids) - 1, spaced_bpe.eos_token_id)]


def test_text_that_holds_its_bos_or_eos_gets_no_second(spaced_bpe: Tokenizer) -> None:
    """Oracle: the same example without them."""
    bos, eos = spaced_bpe.bos_token_id, spaced_bpe.eos_token_id
    ids = both(Encoder(spaced_bpe).encode(Example(0, "<s>What", "It</s>")))
    assert (ids.count(bos), ids[0]) == (1, bos)
    assert (ids.count(eos), ids[-1]) == (1, eos)


def test_a_conversation_is_the_template_and_what_it_adds_for_the_answer(byte_bpe: Build, templates: Templates) -> None:
    """Oracle: TRL's `apply_chat_template` on the same row, less the newline that ChatML writes after a turn."""
    tokenizer = byte_bpe(templates["chatml"])
    encoded = Encoder(tokenizer).encode(CHAT)
    answers = {"completion": [{"role": "assistant", "content": "It is 7."}]}
    theirs = apply_chat_template({"prompt": ASK, **answers}, tokenizer)
    assert tokenizer.decode(encoded.prompt_ids) == theirs["prompt"]
    assert encoded.reference_ids is not None
    assert tokenizer.decode(encoded.reference_ids) + "\n" == theirs["completion"] == "It is 7.<|im_end|>\n"
    assert encoded.rejected_ids is not None
    assert tokenizer.decode(encoded.rejected_ids) == "Eight.<|im_end|>"


def test_templated_ids_are_those_of_the_templated_whole(byte_bpe: Build, templates: Templates) -> None:
    """Oracle: `apply_chat_template(tokenize=True)` of transformers, less its last token, the newline."""
    tokenizer = byte_bpe(templates["chatml"])
    turns = [*ASK, {"role": "assistant", "content": "It is 7."}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    assert tokenizer.decode(whole[-1:]) == "\n"
    assert both(Encoder(tokenizer).encode(CHAT)) == whole[:-1]


def test_the_end_of_turn_is_a_stop_token(byte_bpe: Build, word_level: Tokenizer, templates: Templates) -> None:
    """Oracle: the vocabulary."""
    tokenizer = byte_bpe(templates["chatml"])
    ends = tuple(tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"]))
    assert Encoder(tokenizer).stop_ids == ends
    assert Encoder(tokenizer, "plain").stop_ids == ends[:1]
    assert Encoder(byte_bpe(templates["chatml"], eos_token="<|im_end|>")).stop_ids == ends[1:]
    assert Encoder(word_level).stop_ids == (0,)


def test_a_template_without_an_end_gets_the_end_of_sequence(byte_bpe: Build, templates: Templates) -> None:
    """Oracle: the text written by hand; the answer keeps its own white space."""
    tokenizer = byte_bpe(templates["endless"])
    ids = both(Encoder(tokenizer).encode(Example(0, ASK, "7 \n")))
    assert tokenizer.decode(ids) == "user: What is 3 + 4?\nassistant: 7 \n</s>"


def test_a_template_that_rewrites_the_prompt_warns_once(byte_bpe: Build, templates: Templates) -> None:
    """Oracle: the text written by hand: the answer follows the open thinking block, ended as a turn is."""
    tokenizer = byte_bpe(templates["thinking"])
    encoder = Encoder(tokenizer)
    with pytest.warns(UserWarning, match="of 3 rows once it is answered.*<|im_end|>") as warned:
        kept, report = encoder.encode_all([CHAT, CHAT, CHAT])
    assert len(warned) == 1
    assert report.separate_answers == 3
    text = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n<think>\nIt is 7.<|im_end|>"
    assert tokenizer.decode(both(kept[0])) == text
    with pytest.warns(UserWarning, match="of 1 row once"):
        assert encoder.encode(CHAT) == kept[0]


def test_no_token_spans_prompt_and_answer(byte_bpe: Build) -> None:
    """Oracle: the text by hand; the tokenizer joins " It" and would take the template's last space into the answer."""
    tokenizer = byte_bpe("{% for m in messages %}{{ m['content'] }} {% endfor %}")
    space_it = tokenizer(" It", add_special_tokens=False)["input_ids"]
    assert len(space_it) == 1
    encoded = Encoder(tokenizer).encode(CHAT)
    assert tokenizer.decode(encoded.prompt_ids) == "What is 3 + 4? "
    assert tokenizer.decode(both(encoded)) == "What is 3 + 4? It is 7. </s>"
    assert space_it[0] not in (encoded.reference_ids or ())


def test_text_goes_through_the_template_only_by_choice(byte_bpe: Build, templates: Templates) -> None:
    """Oracle: the same question as a conversation."""
    tokenizer = byte_bpe(templates["chatml"])
    text = Example(4, "What is 3 + 4?", "It is 7.", "Eight.")
    as_chat = Encoder(tokenizer).encode(CHAT)
    assert Encoder(tokenizer, "always").encode(text).prompt_ids == as_chat.prompt_ids
    assert Encoder(tokenizer, "always").encode(text).reference_ids == as_chat.reference_ids
    assert tokenizer.decode(both(Encoder(tokenizer).encode(text))) == "What is 3 + 4?It is 7.</s>"


def test_a_conversation_as_a_plain_transcript_is_a_choice(byte_bpe: Build, templates: Templates) -> None:
    """Oracle: the text by hand; a template that is there is not used."""
    turns = [{"role": "system", "content": "Be brief."}, *ASK]
    for template in (None, templates["chatml"]):
        tokenizer = byte_bpe(template)
        ids = both(Encoder(tokenizer, chat_template="plain").encode(Example(0, turns, "It is 7.")))
        assert tokenizer.decode(ids) == "System: Be brief.\n\nUser: What is 3 + 4?\n\nAssistant: It is 7.</s>"


def test_an_encoding_error_names_the_row(byte_bpe: Build, word_level: Tokenizer, templates: Templates) -> None:
    """Oracle: the defect of each."""
    with pytest.raises(
        ValueError, match=r"row 4: the prompt is a conversation, but the tokenizer has no chat template"
    ):
        Encoder(byte_bpe()).encode(CHAT)
    two_users = Example(4, [*ASK, *ASK], "7")
    message = r"row 4: the chat template rejects a conversation with roles user, user: roles must alternate"
    with pytest.raises(ValueError, match=message):
        Encoder(byte_bpe(templates["alternating"])).encode(two_users)
    with pytest.raises(ValueError, match=r"row 4: the tokenizer gives no tokens for the prompt ' '"):
        Encoder(word_level).encode(Example(4, " ", "7"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chat_template": "never"}, "chat_template='never' is not a choice\\. Use one of 'auto', 'always', 'plain'"),
        ({"chat_template": "always"}, "chat_template='always', but the tokenizer has no template"),
        ({"overlong": "truncate"}, "overlong='truncate' is not a choice\\. Use one of 'drop', 'cut', 'error'"),
        ({"max_prompt_tokens": 0}, "max_prompt_tokens must be at least 1 or None, found 0"),
        ({"max_reference_tokens": -1}, "max_reference_tokens must be at least 1 or None, found -1"),
        ({"context_length": 1}, "context_length must be at least 2 or None, found 1"),
    ],
)
def test_an_invalid_setting_fails_at_once(word_level: Tokenizer, arguments: dict[str, Any], message: str) -> None:
    """Oracle: the setting."""
    with pytest.raises(ValueError, match=message):
        Encoder(word_level, **arguments)


def test_a_tokenizer_without_an_end_is_refused(byte_bpe: Build) -> None:
    """Oracle: by hand."""
    with pytest.raises(
        ValueError, match=r"no end-of-sequence token, so answers would never end\. Set tokenizer\.eos_token"
    ):
        Encoder(byte_bpe(eos_token=None))


LONG = Example(9, "3 + 4 + 4 + 4 =", "7 8 7 8", "8 8")  # prompt 8 tokens, answers 5 and 3 with </s>


def test_long_rows_are_dropped_and_counted(word_level: Tokenizer) -> None:
    """Oracle: lengths by hand: SUM has a prompt of 4 tokens and answers of 2."""
    kept, report = Encoder(word_level, max_prompt_tokens=7, overlong="drop").encode_all([SUM, LONG])
    assert kept == [Encoder(word_level).encode(SUM)]
    assert report == EncodingReport(kept=1, dropped=1, dropped_rows=(9,), longest_prompt=4, longest_answer=2)
    assert str(report) == (
        "kept 1 of 2 rows (longest prompt 4 tokens, longest answer 2); dropped 1 too long (first: row 9)"
    )


@pytest.mark.parametrize(
    ("limits", "prompt_ids", "reference_ids", "rejected_ids", "cut"),
    [
        ({"max_prompt_tokens": 3}, (2, 3, 4), (5, 6, 5, 6, 0), (6, 6, 0), (1, 0)),
        ({"max_reference_tokens": 2}, (1, 2, 3, 2, 3, 2, 3, 4), (5, 6), (6, 6), (0, 1)),
        ({"max_reference_tokens": 4}, (1, 2, 3, 2, 3, 2, 3, 4), (5, 6, 5, 6), (6, 6, 0), (0, 1)),
        ({"context_length": 11}, (1, 2, 3, 2, 3, 2, 3, 4), (5, 6, 5), (6, 6, 0), (0, 1)),
        ({"context_length": 4}, (2, 3, 4), (5,), (6,), (1, 1)),
        ({"context_length": 6, "max_prompt_tokens": 2}, (3, 4), (5, 6, 5, 6), (6, 6, 0), (1, 1)),
        ({"context_length": 13, "max_prompt_tokens": 8}, (1, 2, 3, 2, 3, 2, 3, 4), (5, 6, 5, 6, 0), (6, 6, 0), (0, 0)),
    ],
)
def test_long_rows_are_cut_and_counted(
    word_level: Tokenizer,
    limits: dict[str, int],
    prompt_ids: tuple[int, ...],
    reference_ids: tuple[int, ...],
    rejected_ids: tuple[int, ...],
    cut: tuple[int, int],
) -> None:
    """Oracle: ids cut by hand: prompts lose their beginning, answers their end and so their end token."""
    kept, report = Encoder(word_level, **limits, overlong="cut").encode_all([LONG])  # type: ignore[arg-type]
    assert kept == [EncodedExample(LONG, prompt_ids, reference_ids, rejected_ids)]
    assert (report.cut_prompts, report.cut_answers) == cut
    assert report.cut == sum(cut)
    text = f"cut {cut[0]} prompts from the left and {cut[1]} answers from the right"
    assert (text in str(report)) == (cut != (0, 0))


def test_a_cut_prompt_keeps_its_bos(spaced_bpe: Tokenizer) -> None:
    """Oracle: BOS and the last tokens of the whole prompt."""
    whole = Encoder(spaced_bpe).encode(Example(0, "What is 3 + 4?", "7")).prompt_ids
    encoder = Encoder(spaced_bpe, max_prompt_tokens=3, overlong="cut")
    (kept,), _ = encoder.encode_all([Example(0, "What is 3 + 4?", "7")])
    assert kept.prompt_ids == (spaced_bpe.bos_token_id, *whole[-2:])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_prompt_tokens": 7}, r"row 9: the prompt has 8 tokens, the limit is 7 \(max_prompt_tokens\)"),
        ({"max_reference_tokens": 4}, r"row 9: the reference has 5 tokens, the limit is 4 \(max_reference_tokens\)"),
        ({"context_length": 8}, r"the prompt has 8 tokens, the limit is 7 \(the model's context of 8 minus one token"),
        (
            {"context_length": 12},
            r"the reference has 5 tokens, the limit is 4 \(.* of 12 minus the prompt's 8",
        ),
    ],
)
def test_long_rows_are_errors_unless_chosen_otherwise(
    word_level: Tokenizer, limits: dict[str, Any], message: str
) -> None:
    """Oracle: lengths by hand; one token less is allowed."""
    with pytest.raises(ValueError, match=message + r".*\. Raise the limit, or set overlong='drop' or 'cut'"):
        Encoder(word_level, **limits).encode_all([SUM, LONG])
    (name, value), *_ = limits.items()
    room = 13 if name == "context_length" else value + 1
    assert len(Encoder(word_level, **{name: room}).encode_all([SUM, LONG])[0]) == 2


def test_a_rejected_answer_that_is_too_long_counts_too(word_level: Tokenizer) -> None:
    """Oracle: lengths by hand."""
    with pytest.raises(ValueError, match="the rejected answer has 4 tokens, the limit is 3"):
        Encoder(word_level, max_reference_tokens=3).encode_all([Example(0, "3", "7", "8 8 8")])


def test_encoding_no_rows_is_an_error(word_level: Tokenizer) -> None:
    """Oracle: by hand."""
    with pytest.raises(ValueError, match=r"all 1 rows are too long\. Raise the limits"):
        Encoder(word_level, max_prompt_tokens=1, overlong="drop").encode_all([LONG])
    with pytest.raises(ValueError, match="nothing to encode: there are no rows"):
        Encoder(word_level).encode_all([])


def test_the_end_token_pads_where_there_is_none(byte_bpe: Build) -> None:
    """Oracle: the tokenizer before and after; a second call finds nothing to do."""
    tokenizer = byte_bpe()
    assert tokenizer.pad_token_id is None
    assert ensure_pad_token(tokenizer) == (
        "the tokenizer has no padding token: using its end-of-sequence token '</s>'"
    )
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert ensure_pad_token(tokenizer) is None
    with pytest.raises(ValueError, match=r"no padding and no end-of-sequence token\. Set tokenizer\.pad_token"):
        ensure_pad_token(byte_bpe(eos_token=None))


@pytest.mark.parametrize(("folder", "form"), [("hh-rlhf/harmless-base", "hh"), ("gsm8k", "gsm8k")])
def test_real_rows_decode_to_their_text(
    shared_data: Path, byte_bpe: Build, spaced_bpe: Tokenizer, folder: str, form: Any
) -> None:
    """Oracle: the row's text, for a tokenizer of bytes and for one that writes a space before text."""
    examples = load_examples(shared_data / folder, form, "test", limit=100)
    tokenizers = {byte_bpe(): "", spaced_bpe: "<s>"}
    for tokenizer, bos in tokenizers.items():
        kept, report = Encoder(tokenizer).encode_all(examples)
        assert (report.kept, report.dropped, report.cut) == (len(examples), 0, 0)
        for row in kept:
            text = bos + str(row.example.prompt) + str(row.example.reference) + "</s>"
            # The spaced one writes the space it will take off before the prompt; BOS stands before it.
            assert tokenizer.decode(both(row)).replace("<s> ", "<s>", 1) == text


def test_real_conversations_decode_to_their_template(shared_data: Path, byte_bpe: Build, templates: Templates) -> None:
    """Oracle: transformers' rendering of the whole conversation, the newline after it taken off."""
    tokenizer = byte_bpe(templates["chatml"])
    folder = shared_data / "hh-rlhf" / "harmless-base"
    kept, _ = Encoder(tokenizer).encode_all(load_examples(folder, "hh", "test", as_messages=True, limit=100))
    for row in kept:
        turns = [*row.example.prompt, {"role": "assistant", "content": row.example.reference}]
        assert tokenizer.decode(both(row)) + "\n" == tokenizer.apply_chat_template(turns, tokenize=False)


def test_reading_files_imports_neither_datasets_nor_transformers(tmp_path: Path) -> None:
    """Oracle: `sys.modules` of a fresh interpreter that loaded a file."""
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a"}\n')
    program = (
        "import sys; from grao.data import load_examples; load_examples(sys.argv[1]); "
        "print([m for m in ('datasets', 'transformers', 'pyarrow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "rows.jsonl")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
