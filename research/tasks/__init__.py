"""Synthetic tasks with programmatic ground truth, small enough to align a model on in seconds."""

from grao.experiments.tasks.arithmetic import Arithmetic
from grao.experiments.tasks.dialogue import Dialogue
from grao.experiments.tasks.task import Split, Task
from grao.experiments.tasks.word_problems import WordProblems
from grao.experiments.tasks.write import write_task

TASKS: dict[str, type[Task]] = {"dialogue": Dialogue, "arithmetic": Arithmetic, "word-problems": WordProblems}
"""What `grao task NAME` writes."""

__all__ = ["TASKS", "Arithmetic", "Dialogue", "Split", "Task", "WordProblems", "write_task"]
