"""A run whose every border is met within eight steps: epochs, accumulation, checkpoints."""

from __future__ import annotations

from typing import Any


def small_run(name: str, **sections: Any) -> dict[str, Any]:
    """Ten rows, four a step: 8 steps cross two borders of epochs, after steps 3 and 6, with incomplete accumulation.

    `base` and `rows.jsonl` are in the working directory; `sections` replace or add some of the configuration's.
    """
    return {
        "model": {"path": "base"},
        "data": {"source": "rows.jsonl", "limit": 10},
        "objective": {"name": "grao"},
        "rollout": {"max_new_tokens": 6, "num_generations": 3},
        "monitor": {"kl_every": 3, "completions_every": 0},
        "trainer": {
            "output_dir": name,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "linear",
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": 8,
            "save_steps": 1,
            "use_cpu": True,
            "seed": 7,
        },
        **sections,
    }


def changed(config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy with `section=value` or, for one of its fields, `section__field=value`."""
    config = dict(config)
    for key, value in changes.items():
        section, _, field = key.partition("__")
        config[section] = {**config[section], field: value} if field else value
    return config
