"""GSM8K rows: annotations, final answers, and the real rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from grao.data import GSM8K, Example, RowError, load_examples, validate_examples

ROW = {"question": "3 + 1,004?", "answer": "First 3+4=<<3+4=7>>7.\nSo 1000+7=<<1000+7=1007>>1,007\n#### 1,007"}


def test_annotations_are_taken_out_and_the_final_answer_read() -> None:
    """Oracle: by hand."""
    example = GSM8K().example(2, {**ROW, "id": "a1"})
    reference = "First 3+4=7.\nSo 1000+7=1,007\n#### 1,007"
    assert example == Example(2, "3 + 1,004?", reference, None, {"id": "a1", "answer": "1007"})


def test_annotations_stay_by_choice() -> None:
    """Oracle: the row's own text."""
    assert GSM8K(keep_annotations=True).example(0, ROW).reference == ROW["answer"]


def test_a_question_can_be_a_conversation() -> None:
    """Oracle: by hand."""
    assert GSM8K(as_messages=True).example(0, ROW).prompt == [{"role": "user", "content": "3 + 1,004?"}]


def test_a_template_says_where_the_question_ends() -> None:
    """Oracle: by hand."""
    template = "Question: {question}\nAnswer: "
    assert GSM8K(prompt_template=template).example(0, ROW).prompt == "Question: 3 + 1,004?\nAnswer: "


def test_a_template_without_the_question_is_refused() -> None:
    """Oracle: the message."""
    with pytest.raises(ValueError, match=r"prompt_template='Question:' must contain \{question\} once"):
        GSM8K(prompt_template="Question:")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": "q", "answer": "It is 7."}, "must end with a line '#### ' .* found str 'It is 7.'"),
        ({"question": "q", "answer": "It is\n####"}, "must end with a line '#### '"),
        ({"question": "q", "answer": "#### 7\nor so"}, "must end with a line '#### '"),
        ({"question": "q", "answer": 7}, "column 'answer' must be text, found int 7"),
        ({"prompt": "q", "answer": "#### 7"}, "column 'question' must be text, found the columns 'prompt', 'answer'"),
    ],
)
def test_a_row_without_its_parts_is_an_error(fields: dict[str, Any], message: str) -> None:
    """Oracle: the defect that was written into the row."""
    with pytest.raises(RowError, match=message):
        GSM8K().example(0, fields)


@pytest.mark.parametrize(("split", "rows"), [("train", 7473), ("test", 400)])
def test_the_real_rows(shared_data: Path, split: str, rows: int) -> None:
    """Oracle: the file read plainly; the answer by splitting at ####, annotations removed letter by letter."""
    path = shared_data / "gsm8k" / f"{split}.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        raw = [json.loads(line) for line in file]
    examples = load_examples(path, "gsm8k")
    validate_examples(examples, needs_reference=True)
    assert len(examples) == len(raw) == rows
    for example, row in zip(examples, raw, strict=True):
        solution, final = row["answer"].split("####")
        assert example.prompt == row["question"]
        assert example.columns == {"answer": final.strip().replace(",", "")}
        assert int(example.columns["answer"]) == int(final.replace(",", ""))
        assert example.reference == without_annotations(solution) + "#### " + final.strip()


def without_annotations(text: str) -> str:
    kept, inside = [], False
    for i, letter in enumerate(text):
        if text[i : i + 2] == "<<":
            inside = True
        if not inside:
            kept.append(letter)
        if text[i - 1 : i + 1] == ">>":
            inside = False
    return "".join(kept)
