"""The report: one self-contained HTML page from run directories, comparisons and records of experiments.

It reads what others wrote (`grao.records`, JSON) and never loads a model: nothing here imports torch.

    directory ─ training_run · comparison · experiment ─▶ Section (facts, figures, tables, answers)
       ─ charts ─▶ SVG ─ page ─▶ one HTML file
"""

from grao.report.page import Written, write_report

__all__ = ["Written", "write_report"]
