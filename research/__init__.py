"""Research beside the library: plans over seeds, tuning, the paper's claims with verdicts, and the committed records.

Not part of the wheel. Run it from the root of the repository: `python -m research --help`.
"""
