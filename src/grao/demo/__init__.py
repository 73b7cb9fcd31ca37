"""The demo: a synthetic dialogue task, a base model trained from scratch, and seven ways to align it, compared.

run_demo        `grao demo`: task, base model, one run per method, the comparison
dialogue        the task: prompts, demonstrations, a rubric that scores any reply
synthetic_task  what such a task provides, and `grao task`, which writes it
base_model      `grao base`: small models trained from scratch
outcome         how a model answers the test prompts; outcome_tables prints it
"""
