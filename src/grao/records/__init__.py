"""The run directory: what a training run writes, so that a kill or a full disk loses little.

    run/
      config.yaml                        the complete resolved configuration
      environment.json                   versions of Python and the libraries, the platform
      metrics.jsonl                      one line per log call, `step` first
      completions/completions_00010.parquet    one row per completion
      held_out/completions_00050.parquet       answers to held-out prompts, one file per evaluation
      checkpoint-10/                     what the trainer saves; `sealed.json` in it marks it as complete
      model/                             the trained model
      .grao-run                          marks the directory as a run, which may be overwritten

Nothing here imports torch or transformers: a run can be read without loading a model.
"""

from grao.records.checkpoints import LatestCheckpoint, latest_good_checkpoint, prune_checkpoints, seal_checkpoint
from grao.records.run_directory import RunDirectory
from grao.records.run_record import RunRecord, read_run

__all__ = [
    "LatestCheckpoint",
    "RunDirectory",
    "RunRecord",
    "latest_good_checkpoint",
    "prune_checkpoints",
    "read_run",
    "seal_checkpoint",
]
