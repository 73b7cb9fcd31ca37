"""`python -m research`: run plans, make their report and the claims page, write their tasks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from grao.cli import run_command

DESCRIPTION = """\
Experiments over seeds, with the paper's claims and a verdict on each. Start it from the root of the repository.

  python -m research run --list                       names and titles of the plans
  python -m research run main --quick                 a short form: it shows that things work, no result
  python -m research run main                         all methods over seeds, tuned alike
  python -m research run mine.yaml --output DIR       a plan of your own
  python -m research run main --record research/records    also write the small record that a repository keeps
  python -m research report research/records/main     one HTML page from records, runs and evaluations
  python -m research claims                           docs/claims.md from the records
  python -m research task arithmetic --output DIR     a task as files: rows, and a base model
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help()
        return 0
    return run_command(lambda: args.run(args), "run the same command again to continue")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m research", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    run = commands.add_parser(
        "run", help="run a plan over seeds, in parallel", epilog="Example: python -m research run dynamics --jobs 4"
    )
    run.add_argument("plan", nargs="?", help="name of a plan in research/plans, or a .yaml file")
    run.add_argument("--list", action="store_true", help="list the plans instead")
    run.add_argument("--output", help="directory to write to (default: runs/experiments/NAME)")
    run.add_argument("--jobs", type=int, help="processes, of one thread each (default: number of cores)")
    run.add_argument("--quick", action="store_true", help="short form: it shows that things work, no result")
    run.add_argument("--overwrite", action="store_true", help="delete the experiment in the output directory first")
    run.add_argument("--record", metavar="DIR", help="at the end, write the record for the repository to DIR/NAME")
    run.set_defaults(run=_run)

    report = commands.add_parser(
        "report",
        help="make one HTML page from records, runs and evaluations",
        epilog="Example: python -m research report research/records/main research/records/moe --output two.html",
    )
    report.add_argument("directories", nargs="+", metavar="DIR", help="record of an experiment, run, demo, evaluation")
    report.add_argument("--output", default="report.html", help="HTML file to write (default: report.html)")
    report.add_argument("--title", help="title of the page (default: from what is on it)")
    report.add_argument("--figures", metavar="DIR", help="also write every figure as an SVG file")
    report.set_defaults(run=_report)

    claims = commands.add_parser("claims", help="write docs/claims.md from the records")
    claims.set_defaults(run=_claims)

    task = commands.add_parser(
        "task",
        help="write a synthetic task with ground truth",
        epilog="Example: python -m research task word-problems --output tasks/words",
    )
    task.add_argument("name", choices=("dialogue", "arithmetic", "word-problems"))
    task.add_argument("--output", required=True, help="directory for train.jsonl, validation.jsonl, test.jsonl, base/")
    task.add_argument("--family", default="llama", help="base model: llama, qwen3 or qwen3_moe (default: llama)")
    task.add_argument("--eps", type=float, help="how often the base model shows the wanted behaviour")
    task.add_argument("--seed", type=int, default=0, help="seed of rows and base model (default: 0)")
    task.set_defaults(run=_task)
    return parser


def _run(args: argparse.Namespace) -> None:
    from research.committed_record import write_record
    from research.experiment_plan import built_in_plans, load_plan, quick_form
    from research.experiment_runner import cores, run_experiment

    if args.list:
        for name in built_in_plans():
            print(f"{name:20s} {load_plan(name).title}")
        return
    if args.plan is None:
        raise ValueError("no plan was given: name a plan or a .yaml file, or list the plans with --list")
    plan = quick_form(load_plan(args.plan)) if args.quick else load_plan(args.plan)
    output = args.output or f"runs/experiments/{plan.name}"
    jobs = cores() if args.jobs is None else args.jobs
    summary = run_experiment(plan, output, jobs=jobs, overwrite=args.overwrite)
    print(f"summary: {summary}")
    if args.record is not None:
        print(f"record: {write_record(summary.parent, Path(args.record) / plan.name)}")


def _report(args: argparse.Namespace) -> None:
    from grao.cli import print_report
    from research.report import write_report

    print_report(write_report(args.directories, args.output, title=args.title, figures_folder=args.figures))


def _claims(args: argparse.Namespace) -> None:
    from research.claims_page import write_claims_page

    print(os.path.relpath(write_claims_page()))


def _task(args: argparse.Namespace) -> None:
    from grao.demo.synthetic_task import write_task
    from research.tasks import TASKS

    print(write_task(TASKS[args.name](), args.output, family=args.family, eps=args.eps, seed=args.seed).summary)


if __name__ == "__main__":
    sys.exit(main())
