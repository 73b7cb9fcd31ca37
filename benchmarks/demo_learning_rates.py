"""The learning rates of the demo: the same small grid for every method, judged on validation prompts.

    python benchmarks/demo_learning_rates.py --output runs/tune

Prints every setting, the losing ones too, and writes them to benchmarks/results/demo_learning_rates.json. The seed and
the prompts are not the demo's: test prompts are never looked at.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

from rich.console import Console
from transformers.utils import logging as transformers_logging

from grao.data import Encoder, load_examples
from grao.experiments.comparison import measure
from grao.experiments.demo import MAX_NEW_TOKENS, METHODS, method_config
from grao.experiments.tasks import Dialogue, write_task
from grao.policy import ModelConfig, load_policy
from grao.rewards import RewardSet, load_reward
from grao.training import train

GRID = (3e-4, 1e-3, 3e-3)
SEED = 100
STEPS = 60
RESULTS = Path(__file__).parent / "results" / "demo_learning_rates.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/tune"))
    output = parser.parse_args().output
    transformers_logging.disable_progress_bar()
    task = Dialogue()
    write_task(task, output / "task", n_validation=200, seed=SEED, quiet=True)
    rubric = RewardSet([load_reward(task.rubric)])
    tokenizer = load_policy(ModelConfig(str(output / "task" / "base"))).tokenizer
    rows = Encoder(tokenizer).encode_all(load_examples(output / "task" / "validation.jsonl"))[0]
    tried = []
    for method in METHODS:
        for learning_rate in GRID:
            config = method_config(replace(method, learning_rate=learning_rate), output, STEPS, SEED)
            run = train(config, overwrite=True, console=Console(file=StringIO()))
            result = measure(
                method.label,
                load_policy(ModelConfig(str(run.model))),
                None,
                rows,
                rubric,
                max_new_tokens=MAX_NEW_TOKENS,
            )
            score, wins = result.score, result.win_rate
            tried.append(
                {
                    "method": method.objective,
                    "learning_rate": learning_rate,
                    "score": [score.value, score.low, score.high],
                    "win_rate": [wins.value, wins.low, wins.high],
                    "n": score.n,
                }
            )
            print(f"{method.label:20s} {learning_rate:8.0e}  score {score}  wins {wins}", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"seed": SEED, "steps": STEPS, "tried": tried}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
