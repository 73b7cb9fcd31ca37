"""GSM8K: grade-school problems with worked solutions (Cobbe et al. 2021, arXiv 2110.14168)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grao.data.example import Example
from grao.data.row import RowError, check_choice, shown
from grao.groups import Prompt

ANNOTATION = re.compile(r"<<[^<>]*>>")
"""What a calculator would have said, as in ``3+4=<<3+4=7>>7``."""
FINAL = re.compile(r"^#### *(\S.*?)\s*\Z", re.MULTILINE)


@dataclass(frozen=True)
class GSM8K:
    r"""Rows with a question and a worked solution that ends in ``#### `` and the final answer.

    Example of a row::

        {"question": "3 + 1,004?", "answer": "It is 3+1004=<<3+1004=1007>>1007.\n#### 1,007"}

    It becomes prompt ``"3 + 1,004?"``, reference ``"It is 3+1004=1007.\n#### 1,007"`` and ``answer="1007"``: the
    final answer, without commas, for the reward function.
    """

    keep_annotations: bool = False
    """Leave the ``<<...>>`` calculator annotations in the reference."""
    as_messages: bool = False
    """Give the question as a conversation of one user turn, for chat templates."""
    prompt_template: str = "{question}"
    r"""What a base model continues, such as ``"Question: {question}\nAnswer: "``: without a chat template nothing
    else says where the question ends."""

    def __post_init__(self) -> None:
        if self.prompt_template.count("{question}") != 1:
            raise ValueError(f"prompt_template={self.prompt_template!r} must hold {{question}} once")
        check_choice("keep_annotations", self.keep_annotations, (True, False))
        check_choice("as_messages", self.as_messages, (True, False))

    def example(self, row: int, fields: Mapping[str, Any]) -> Example:
        """The row as an example. Raises `RowError` where a column or the final answer is missing."""
        question, solution = (_text(fields, name) for name in ("question", "answer"))
        final = FINAL.search(solution)
        if final is None:
            raise RowError(
                f"column 'answer' must end in a line '#### ' and the final answer, found {shown(solution[-60:])}; "
                "for other data use columns={'prompt': 'question', 'reference': 'answer'}"
            )
        reference = solution.rstrip() if self.keep_annotations else ANNOTATION.sub("", solution).rstrip()
        asked = self.prompt_template.replace("{question}", question)
        prompt: Prompt = [{"role": "user", "content": asked}] if self.as_messages else asked
        rest = {name: value for name, value in fields.items() if name not in ("question", "answer")}
        return Example(row, prompt, reference, columns={**rest, "answer": final[1].replace(",", "")})


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        found = f"found {shown(value)}" if name in fields else f"the columns are {', '.join(map(repr, fields))}"
        raise RowError(f"column {name!r} must be text, {found}; for other data leave out format='gsm8k'")
    return value
