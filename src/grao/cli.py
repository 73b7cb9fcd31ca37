"""The command line: `grao train`, `evaluate`, `experiment`, `report`, `show`, `base`, `task`, `demo`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from grao.version import __version__

DESCRIPTION = """\
Align language models from demonstrations and rewards in one loss.

  grao demo                                 the whole idea in two minutes, no download
  grao train recipes/gsm8k.yaml             a run: YAML file → aligned model, metrics, completions
  grao train CONFIG --objective.beta 0.3    the same with one value changed
  grao train CONFIG --resume                go on after a crash, to the same bits
  grao evaluate RUN_DIRECTORY               answers before and after, scored: RAS, NAG, intervals
  grao evaluate CONFIG                      any models, side by side; the same again goes on after a kill
  grao show CONFIG                          the configuration with every default written out
  grao show --keys                          every key, its type, default and meaning
  grao base CONFIG                          train a small base model from scratch
  grao task dialogue --output DIR           write a synthetic task: data, and a base model
  grao experiment main                      all methods over seeds, tuned alike; --list names the others
  grao report runs/first                    one HTML page: curves, figures, every completion to browse
"""

TRAIN_HELP = """\
Sections of CONFIG: model, data, objective, rewards, rollout, critic, evaluation, monitor, trainer
(transformers' TrainingArguments). Any value can be changed by its dotted path: --trainer.learning_rate 1e-5,
--objective.name grpo, --rewards.0.weight 2. `grao show --keys` lists them all.
"""


EVALUATE_HELP = """\
Sections of CONFIG: models, data, rewards, sampling; and base, verifiable, k, kl, category_column, batch, device,
output_dir. Any value can be changed: --sampling.num_samples 4, --data.limit 200, --kl false (after CONFIG).
`grao show --keys` lists them all.

  grao evaluate runs/hh                           the model of a run against the one it started from, on the held-out
                                                  rows and by the rewards of its own config.yaml (`evaluation`)
  grao evaluate runs/sft runs/grpo runs/grao      several runs, by the section of the first
  grao evaluate runs/hh --data.source test.jsonl  other rows
  grao evaluate CONFIG --model mine=path/to/it    one more model: the answers of the others are kept

Every model answers every prompt with the same seeds. Answers and scores are stored part by part in output_dir: the
same command again goes on where it stopped, and prints a finished evaluation. There: items/NAME.parquet with every
answer and its scores, evaluation.json with every figure and its interval.
"""

REPORT_HELP = """\
One HTML page that holds all it shows: open it from the disk, or send it. What a DIR is, is seen by what lies in it:

  summary.json       the record of an experiment     intervals over seeds, claims, curves, maps, answers
  comparison.json    what `grao demo` wrote          every method side by side, and its training curves
  evaluation.json    what `grao evaluate` wrote      models on the same prompts, and every answer
  config.yaml        a training run                  also one that still runs, or was killed

  grao report runs/first                             report.html, here
  grao report runs/first runs/second --output two.html      both, and their curves on common axes
  grao report runs/demo --figures figures/           every figure as an SVG file too

Texts are blurred until the reader asks where the data is known to offend (HH-RLHF); --blur and --no-blur decide.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console script; returns the exit status."""
    parser = _parser()
    plain, rest = split_overrides(sys.argv[1:] if argv is None else argv)
    args, unknown = parser.parse_known_args(plain)
    rest += unknown
    if rest and args.command not in ("train", "evaluate", "show", "base"):
        parser.error(f"unrecognised arguments: {' '.join(rest)}")
    if args.command is None:
        parser.print_help()
        return 0
    try:
        args.run(args, rest)
    except KeyboardInterrupt:
        goes_on = "the same command goes on" if args.command in ("evaluate", "experiment") else "go on with --resume"
        print(f"grao: interrupted; {goes_on}", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if os.environ.get("GRAO_TRACEBACK"):
            raise
        print(f"grao: {error}", file=sys.stderr)
        print("(set GRAO_TRACEBACK=1 to see where)", file=sys.stderr)
        return 1
    return 0


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Dotted overrides apart from everything else, so that they may stand before the configuration too.

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

    train = commands.add_parser(
        "train", help="run a configuration", epilog=TRAIN_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    train.add_argument("config", help="a YAML file")
    existing = train.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on from the latest good checkpoint")
    existing.add_argument("--overwrite", action="store_true", help="replace the run that is there")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate",
        help="answer held-out prompts with several models, score, compare",
        epilog=EVALUATE_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluate.add_argument("named", nargs="+", metavar="CONFIG | RUN_DIRECTORY", help="a YAML file, or finished runs")
    evaluate.add_argument(
        "--model", action="append", default=[], metavar="NAME=PATH", help="one more model; may be given several times"
    )
    evaluate.add_argument("--overwrite", action="store_true", help="forget the answers that are stored")
    evaluate.set_defaults(run=_evaluate)

    show = commands.add_parser("show", help="print a configuration, resolved")
    show.add_argument("config", nargs="?", help="a YAML file")
    show.add_argument("--keys", action="store_true", help="list every key instead")
    show.set_defaults(run=_show)

    base = commands.add_parser("base", help="train a small base model from scratch")
    base.add_argument("config", help="a YAML file, such as recipes/gsm8k-base.yaml")
    base.set_defaults(run=_base)

    task = commands.add_parser("task", help="write a synthetic task with ground truth")
    task.add_argument("name", choices=("dialogue", "arithmetic", "word-problems"))
    task.add_argument("--output", required=True, help="directory for train.jsonl, validation.jsonl, test.jsonl, base/")
    task.add_argument("--family", default="llama", help="base model: llama, qwen3 or qwen3_moe (default: llama)")
    task.add_argument("--eps", type=float, default=None, help="how often the base shows the wanted behaviour")
    task.add_argument("--seed", type=int, default=0)
    task.set_defaults(run=_task)

    demo = commands.add_parser("demo", help="train a base model, align it seven ways, compare")
    demo.add_argument("--output", default="runs/demo", help="where to write (default: runs/demo)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--eps", type=float, default=None, help="how often the base refuses (default: 0.01; try 0.4)")
    demo.add_argument("--steps", type=int, default=60, help="optimiser steps a method (default: 60)")
    demo.set_defaults(run=_demo)

    experiment = commands.add_parser("experiment", help="run a plan over seeds, in parallel; killed, it goes on")
    experiment.add_argument("plan", nargs="?", help="a built-in plan, or a .yaml file")
    experiment.add_argument("--list", action="store_true", help="name the built-in plans instead")
    experiment.add_argument("--output", default=None, help="where to write (default: runs/experiments/NAME)")
    experiment.add_argument("--jobs", type=int, default=None, help="processes of one thread (default: the cores)")
    experiment.add_argument("--quick", action="store_true", help="its short form: it works, but decides nothing")
    experiment.add_argument("--overwrite", action="store_true", help="delete the experiment that is there")
    experiment.add_argument(
        "--keep", default=None, metavar="DIR", help="at the end, write what a repository keeps of it to DIR/NAME"
    )
    experiment.set_defaults(run=_experiment)
    report = commands.add_parser(
        "report",
        help="make one HTML page from runs, a demo or an experiment",
        epilog=REPORT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report.add_argument("directories", nargs="+", metavar="DIR", help="a run, a demo or the record of an experiment")
    report.add_argument("--output", default="report.html", help="the HTML file (default: report.html)")
    report.add_argument("--title", help="of the page (default: from what is in it)")
    report.add_argument("--figures", metavar="DIR", help="write every figure as an SVG file there too")
    report.add_argument("--blur", action=argparse.BooleanOptionalAction, help="warn, and blur texts until asked")
    report.set_defaults(run=_report)
    return parser


# Each command imports what it needs: `grao --help` answers at once, not after torch has loaded.


def _train(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.training import load_config, train

    done = train(load_config(args.config, rest), resume=args.resume, overwrite=args.overwrite)
    # Several processes leave together: one that goes while another still writes can abort on its way out.
    done.trainer.accelerator.wait_for_everyone()
    done.trainer.accelerator.end_training()


def _evaluate(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.evaluation import evaluate, load_evaluation

    given = [name for name in args.named if "=" in name and not Path(name).exists()]  # kl=false, as well as --kl false
    named = [name for name in args.named if name not in given]
    evaluate(load_evaluation(named, models=args.model, overrides=[*given, *rest]), overwrite=args.overwrite)


def _show(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.configuration import describe, dump_yaml
    from grao.evaluation import EvaluateConfig
    from grao.objectives import OBJECTIVES
    from grao.training.run_config import TRAINER_DEFAULTS, RunConfig, load_config

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
        raise ValueError("name a YAML file, or give --keys")
    else:
        print(dump_yaml(load_config(args.config, rest).resolved()), end="")


def _print_keys(keys: Iterable[Any], prefix: str) -> None:
    for key in keys:
        print(f"{prefix}{key.name}: {key.type} = {key.default}\n    {key.doc}")


def _base(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.experiments.base_model import main_from_config

    main_from_config(args.config, rest)


def _task(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.experiments.tasks import TASKS, write_task

    print(write_task(TASKS[args.name](), args.output, family=args.family, eps=args.eps, seed=args.seed).summary)


def _demo(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.experiments.demo import run_demo
    from grao.report import write_report

    run_demo(args.output, seed=args.seed, steps=args.steps, eps=args.eps)
    written = write_report([args.output], Path(args.output) / "report.html")
    print(f"The report, to open in a browser: {written.path}")


def _report(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.report import write_report

    written = write_report(
        args.directories, args.output, title=args.title, sensitive=args.blur, figures_folder=args.figures
    )
    for note in written.notes:
        print(f"note: {note}")
    print(f"{written.path} ({written.path.stat().st_size / 1e6:.1f} MB)")


def _experiment(args: argparse.Namespace, rest: list[str]) -> None:
    from grao.experiments.plan import built_in_plans, load_plan, quick_form

    if args.list:
        for name in built_in_plans():
            print(f"{name:20s} {load_plan(name).title}")
        return
    if args.plan is None:
        raise ValueError("name a plan or a .yaml file, or give --list")
    plan = quick_form(load_plan(args.plan)) if args.quick else load_plan(args.plan)

    from grao.experiments.experiment import cores, run_experiment
    from grao.experiments.kept import keep

    output = args.output or f"runs/experiments/{plan.name}"
    jobs = cores() if args.jobs is None else args.jobs
    summary = run_experiment(plan, output, jobs=jobs, overwrite=args.overwrite)
    print(f"summary: {summary}")
    if args.keep is not None:
        print(f"kept: {keep(summary.parent, Path(args.keep) / plan.name)}")


if __name__ == "__main__":
    sys.exit(main())
