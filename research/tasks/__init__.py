"""Synthetic tasks with programmatic ground truth: the demo's dialogue, and two whose answers are right or wrong."""

from grao.demo.dialogue import Dialogue
from grao.demo.synthetic_task import Task
from research.tasks.arithmetic import Arithmetic
from research.tasks.word_problems import WordProblems

TASKS: dict[str, type[Task]] = {"dialogue": Dialogue, "arithmetic": Arithmetic, "word-problems": WordProblems}
"""What a plan's `task.name` can be, and what `python -m research task NAME` writes."""

__all__ = ["TASKS", "Arithmetic", "Dialogue", "WordProblems"]
