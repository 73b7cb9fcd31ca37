"""GSM8K: grade-school problems with worked solutions (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grao.data.example import Example, RowError, check_choice, describe_value, text_column
from grao.groups import Prompt

ANNOTATION = re.compile(r"<<[^<>]*>>")
"""A calculator annotation, as in ``3+4=<<3+4=7>>7``."""
FINAL = re.compile(r"^#### *(\S.*?)\s*\Z", re.MULTILINE)


@dataclass(frozen=True)
class GSM8K:
    r"""Rows with a question and a worked solution that ends in ``#### `` and the final answer.

    Example of a row::

        {"question": "3 + 1,004?", "answer": "It is 3+1004=<<3+1004=1007>>1007.\n#### 1,007"}

    It becomes prompt ``"3 + 1,004?"``, reference ``"It is 3+1004=1007.\n#### 1,007"`` and ``answer="1007"``: the
    final answer without commas, for the reward function.
    """

    keep_annotations: bool = False
    """Keep the ``<<...>>`` calculator annotations in the reference."""
    as_messages: bool = False
    """Give the question as a conversation with one user message, for chat templates."""
    prompt_template: str = "{question}"
    r"""Prompt for a base model, such as ``"Question: {question}\nAnswer: "``, so that it sees where the question
    ends."""

    def __post_init__(self) -> None:
        if self.prompt_template.count("{question}") != 1:
            raise ValueError(f"prompt_template={self.prompt_template!r} must contain {{question}} once")
        check_choice("keep_annotations", self.keep_annotations, (True, False))
        check_choice("as_messages", self.as_messages, (True, False))

    def example(self, row: int, fields: Mapping[str, Any]) -> Example:
        """Return the row as an example. Raise `RowError` if a column or the final answer is missing."""
        question, solution = (text_column(fields, name, "gsm8k") for name in ("question", "answer"))
        final = FINAL.search(solution)
        if final is None:
            raise RowError(
                f"column 'answer' must end with a line '#### ' and the final answer, found "
                f"{describe_value(solution[-60:])}. For other data pass columns={{'prompt': 'question', 'reference': "
                "'answer'}"
            )
        reference = solution.rstrip() if self.keep_annotations else ANNOTATION.sub("", solution).rstrip()
        text = self.prompt_template.replace("{question}", question)
        prompt: Prompt = [{"role": "user", "content": text}] if self.as_messages else text
        rest = {name: value for name, value in fields.items() if name not in ("question", "answer")}
        return Example(row, prompt, reference, columns={**rest, "answer": final[1].replace(",", "")})
