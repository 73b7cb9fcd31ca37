"""The model card: base model, objective, configuration and main metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grao.objectives import Objective
from grao.training.stages import Stage
from grao.version import __version__

CARD = """---
base_model: {base}
library_name: {library}
tags: [grao, {name}]
---

# {title}

`{base}` aligned by **{objective}** with [grao](https://arxiv.org/abs/2508.07750) {version}, on `{source}`.

| metric | first | last |
|---|---|---|
{metrics}

## Objective

```
{settings}
```

## Configuration

```yaml
{config}```
"""

REPORTED = (
    "reward",
    "logprobs/reference",
    "kl",
    "entropy",
    "completions/mean_length",
    "eval_reward",
    "eval_win_rate",
    "eval_nag",
)


def write_model_card(
    folder: Path,
    config: Mapping[str, Any],
    objective: Objective | Sequence[Stage],
    history: Sequence[dict[str, Any]],
) -> Path:
    """Write README.md beside the model, with the first and last logged value of the main metrics."""
    rows = []
    for name in REPORTED:
        values = [entry[name] for entry in history if name in entry]
        if values:
            rows.append(f"| {name} | {values[0]:.4g} | {values[-1]:.4g} |")
    objectives = [objective] if isinstance(objective, Objective) else [stage.objective for stage in objective]
    described = config["objective"] if isinstance(config["objective"], list) else [config["objective"]]
    text = CARD.format(
        base=config["model"]["path"],
        library="peft" if config["model"]["lora"] is not None else "transformers",
        name=", ".join(dict.fromkeys(one.get("name", one.get("path", "sum")) for one in described)),
        title=folder.parent.name,
        objective=" → ".join(one.title for one in objectives),
        version=__version__,
        source=config["data"]["source"],
        metrics="\n".join(rows),
        settings="\n".join(repr(one) for one in objectives),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
    )
    path = folder / "README.md"
    path.write_text(text, encoding="utf-8")
    return path
