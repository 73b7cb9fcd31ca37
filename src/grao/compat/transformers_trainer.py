"""The hooks of `transformers.Trainer` that `grao.training` overrides or calls, with the parameters they must have.

Their order within an optimiser step is relied on too: `get_batch_samples` once, after the update before it and before
the first forward; `compute_loss` per micro-batch; `_clip_grad_norm`, then `_get_grad_norm`, before the optimiser's
update; `log` and `_save_checkpoint` after it. The tests of this file run a Trainer and compare.
"""

from __future__ import annotations

OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "train": ("resume_from_checkpoint", "trial", "ignore_keys_for_eval"),
    "get_batch_samples": ("epoch_iterator", "num_batches", "device"),
    "compute_loss": ("model", "inputs", "return_outputs", "num_items_in_batch"),
    "_clip_grad_norm": ("model",),
    "_get_grad_norm": ("model", "grad_norm"),
    "_get_train_sampler": ("train_dataset",),
    "create_optimizer": ("model",),
    "create_scheduler": ("num_training_steps", "optimizer"),
    "_save_checkpoint": ("model", "trial"),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "save_model": ("output_dir", "_internal_call"),
    "log": ("logs", "start_time"),
    "evaluate": ("eval_dataset", "ignore_keys", "metric_key_prefix"),
}
"""Methods that a subclass replaces, without `self`."""

CALLED: dict[str, tuple[str, ...]] = {
    "_maybe_log_save_evaluate": (
        *("tr_loss", "grad_norm", "model", "trial", "epoch", "ignore_keys_for_eval"),
        *("start_time", "learning_rate"),
    ),
    "get_decay_parameter_names": ("model",),
}
"""Methods that a subclass calls."""

ATTRIBUTES = ("_tr_loss", "_created_lr_scheduler", "model_accepts_loss_kwargs")
"""Attributes that a subclass reads or sets."""
