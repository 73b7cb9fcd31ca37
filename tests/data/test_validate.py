"""Every row is checked before the first step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grao.data import Example, validate_examples

USER = {"role": "user", "content": "Hi"}
GOOD = Example(0, "p", "r", "w")


def test_good_examples_pass() -> None:
    """Oracle: none has a defect; what is not needed may be missing or empty."""
    validate_examples([GOOD, Example(1, [USER], "r", "w")], needs_reference=True, needs_rejected=True)
    validate_examples([Example(0, "p"), Example(1, "p", "")])


BAD: list[tuple[Example, dict[str, bool], str]] = [
    (Example(3, ""), {}, r"row 3: the prompt is empty \(''\)"),
    (Example(3, " \n"), {}, r"row 3: the prompt is empty \(' \\n'\)"),
    (Example(3, None), {}, "row 3: the prompt is missing"),  # type: ignore[arg-type]
    (Example(3, 7), {}, "the prompt must be text or a list of .*, found int 7"),  # type: ignore[arg-type]
    (Example(3, []), {}, "the prompt is an empty list of messages"),
    (Example(3, [{"role": "user"}]), {}, "the prompt, message 0: no content, found the keys role"),
    (Example(3, [{"content": "a"}]), {}, "the prompt, message 0: no role, found the keys content"),
    (Example(3, [USER, {"role": "bot", "content": "a"}]), {}, "message 1: unknown role 'bot'"),
    (Example(3, [USER, {"role": "assistant", "content": "a"}]), {}, "the prompt ends with an assistant message"),
    (Example(3, [{"role": "user", "content": " "}]), {}, "the last message of the prompt is empty"),
    (
        Example(3, "p"),
        {"needs_reference": True},
        r"the reference is missing \(column reference, completion or chosen",
    ),
    (Example(3, "p", " "), {"needs_reference": True}, r"the reference is empty \(' '\)"),
    (Example(3, "p", 7), {}, "the reference must be text, found int 7"),  # type: ignore[arg-type]
    (Example(3, "p", "r"), {"needs_rejected": True}, r"the rejected answer is missing \(column rejected\)"),
    (Example(3, "p", "r", "\t"), {"needs_rejected": True}, "the rejected answer is empty"),
    (Example(3, "p", "r", ["a"]), {}, "the rejected answer must be text, found list"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("example", "needs", "message"), BAD)
def test_the_first_invalid_row_is_named_and_all_are_counted(
    example: Example, needs: dict[str, bool], message: str
) -> None:
    """Oracle: the one defect, planted in rows 3 and 9 among good ones."""
    with pytest.raises(
        ValueError, match="row 3: .*" + message.removeprefix("row 3: ") + ".* \\(rows with a problem: 2 of 4\\)$"
    ):
        validate_examples([GOOD, example, GOOD, replace(example, row=9)], **needs)


def test_no_examples_is_an_error() -> None:
    """Oracle: an empty list and an exhausted iterator."""
    empty: list[Any] = [[], iter(())]
    for source in empty:
        with pytest.raises(ValueError, match="no examples: the source is empty"):
            validate_examples(source)
