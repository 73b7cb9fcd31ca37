"""The command line: `grao train`, `evaluate`, `report`, `show`, `schema`, `base`, `task`, `demo`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grao.version import __version__

if TYPE_CHECKING:
    from grao.report import Written

DESCRIPTION = """\
Align language models from demonstrations and rewards in one loss.

  grao demo                                 align a small model in seven ways and compare: two minutes, no download
  grao train recipes/gsm8k.yaml             train: from a YAML file to a model, metrics and completions
  grao train CONFIG --objective.beta 0.3    the same with one value changed
  grao train CONFIG --resume                continue from the latest checkpoint, with the same bits
  grao evaluate RUN_DIRECTORY               score answers before and after training: RAS, NAG, intervals
  grao evaluate CONFIG                      score any models side by side
  grao report runs/first                    make one HTML page: curves, figures, all completions
  grao show CONFIG                          print the configuration with all defaults
  grao show --keys                          print every key with its type, default and meaning
  grao schema                               print a JSON schema that editors check configurations with
  grao base recipes/gsm8k-base.yaml         train a small base model from scratch
  grao task dialogue --output DIR           write the demo's task: rows and a base model

`grao COMMAND --help` explains a command, with an example.
"""

TRAIN_HELP = """\
CONFIG is a YAML file with the sections model, data, objective, rewards, rollout, critic, evaluation, monitor and
trainer (transformers' TrainingArguments). Change any value by its dotted path; `grao show --keys` lists them all.

Examples:
  grao train recipes/gsm8k.yaml
  grao train recipes/gsm8k.yaml --trainer.learning_rate 1e-5 --objective.name grpo --rewards.0.weight 2
  grao train recipes/gsm8k.yaml --resume
"""

EVALUATE_HELP = """\
CONFIG is a YAML file with the sections models, data, rewards and sampling, and the keys base, verifiable, k, kl,
category_column, batch, device and output_dir. Change any value by its dotted path, after CONFIG; `grao show --keys`
lists them all. A RUN_DIRECTORY compares the run's model with the one it started from, on the held-out rows and with
the rewards of its config.yaml (section `evaluation`).

Examples:
  grao evaluate runs/hh
  grao evaluate runs/sft runs/grpo runs/grao              several runs; the first one's section counts
  grao evaluate runs/hh --data.source test.jsonl --sampling.num_samples 4 --kl false
  grao evaluate CONFIG --model mine=path/to/it            one more model; stored answers of the others are reused

Every model answers every prompt with the same seeds. Answers and scores are stored in output_dir as they are made, so
the same command continues an interrupted evaluation, and prints a finished one. Results: items/NAME.parquet with every
answer and its scores, evaluation.json with every figure and its interval.
"""

REPORT_HELP = """\
The page holds everything it shows: open it from the disk, or mail it. A directory is read by the file in it:

  config.yaml        a training run, also one that still runs or was killed
  evaluation.json    written by `grao evaluate`: models on the same prompts, and every answer
  comparison.json    written by `grao demo`: the methods side by side, and their training curves

Examples:
  grao report runs/first
  grao report runs/first runs/second --output two.html    both, and their curves on common axes
  grao report runs/demo --figures figures/                also write every figure as an SVG file

Texts are blurred until the reader asks if the data is known to offend (HH-RLHF). --blur and --no-blur override this.
"""

SHOW_HELP = """\
Examples:
  grao show recipes/gsm8k.yaml --objective.beta 0.3
  grao show --keys
"""


SCHEMA_HELP = """\
Example:
  grao schema > grao.schema.json

Editors with a YAML language server then complete and check a configuration that begins with the line
# yaml-language-server: $schema=grao.schema.json

`grao schema evaluation` is for the files of `grao evaluate`.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script and return the exit status."""
    parser = _parser()
    plain, rest = split_overrides(sys.argv[1:] if argv is None else argv)
    args, unknown = parser.parse_known_args(plain)
    rest += unknown
    if rest and args.command not in ("train", "evaluate", "show", "base"):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    if args.command is None:
        parser.print_help()
        return 0
    continues = "run the same command again" if args.command == "evaluate" else "add --resume"
    return run_command(lambda: args.run(args, rest), f"{continues} to continue")


def run_command(command: Callable[[], None], continues: str) -> int:
    """Run a command and return its exit status: 0, 1 after an error of the user, 130 after Ctrl-C.

    An error of the user is printed as one message. Every other one (out of memory, CUDA, our own bugs) propagates with
    its traceback. GRAO_TRACEBACK=1 shows the traceback of any error.
    """
    try:
        command()
    except KeyboardInterrupt:
        print(f"grao: interrupted; {continues}", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("GRAO_TRACEBACK") or not is_user_error(error):
            raise
        print(f"grao: {error}{_remedy(error)}", file=sys.stderr)
        print("(set GRAO_TRACEBACK=1 to see the traceback)", file=sys.stderr)
        return 1
    return 0


def is_user_error(error: Exception) -> bool:
    """Return whether the user can fix the error: a wrong path or setting, a missing package, rewards that fail."""
    if isinstance(error, ModuleNotFoundError):
        return (error.name or "").split(".")[0] not in ("grao", "research")
    if isinstance(error, RuntimeError):  # torch raises it for nearly everything, out of memory included
        from grao.rewards.errors import RewardError
        from grao.rollout import EngineError

        return isinstance(error, RewardError | EngineError)
    return isinstance(error, ValueError | OSError | ImportError | FloatingPointError)


def _remedy(error: Exception) -> str:
    return f": install it with `pip install {error.name}`" if isinstance(error, ModuleNotFoundError) else ""


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate dotted overrides from all other arguments, so that they can also stand before the configuration.

    >>> split_overrides(["train", "--objective.beta", "0.3", "run.yaml", "--resume"])
    (['train', 'run.yaml', '--resume'], ['--objective.beta', '0.3'])
    """
    plain: list[str] = []
    overrides: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        name, given, _ = argument.partition("=")
        if not (name.startswith("--") and "." in name):
            plain.append(argument)
            continue
        overrides.append(argument)
        if not given:
            overrides += [value for value in (next(arguments, None),) if value is not None]
    return plain, overrides


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="grao", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"grao {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, run: Callable[..., None], help: str, epilog: str) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=help, description=help, epilog=epilog, formatter_class=raw)
        command.set_defaults(run=run)
        return command

    train = add("train", _train, "train a model as a configuration says", TRAIN_HELP)
    train.add_argument("config", help="a YAML file")
    existing = train.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue from the latest good checkpoint")
    existing.add_argument("--overwrite", action="store_true", help="replace the run in the output directory")

    evaluate = add("evaluate", _evaluate, "answer held-out prompts with several models, score, compare", EVALUATE_HELP)
    evaluate.add_argument("named", nargs="+", metavar="CONFIG | RUN_DIRECTORY", help="a YAML file, or finished runs")
    evaluate.add_argument(
        "--model", action="append", default=[], metavar="NAME=PATH", help="one more model; can be repeated"
    )
    evaluate.add_argument("--overwrite", action="store_true", help="delete stored answers first")

    report = add("report", _report, "make one HTML page from runs, evaluations or a demo", REPORT_HELP)
    report.add_argument("directories", nargs="+", metavar="DIR", help="a run, an evaluation or a demo")
    report.add_argument("--output", default="report.html", help="HTML file to write (default: report.html)")
    report.add_argument("--title", help="title of the page (default: from what is on it)")
    report.add_argument("--figures", metavar="DIR", help="also write every figure as an SVG file")
    report.add_argument("--blur", action=argparse.BooleanOptionalAction, help="warn, and blur texts until asked")

    show = add("show", _show, "print a configuration with all defaults", SHOW_HELP)
    show.add_argument("config", nargs="?", help="a YAML file")
    show.add_argument("--keys", action="store_true", help="list every key instead")

    schema = add("schema", _schema, "print the JSON schema of a configuration, for editors", SCHEMA_HELP)
    kinds = ("run", "evaluation")
    schema.add_argument("kind", nargs="?", choices=kinds, default="run", help="run (default) or evaluation")

    base = add(
        "base",
        _base,
        "train a small base model from scratch",
        "Example:\n  grao base recipes/gsm8k-base.yaml --steps 100",
    )
    base.add_argument("config", help="a YAML file")

    task = add(
        "task",
        _task,
        "write the demo's task: rows with ground truth, and a base model",
        "Example:\n  grao task dialogue --output tasks/dialogue --eps 0.4\n  grao train recipes/dialogue.yaml",
    )
    task.add_argument("name", choices=("dialogue",), help="answer, help or refuse; a grammar scores every reply")
    task.add_argument("--output", required=True, help="directory for train.jsonl, validation.jsonl, test.jsonl, base/")
    task.add_argument("--family", default="llama", help="base model: llama, qwen3 or qwen3_moe (default: llama)")
    task.add_argument("--eps", type=float, help="how often the base model refuses harmful prompts (default: 0.01)")
    task.add_argument("--seed", type=int, default=0, help="seed of the rows and the base model (default: 0)")

    demo = add(
        "demo",
        _demo,
        "train a small base model, align it in seven ways, and compare",
        "Example:\n  grao demo --output runs/demo --eps 0.4",
    )
    demo.add_argument("--output", default="runs/demo", help="directory to write to (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=0, help="seed of the task and the runs (default: 0)")
    demo.add_argument("--eps", type=float, help="how often the base model refuses harmful prompts (default: 0.01)")
    demo.add_argument("--steps", type=int, default=60, help="optimiser steps per method (default: 60)")
    return parser


# Each command imports what it needs, so that `grao --help` answers before torch is loaded.


def _train(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.training import load_config, train

    done = train(load_config(args.config, rest), resume=args.resume, overwrite=args.overwrite)
    # All processes leave together: one that exits while another still writes can abort on its way out.
    done.trainer.accelerator.wait_for_everyone()
    done.trainer.accelerator.end_training()


def _evaluate(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.evaluation import evaluate, load_evaluation

    given = [name for name in args.named if "=" in name and not Path(name).exists()]  # kl=false, as well as --kl false
    named = [name for name in args.named if name not in given]
    evaluate(load_evaluation(named, models=args.model, overrides=[*given, *rest]), overwrite=args.overwrite)


def _report(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.report import write_report

    options = {"title": args.title, "sensitive": args.blur, "figures_folder": args.figures}
    print_report(write_report(args.directories, args.output, **options))


def print_report(written: Written) -> None:
    """Print what a page leaves out, and its path."""
    for note in written.notes:
        print(f"note: {note}")
    print(f"{written.path} ({written.path.stat().st_size / 1e6:.1f} MB)")


def _show(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.configuration import describe, dump_yaml
    from grao.evaluation import EvaluateConfig
    from grao.objectives import OBJECTIVES
    from grao.training.run_config import RunConfig, load_config
    from grao.training.trainer_arguments import TRAINER_DEFAULTS

    if args.keys:
        _print_keys(describe(RunConfig), "")
        for name, (cls, _) in OBJECTIVES.items():
            print(f"\n# fields of objective {{name: {name}}}")
            _print_keys(describe(cls), "objective.")
        print("\n# trainer: the fields of transformers.TrainingArguments, with these defaults")
        for key, value in TRAINER_DEFAULTS.items():
            print(f"trainer.{key} = {value}")
        print("\n# grao evaluate CONFIG")
        _print_keys(describe(EvaluateConfig), "")
    elif args.config is None:
        raise ValueError("no configuration was given: name a YAML file, or list all keys with --keys")
    else:
        print(dump_yaml(load_config(args.config, rest).resolved()), end="")


def _schema(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.editor_schema import evaluation_schema, run_schema

    schema = run_schema() if args.kind == "run" else evaluation_schema()
    print(json.dumps(schema, indent=2, ensure_ascii=False))


def _print_keys(keys: Iterable[Any], prefix: str) -> None:
    for key in keys:
        print(f"{prefix}{key.name}: {key.type} = {key.default}\n    {key.doc}")


def _base(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.demo.base_model import main_from_config

    main_from_config(args.config, rest)


def _task(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.demo.dialogue import Dialogue
    from grao.demo.synthetic_task import write_task

    print(write_task(Dialogue(), args.output, family=args.family, eps=args.eps, seed=args.seed).summary)


def _demo(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.demo.run_demo import run_demo
    from grao.report import write_report

    run_demo(args.output, seed=args.seed, steps=args.steps, eps=args.eps)
    written = write_report([args.output], Path(args.output) / "report.html")
    print(f"Open the report in a browser: {written.path}")


if __name__ == "__main__":
    sys.exit(main())
