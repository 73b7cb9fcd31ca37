"""Rows by their columns: text, conversations, implicit prompts, renamed columns."""

from __future__ import annotations

from typing import Any

import pytest
from trl.data_utils import extract_prompt

from grao.data import Columns, Example, RowError

ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}]
SEVEN = {"role": "assistant", "content": "7"}
EIGHT = {"role": "assistant", "content": "8"}


def read(fields: dict[str, Any], **names: str) -> Example:
    return Columns(names).example(5, fields)


@pytest.mark.parametrize(
    ("fields", "reference", "rest"),
    [
        ({"reference": "r", "completion": "c", "chosen": "h"}, "r", {"completion": "c", "chosen": "h"}),
        ({"completion": "c", "chosen": "h"}, "c", {"chosen": "h"}),
        ({"chosen": "h"}, "h", {}),
        ({"reference": None, "completion": None, "chosen": "h"}, "h", {"reference": None, "completion": None}),
        ({"reference": None}, None, {}),
        ({"level": 3}, None, {"level": 3}),
    ],
)
def test_the_reference_is_the_first_column_with_a_value(
    fields: dict[str, Any], reference: str | None, rest: dict[str, Any]
) -> None:
    """Oracle: the order reference, completion, chosen; the other columns are kept by name."""
    assert read({"prompt": "p", **fields}) == Example(5, "p", reference, None, rest)


def test_renamed_columns_are_taken_and_leave_the_rest() -> None:
    """Oracle: by hand; a column called `prompt` that was not asked for is an ordinary one."""
    row = {"question": "q", "solution": "s", "worse": "w", "prompt": "other", "answer": "7"}
    example = read(row, prompt="question", reference="solution", rejected="worse")
    assert example == Example(5, "q", "s", "w", {"prompt": "other", "answer": "7"})


def test_a_column_taken_for_another_part_is_not_the_reference() -> None:
    """Oracle: by hand: `completion` holds the prompt here, so the reference is the next in order."""
    example = read({"completion": "p", "chosen": "h"}, prompt="completion")
    assert example == Example(5, "p", "h", None, {})


def test_conversations_give_the_content_of_the_assistants_turn() -> None:
    """Oracle: by hand."""
    example = read({"prompt": ASK, "completion": [SEVEN], "rejected": [EIGHT]})
    assert example == Example(5, ASK, "7", "8", {})


def test_an_implicit_prompt_is_the_turns_before_the_last() -> None:
    """Oracle: TRL's `extract_prompt` on the same row."""
    row = {"chosen": [*ASK, SEVEN], "rejected": [*ASK, EIGHT]}
    theirs = extract_prompt(row)
    example = read({**row, "source": "x"})
    assert example.prompt == theirs["prompt"]
    assert [{"role": "assistant", "content": example.reference}] == theirs["chosen"]
    assert [{"role": "assistant", "content": example.rejected}] == theirs["rejected"]
    assert example.columns == {"source": "x"}


def test_an_implicit_prompt_is_split_at_the_last_turn_even_where_the_answers_are_equal() -> None:
    """Oracle: by hand; the longest common beginning would swallow the answer."""
    example = read({"chosen": [*ASK, SEVEN], "rejected": [*ASK, SEVEN]})
    assert (example.prompt, example.reference, example.rejected) == (ASK, "7", "7")


def test_a_messages_column_can_be_the_reference() -> None:
    """Oracle: by hand; earlier answers stay in the prompt."""
    turns = [*ASK, SEVEN, {"role": "user", "content": "Sure?"}]
    example = read({"messages": [*turns, {"role": "assistant", "content": "Yes."}]}, reference="messages")
    assert (example.prompt, example.reference) == (turns, "Yes.")


def test_a_text_prompt_that_the_answers_repeat_as_a_turn_becomes_their_conversation() -> None:
    """Oracle: by hand: the layout in which preference sets give the question twice."""
    example = read({"prompt": "3 + 4?", "chosen": [*ASK, SEVEN], "rejected": [*ASK, EIGHT]})
    assert (example.prompt, example.reference, example.rejected) == (ASK, "7", "8")


def test_keys_that_a_table_filled_with_null_are_left_out() -> None:
    """Oracle: the same row from JSON, where they are absent."""
    example = read({"prompt": [{"role": "user", "content": "Hi", "name": None, "weight": 1}]})
    assert example.prompt == [{"role": "user", "content": "Hi", "weight": 1}]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"text": "a"}, r"no prompt in the columns 'text'\. Name the column: columns=\{'prompt': \.\.\.\}"),
    ({"prompt": None}, r"no prompt in the columns 'prompt'\. Its 'prompt' is null"),
    ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}, r"pass format='hh'"),
    ({"question": "q", "answer": "a"}, r"For GSM8K pass format='gsm8k'"),
    ({"messages": [SEVEN]}, r"columns=\{'reference': 'messages'\}"),
    ({"prompt": 7}, r"column 'prompt' must be text or a list of \{role, content\} messages, found int 7"),
    ({"prompt": []}, r"column 'prompt' is an empty list of messages"),
    ({"prompt": "p", "reference": 7.5}, r"column 'reference' must be text or .*, found float 7\.5"),
    ({"prompt": "p", "rejected": {"a": 1}}, r"column 'rejected' must be text or .*, found dict"),
    ({"prompt": ["hello"]}, r"column 'prompt', message 0: expected \{role, content\}, found str 'hello'"),
    ({"prompt": [{"role": "user"}]}, r"message 0: no content, found the keys role"),
    ({"prompt": [{"from": "human", "value": "a"}]}, r"no role and no content, found the keys from, value"),
    (
        {"prompt": [*ASK, {"role": "gpt", "content": "a"}]},
        r"message 2: unknown role 'gpt'\. Use one of system",
    ),
    ({"prompt": [{"role": "user", "content": ["a"]}]}, r"content must be text, found list"),
    (
        {"prompt": "p", "completion": ASK},
        r"of column 'completion' must have role 'assistant', found 'user'",
    ),
    ({"prompt": "p", "completion": []}, r"column 'completion' is an empty list"),
    (
        {"chosen": [*ASK, SEVEN], "rejected": [ASK[1], EIGHT]},
        r"differs from the messages before the answer in column 'rejected'",
    ),
    (
        {"prompt": "other", "chosen": [*ASK, SEVEN]},
        r"the prompt \(str 'other'\) differs from the messages before the answer in column 'chosen'",
    ),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_an_invalid_row_raises_its_defect(fields: dict[str, Any], message: str) -> None:
    """Oracle: the defect that was written into the row."""
    with pytest.raises(RowError, match=message):
        read(fields)


def test_a_missing_renamed_column_is_listed_with_the_known_ones() -> None:
    """Oracle: by hand."""
    with pytest.raises(RowError, match="no column 'question' for the prompt, found 'prompt', 'level'"):
        read({"prompt": "p", "level": 1}, prompt="question")


def test_only_the_three_parts_can_be_renamed() -> None:
    """Oracle: by hand."""
    with pytest.raises(ValueError, match=r"cannot rename 'answer'\. `columns` takes prompt, reference, rejected"):
        Columns({"answer": "solution"})
