"""The run directory: what a training run leaves behind, written so that a kill or a full disk costs little.

    run/
      config.yaml                        the resolved configuration, whole
      environment.json                   versions of Python and of the libraries, the platform
      metrics.jsonl                      one line a log call, `step` first
      completions/completions_00010.parquet    one row a completion
      held_out/completions_00050.parquet       answers to held-out prompts, one file an evaluation
      checkpoint-10/                     what the trainer saves; `sealed.json` in it says that it is whole
      model/                             the trained model
      .grao-run                          the mark that this directory is ours to replace

Nothing here imports torch or transformers: a run can be read where no model can be loaded.
"""

from grao.records.checkpoints import (
    LatestCheckpoint,
    RejectedCheckpoint,
    latest_good_checkpoint,
    prune_checkpoints,
    seal_checkpoint,
)
from grao.records.run_directory import RunDirectory
from grao.records.run_record import RunRecord, read_run

__all__ = [
    "LatestCheckpoint",
    "RejectedCheckpoint",
    "RunDirectory",
    "RunRecord",
    "latest_good_checkpoint",
    "prune_checkpoints",
    "read_run",
    "seal_checkpoint",
]
