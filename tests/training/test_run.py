"""Whole runs from a configuration: what they leave, and what is refused before the first step."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from grao.configuration import build
from grao.groups import Group, Member
from grao.objectives import GRAO, SFT
from grao.records import latest_good_checkpoint, read_run
from grao.training import Monitor, Rollout, RunConfig, Stage, TrainedRun, align, train
from grao.training.callbacks import completions_table, summary_lines

Config = dict[str, Any]
RUN = Path("run")


def go(config: Config, **flags: bool) -> tuple[TrainedRun, str]:
    said = io.StringIO()
    run = train(build(RunConfig, config), console=Console(file=said, width=200), **flags)
    return run, said.getvalue()


def refused(config: Config, message: str, **flags: bool) -> str:
    """The whole message, which must hold `message`; nothing may have been written."""
    with pytest.raises((ValueError, OSError), match=re.escape(message)) as error:
        go(config, **flags)
    assert not RUN.exists(), "a check that fails leaves no half-made run"
    return str(error.value)


# --- a run -----------------------------------------------------------------------------------------------------------


def test_what_a_run_leaves(config: Config) -> None:
    """Oracle: the files and numbers counted by hand; the model is the trainer's, weight by weight."""
    config["evaluation"] = {"data": {"source": "rows.jsonl", "limit": 4}, "every": 2}
    run, said = go(config)
    record = read_run(run.directory)
    assert [line["step"] for line in record.metrics if "loss" in line] == [1, 2, 3]
    assert [line["step"] for line in record.metrics if "eval_reward" in line] == [0, 2, 3]
    assert record.completion_steps() == [1, 2, 3]
    assert record.completion_steps(held_out=True) == [0, 2, 3]
    rows = list(record.completions(1))
    assert [row["kind"] for row in rows] == ["sample", "sample", "reference"] * 2
    assert all(row["reward"] == row["rewards/vowels"] for row in rows)
    assert sum(row["advantage"] for row in rows) == pytest.approx(0)  # over the joint groups
    assert latest_good_checkpoint(run.directory).step == 3
    saved = load_file(run.model / "model.safetensors")
    live = run.trainer.model.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(value, live[name]) for name, value in saved.items())
    AutoModelForCausalLM.from_pretrained(run.model)  # an ordinary directory
    card = (run.model / "README.md").read_text(encoding="utf-8")
    assert "base_model: base" in card
    assert "GRAO(beta=0.5, lam=0.6" in card
    assert "step 3/3" in said
    assert "kept 12 of 12 rows" in said
    assert str(run.directory) in said


@pytest.mark.slow
def test_older_checkpoints_go_once_newer_ones_are_sealed(config: Config) -> None:
    """Oracle: `save_total_limit` counted by hand."""
    config["trainer"] |= {"save_steps": 1, "max_steps": 4, "save_total_limit": 2}
    run, _ = go(config)
    assert sorted(path.name for path in run.directory.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-4"]


@pytest.mark.slow
def test_a_lora_run_saves_adapters(config: Config, make_model: Callable[..., PreTrainedModel]) -> None:
    """Oracle: the saved file holds adapters alone; the base directory's weights are as they were."""
    before = load_file("base/model.safetensors")
    config["model"]["lora"] = {"r": 4}
    run, _ = go(config)
    adapters = load_file(run.model / "adapter_model.safetensors")
    assert adapters
    assert all("lora_" in name for name in adapters)
    after = load_file("base/model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "library_name: peft" in (run.model / "README.md").read_text(encoding="utf-8")


def test_sft_needs_no_rewards(config: Config) -> None:
    """Oracle: the loss of SFT is the negative mean log-prob of its references; there is nothing sampled to record."""
    config["objective"], config["rewards"] = {"name": "sft"}, []
    run, _ = go(config)
    record = read_run(run.directory)
    assert record.completion_steps() == []
    assert all(line["loss"] > 0 and "reward" not in line for line in record.metrics)


@pytest.mark.slow
def test_a_missing_pad_token_is_filled_in_and_said(
    config: Config, workplace: Path, write_model: Callable[..., Path], make_tokenizer: Callable[..., Any]
) -> None:
    """Oracle: the sentence; and the same run with a pad token: which id pads must not matter."""
    with_pad, _ = go(config)
    write_model(workplace / "padless", make_tokenizer(pad_token=None))
    config["model"]["path"] = "padless"
    config["trainer"]["output_dir"] = "other"
    without, said = go(config)
    assert "the tokenizer has no padding token: using its end-of-sequence token '<eos>'" in said
    left, right = (load_file(run.model / "model.safetensors") for run in (with_pad, without))
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_what_a_chain_leaves(config: Config) -> None:
    """Oracle: files and numbers counted by hand: two stages, one record; samples in the second one's steps alone."""
    config["objective"] = [{"name": "sft", "steps": 2}, {"name": "ppo", "steps": 2, "learning_rate": 5e-3, "kl": 0.1}]
    del config["trainer"]["max_steps"]
    run, said = go(config)
    record = read_run(run.directory)
    assert [line["learning_rate"] for line in record.metrics] == [0.01, 0.01, 0.005, 0.005]
    assert ["reward" in line for line in record.metrics] == [False, False, True, True]
    assert record.completion_steps() == [3, 4]
    assert latest_good_checkpoint(run.directory).step == 4
    assert "step 4/4" in said
    card = (run.model / "README.md").read_text(encoding="utf-8")
    assert "tags: [grao, sft, ppo]" in card
    assert "aligned by **SFT → PPO**" in card
    assert card.index("SFT(aggregation=") < card.index("PPO(kl=0.1")
    shown = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])
    assert shown == build(RunConfig, config).resolved()
    assert [(stage["name"], stage["steps"]) for stage in shown["objective"]] == [("sft", 2), ("ppo", 2)]
    AutoModelForCausalLM.from_pretrained(run.model)


@pytest.mark.slow
def test_stages_from_python_are_those_of_a_configuration(config: Config, rows: list[dict[str, str]]) -> None:
    """Oracle: the same chain as YAML, every bit; what `align` refuses of stages leaves no file."""
    config["objective"] = [{"name": "sft", "steps": 2}, {"name": "grao", "steps": 1}]
    settings = {k: v for k, v in config["trainer"].items() if k not in ("max_steps", "output_dir")}
    config["trainer"] = {**settings, "output_dir": "run"}

    def from_python(**changes: Any) -> TrainedRun:
        import tiny_rewards

        given = {
            "objective": [Stage(SFT(), 2), Stage(GRAO(), 1)],
            "rewards": [tiny_rewards.vowels],
            "rollout": Rollout(max_new_tokens=4, num_generations=2),
            "monitor": Monitor(kl_every=0, completions_every=0),
            "output_dir": "python",
            "console": Console(file=io.StringIO()),
        }
        return align("base", rows, **{**given, **settings, **changes})

    for changes, message in (
        (
            {"num_train_epochs": 2},
            "objective is a list of stages with 3 steps in total",
        ),
        ({"max_steps": 5}, "objective is a list of stages with 3 steps in total"),
        ({"objective": []}, "objective is an empty list"),
        ({"rewards": []}, "GRAO scores samples, but no rewards are given"),
        (
            {"rollout": Rollout(max_new_tokens=4, num_generations=1)},
            r"num_generations is 1, but objective\[1\] GRAO compares the samples of a group",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            from_python(**changes)
        assert not Path("python").exists()
    described, _ = go(config)
    aligned = from_python()
    left, right = (load_file(run.model / "model.safetensors") for run in (described, aligned))
    assert all(torch.equal(left[name], right[name]) for name in left)
    stages = yaml.safe_load(Path("python/config.yaml").read_text(encoding="utf-8"))["objective"]
    assert [(stage["name"], stage["steps"], stage["learning_rate"]) for stage in stages] == [
        ("sft", 2, None),
        ("grao", 1, None),
    ]


# --- refused before the first step -----------------------------------------------------------------------------------


def test_a_model_directory_without_tokenizer(config: Config) -> None:
    """Oracle: the sentence."""
    for file in Path("base").glob("tokenizer*"):
        file.unlink()
    said = refused(config, "'base' holds no tokenizer")
    assert "name one with model.tokenizer" in said


def test_no_such_model(config: Config) -> None:
    """Oracle: the sentence."""
    config["model"]["path"] = "./bsae"
    refused(config, "model.path='./bsae' looks like a path, but there is no such directory")


def test_a_tokenizer_larger_than_the_embeddings(
    config: Config, workplace: Path, write_model: Callable[..., Path], make_tokenizer: Callable[..., Any]
) -> None:
    """Oracle: the sentence with both sizes: 3 special tokens and 20 words against 16 rows."""
    write_model(workplace / "odd", make_tokenizer([f"w{i}" for i in range(20)]))
    config["model"]["path"] = "odd"
    refused(config, "the tokenizer of 'odd' has 23 tokens, but the model embeds only 16")


def test_a_prompt_that_leaves_no_room_for_an_answer(config: Config) -> None:
    """Oracle: the arithmetic by hand: the longest prompt, row 9, has 4 tokens; 4 + 29 > 32."""
    config["rollout"]["max_new_tokens"] = 29
    said = refused(config, "Row 9 has a prompt of 4 tokens; with rollout.max_new_tokens=29 it exceeds")
    assert (
        "Set data.max_prompt_tokens to 3 with data.overlong 'drop' or 'cut', or lower rollout.max_new_tokens" in said
    )
    config["data"] |= {"max_prompt_tokens": 3, "overlong": "drop"}
    _, said = go(config)  # the remedy works
    assert "dropped 1 too long (first: row 9)" in said


def test_a_held_out_prompt_that_leaves_no_room(config: Config) -> None:
    """Oracle: as above, with an objective that draws no samples in training."""
    config["objective"] = {"name": "sft"}
    config["rollout"]["max_new_tokens"] = 29
    config["evaluation"] = {"data": {"source": "rows.jsonl"}}
    refused(config, "Row 9 has a prompt of 4 tokens; with rollout.max_new_tokens=29 it exceeds")


def test_a_held_out_answer_that_leaves_no_room(config: Config) -> None:
    """Oracle: as above; the setting that is named is the evaluation's own."""
    config["evaluation"] = {"data": {"source": "rows.jsonl"}, "max_new_tokens": 29}
    refused(
        config,
        "Row 9 has a prompt of 4 tokens; with evaluation.max_new_tokens=29 it exceeds",
    )


def test_held_out_rewards_are_asked_for_their_columns_at_once(config: Config) -> None:
    """Oracle: the sentence, also where nothing is sampled in training."""
    config["objective"] = {"name": "sft"}
    config["evaluation"] = {"data": {"source": "rows.jsonl"}, "rewards": [{"path": "tiny_rewards:needs_level"}]}
    refused(config, "reward 'needs_level' needs 'level', which is not a column of the data")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"reference": "a"}, "row 5 of rows.jsonl (rows.jsonl, line 6): no prompt in the columns 'reference'"),
        ({"prompt": None, "reference": "a"}, "row 5 of rows.jsonl (rows.jsonl, line 6): no prompt"),
        ({"prompt": " ", "reference": "a"}, "row 5: the prompt is empty (' ')"),
        ({"prompt": "a"}, "row 5: the reference is missing (column reference"),
        ({"prompt": "a", "reference": None}, "row 5: the reference is missing (column reference"),
        ({"prompt": "a", "reference": ""}, "row 5: the reference is empty ('')"),
    ],
)
def test_a_row_without_what_is_needed(row: dict[str, Any], message: str, config: Config, rows: list[Any]) -> None:
    """Oracle: the sentence, with the row counted from 0 and the line from 1."""
    text = "".join(json.dumps(r) + "\n" for r in [*rows[:5], row, *rows[6:]])
    Path("rows.jsonl").write_text(text, encoding="utf-8")
    assert "rows with a problem: 1 of 12" in refused(config, message)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'[{"prompt": "a"}]', "expected a JSON object, found list"),
        ("rows.jsonl", b"prompt,reference\na,b\n", "line 1: not JSON"),
        ("rows.csv", b"PAR1....", "found a Parquet file. Rename it to .parquet"),
        ("rows.parquet", b'{"prompt": "a"}\n', "ends in .parquet but is text"),
        ("rows.jsonl.gz", b'{"prompt": "a"}\n', "ends in .gz but is text"),
        ("rows.jsonl", b"", "is empty (0 bytes)"),
        ("rows.txt", b"a\n", "has no known extension"),
    ],
)
def test_a_file_that_is_not_what_its_ending_says(name: str, content: bytes, message: str, config: Config) -> None:
    """Oracle: the sentence."""
    Path(name).write_bytes(content)
    config["data"]["source"] = name
    assert name in refused(config, message)


def test_transcripts_with_unlike_prompts(config: Config) -> None:
    """Oracle: the sentence, where the format is told to stop; by default the row is left out."""
    pairs = [("a b", "a b"), ("a b", "c d")]
    row = "\n\nHuman: {}\n\nAssistant: {}"
    lines = [json.dumps({"chosen": row.format(p, "a"), "rejected": row.format(q, "b")}) for p, q in pairs]
    Path("hh.jsonl").write_text("\n".join(lines), encoding="utf-8")
    config["data"] = {"source": "hh.jsonl", "format": "hh", "options": {"on_mismatch": "error"}}
    message = "row 1 of hh.jsonl (hh.jsonl, line 2): chosen and rejected differ before the last answer"
    refused(config, message)
    del config["data"]["options"]
    config["trainer"]["per_device_train_batch_size"] = 1
    _, said = go(config)
    assert "kept 1 of 1 rows" in said


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "tiny_rewards:vowel",
            "'tiny_rewards:vowel': module 'tiny_rewards' has no attribute 'vowel' (nearest: vowels",
        ),
        ("tiny_reward:vowels", "'tiny_reward:vowels': there is no module 'tiny_reward'"),
        ("mathh", "no reward is named 'mathh' (nearest: math, "),
        ("tiny_rewards:__doc__", "'tiny_rewards:__doc__' is a str, not a function or class"),
    ],
)
def test_a_reward_that_cannot_be_loaded(path: str, message: str, config: Config) -> None:
    """Oracle: the sentence, with the nearest name."""
    config["rewards"] = [{"path": path}]
    refused(config, message)


def test_two_rewards_of_one_name(config: Config) -> None:
    """Oracle: the sentence."""
    config["rewards"] = [{"path": "tiny_rewards:vowels"}] * 2
    refused(config, "two reward functions are named 'vowels'. Give one of them another `name`")


def test_a_reward_that_asks_for_a_column_the_data_lacks(config: Config) -> None:
    """Oracle: the sentence, before anything is drawn."""
    config["rewards"] = [{"path": "tiny_rewards:needs_level"}]
    refused(config, "reward 'needs_level' needs 'level', which is not a column of the data")


def test_batches_that_no_row_fills(config: Config) -> None:
    """Oracle: the sentence; transformers would train nothing and call it done."""
    config["data"]["limit"] = 3
    config["trainer"] |= {"dataloader_drop_last": True, "per_device_train_batch_size": 4}
    refused(config, "3 rows do not fill one of 4 prompts. Turn it off")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wandbb", "trainer.report_to names 'wandbb' (did you mean 'wandb'?)"),
        ("neptune", "trainer.report_to names 'neptune', which is not installed. Run pip install neptune"),
    ],
)
def test_a_tracker_that_is_not_there(name: str, message: str, config: Config) -> None:
    """Oracle: the sentence."""
    config["trainer"]["report_to"] = name
    refused(config, message)


def test_every_checkpoint_has_its_log_line(config: Config) -> None:
    """Oracle: steps by hand: every 4 logged, every 3 saved, so that a resumed run starts with an empty meter."""
    config["trainer"] |= {"max_steps": 6, "logging_steps": 4, "save_steps": 3}
    run, _ = go(config)
    assert [line["step"] for line in read_run(run.directory).metrics] == [3, 4, 6]


STAGES = [{"name": "sft", "steps": 2}, {"name": "grpo", "steps": 2}]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"objective": STAGES, "trainer": {"lr_scheduler_type": "cosine_with_min_lr"}},
            "One of min_lr or min_lr_rate should be set",
            id="schedule-without-its-end",
        ),
        pytest.param(
            {
                "objective": STAGES,
                "evaluation": {"data": {"source": "rows.jsonl"}},
                "trainer": {"lr_scheduler_type": "reduce_lr_on_plateau"},
            },
            "lr_scheduler_type reduce_lr_on_plateau depends on more than the step, which stages do not support",
            id="schedule-of-the-loss",
        ),
        pytest.param(
            {"objective": [{**STAGES[0], "steps": 3}, {**STAGES[1], "steps": 3}], "rollout": {"num_iterations": 2}},
            "The stage GRPO has 3 steps, but each rollout serves 2 (num_iterations × num_mini_batches). Give",
            id="steps-of-a-stage",
        ),
        pytest.param(
            {"rollout": {"num_mini_batches": 2}, "trainer": {"max_steps": 5}},
            "The stage GRAO has 5 steps, but each rollout serves 2 (num_iterations × num_mini_batches). Give",
            id="steps",
        ),
        pytest.param(
            {"rollout": {"num_iterations": 2}, "trainer": {"max_steps": 4, "save_steps": 1}},
            "trainer.save_steps is 1, which puts a checkpoint at step 1, in the middle of a rollout",
            id="checkpoints",
        ),
        pytest.param(
            {"rollout": {"num_mini_batches": 7}, "trainer": {"max_steps": 7, "save_steps": 7}},
            "A rollout takes 14 prompts (prompts per step × num_mini_batches), but there are 12 rows",
            id="rows",
        ),
        pytest.param(
            {"objective": {"name": "sft"}, "rollout": {"num_iterations": 2}},
            "num_iterations and num_mini_batches repeat updates on samples, but no stage samples",
            id="nothing-drawn",
        ),
        pytest.param(
            {"objective": [STAGES[0], {"name": "dpo", "steps": 2}]},
            "row 0: the rejected answer is missing (column rejected)",
            id="rejected",
        ),
    ],
)
def test_a_plan_that_does_not_work_out(changes: Config, message: str, config: Config) -> None:
    """Oracle: the sentence; nothing was written."""
    if isinstance(changes.get("objective"), list):
        del config["trainer"]["max_steps"]
    for section, value in changes.items():
        config[section] = {**config[section], **value} if section in ("rollout", "trainer") else value
    refused(config, message)


def test_trainer_settings_that_transformers_refuses(config: Config) -> None:
    """Oracle: transformers' own message names the setting; nothing was written."""
    config["trainer"]["lr_scheduler_type"] = "sideways"
    refused(config, "sideways")


# --- refused at the first step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "tiny_rewards:short",
            r"reward 'short' returned 5 values for 6 completions \(the first was row \d+, sample 0",
        ),
        (
            "tiny_rewards:nan_on_row",
            r"reward 'nan_on_row' returned nan for row 1, sample 0, completion '[a-l <>unk]*'",
        ),
        ("tiny_rewards:inf_everywhere", r"reward 'inf_everywhere' returned inf for row \d+, sample 0, completion '"),
        ("tiny_rewards:raises", r"reward 'raises' raised KeyError: 'no such answer' on row 2, sample 0, completion '"),
    ],
)
def test_a_reward_that_fails_names_itself_the_row_and_the_completion(path: str, message: str, config: Config) -> None:
    """Oracle: the sentence; a sealed checkpoint is there if a step was made before, and no update since."""
    config["rewards"] = [{"path": path}]
    config["trainer"] |= {"max_steps": 6, "save_steps": 1}
    with pytest.raises((ValueError, RuntimeError), match=message):
        go(config)
    steps = [line["step"] for line in read_run(RUN).metrics]
    assert latest_good_checkpoint(RUN).step == len(steps)


# --- directories -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_existing_run_is_neither_overwritten_nor_mixed_up(config: Config) -> None:
    """Oracle: the sentence, and every byte of the run that is there; --overwrite then replaces it."""
    go(config)
    before = {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"run is not empty\. Resume its run \(resume=True, --resume\)"):
        go(config)
    assert {path: path.read_bytes() for path in RUN.rglob("*") if path.is_file()} == before
    config["trainer"]["max_steps"] = 1
    go(config, overwrite=True)
    assert [line["step"] for line in read_run(RUN).metrics] == [1]


@pytest.mark.slow
def test_resume_with_another_configuration_lists_what_differs(config: Config) -> None:
    """Oracle: the keys by hand; those that may change are not listed."""
    go(config)
    config["objective"]["beta"] = 0.3
    config["trainer"] |= {"learning_rate": 0.5, "max_steps": 9}
    config["monitor"]["completions_every"] = 5
    with pytest.raises(ValueError, match="cannot resume run: its configuration differs") as error:
        go(config, resume=True)
    listed = [line.strip() for line in str(error.value).splitlines() if line.startswith("  ")]
    assert listed == [
        "objective.beta: 0.5 in the run, 0.3 now",
        "trainer.learning_rate: 0.01 in the run, 0.5 now",
    ]


def test_nothing_to_resume(config: Config) -> None:
    """Oracle: the sentence."""
    refused(config, "run has no run to resume. Start one without resume", resume=True)


def test_a_foreign_directory_is_not_overwritten(config: Config) -> None:
    """Oracle: the sentence; the file in it is still there."""
    RUN.mkdir()
    (RUN / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ValueError, match="run is not a run directory"):
        go(config, overwrite=True)
    assert (RUN / "thesis.tex").read_text(encoding="utf-8") == "years of work"


def test_a_directory_that_cannot_be_made(config: Config) -> None:
    """Oracle: the sentence: a file stands where a folder is needed."""
    config["trainer"]["output_dir"] = "rows.jsonl/run"
    refused(config, "a file is in the way. Choose another path")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_may_not_be_written(config: Config) -> None:
    """Oracle: the sentence."""
    Path("locked").mkdir(mode=0o500)
    config["trainer"]["output_dir"] = "locked/run"
    refused(config, "cannot be written (Permission denied)")


# --- a full disk -----------------------------------------------------------------------------------------------------


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def safetensors_full(*_: Any, **__: Any) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("where", "fails", "message"),
    [
        pytest.param(
            "transformers.modeling_utils.safe_save_file",
            safetensors_full,
            "Step 3: cannot write the checkpoint",
            id="weights",
        ),
        *(
            pytest.param(where, full, message, id=name, marks=pytest.mark.slow)
            for name, where, message in (
                ("optimizer", "torch.save", "Step 3: cannot write the checkpoint"),
                (
                    "seal",
                    "grao.records.checkpoints.write_atomically",
                    "run/checkpoint-3/sealed.json could not be written",
                ),
                ("metrics", "grao.records.run_directory.append_metrics", "run/metrics.jsonl could not be written"),
                (
                    "completions",
                    "grao.records.run_directory.write_completions",
                    "run/completions could not be written",
                ),
            )
        ),
    ],
)
def test_a_disk_that_fills_up_leaves_the_last_checkpoint_good(
    where: str, fails: Callable[..., None], message: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the sentence and its remedy: with space again, the resumed run is the uninterrupted one, to the bit."""
    config["trainer"] |= {"max_steps": 4, "save_steps": 1}
    go({**config, "trainer": {**config["trainer"], "output_dir": "whole"}})
    with monkeypatch.context() as patch:
        _fail_after_step_2(patch, where, fails)
        with pytest.raises(OSError, match=re.escape(message)) as error:
            go(config)
    assert "checkpoint-2" in str(error.value)
    assert "free some space" in str(error.value).lower()
    assert latest_good_checkpoint(RUN).step == 2
    go(config, resume=True)
    left, right = (load_file(f"{name}/model/model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(left[name], right[name]) for name in left)
    lines = [
        [
            {k: v for k, v in line.items() if "time" not in k and "seconds" not in k}
            for line in read_run(Path(n)).metrics
        ]
        for n in ("whole", "run")
    ]
    assert lines[0] == lines[1]


def _fail_after_step_2(patch: pytest.MonkeyPatch, where: str, fails: Callable[..., None]) -> None:
    """Let `where` fail from the moment the checkpoint of step 2 is sealed."""
    import importlib

    module, _, name = where.rpartition(".")
    works = getattr(importlib.import_module(module), name)

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        return (fails if (RUN / "checkpoint-2" / "sealed.json").exists() else works)(*args, **kwargs)

    patch.setattr(where, sometimes)


@pytest.fixture
def small_disk(workplace: Path) -> Iterator[Path]:
    """A file system of 600 KiB, where it may be mounted."""
    place = workplace / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full(config: Config, small_disk: Path) -> None:
    """Oracle: three checkpoints of about 250 KiB do not fit; the second is good, and with room the run goes on."""
    config["trainer"] |= {"max_steps": 5, "save_steps": 1, "save_total_limit": None, "output_dir": "small/run"}
    with pytest.raises(OSError, match=r"Step 3: cannot write the checkpoint .* the last good checkpoint is "):
        go(config)
    assert latest_good_checkpoint(small_disk / "run").step == 2
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    run, said = go(config, resume=True)
    assert "skipping checkpoint-3" in said
    assert run.trainer.state.global_step == 5


# --- what is shown ---------------------------------------------------------------------------------------------------


def test_the_table_shows_best_worst_and_reference() -> None:
    """Oracle: by hand: an unscored sample is the worst, never a 0; long texts are cut to the width."""
    samples = (
        Member((1,), "middling", "stop", reward=0.5),
        Member((1,), "x" * 50, "stop", reward=1.0),
        Member((1,), "silent", "stop", reward=None),
    )
    group = Group(0, [{"role": "user", "content": "why?"}], (3,), samples, Member((1,), "because", reward=0.25))
    said = io.StringIO()
    Console(file=said, width=120).print(completions_table([group], "step 3", width=20))
    shown = said.getvalue()
    lines = [line for line in shown.splitlines() if any(kind in line for kind in ("best", "worst", "reference"))]
    assert "step 3" in shown
    assert ["why?" in line for line in lines] == [True, False, False]
    assert "x" * 19 + "…" in lines[0]
    assert "1.00" in lines[0]
    assert "silent" in lines[1]
    assert "unscored" in lines[1]
    assert "because" in lines[2]
    assert "0.25" in lines[2]


def test_the_summary_averages_over_five_lines_where_there_are_ten(tmp_path: Path) -> None:
    """Oracle: means of 0…4 and 7…11 by hand; with few lines the first and the last; evaluations never averaged."""
    file = tmp_path / "metrics.jsonl"
    lines: list[dict[str, Any]] = [{"step": i, "reward": i} for i in range(12)]
    lines += [{"step": 3, "eval_reward": 1.0}, {"step": 9, "eval_reward": 2.0}, {"step": 1, "kl": 0.5}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert [line.split() for line in summary_lines(file)] == [
        ["reward", "2.000", "→", "9.000"],
        ["kl", "0.500", "→", "0.500"],
        ["eval_reward", "1.000", "→", "2.000"],
    ]


@pytest.mark.slow
def test_the_tokenizer_travels_with_the_model(config: Config, tokenizer: PreTrainedTokenizerFast) -> None:
    """Oracle: the saved tokenizer encodes as the one that was given."""
    from transformers import AutoTokenizer

    run, _ = go(config)
    saved = AutoTokenizer.from_pretrained(run.model)
    assert saved("a b l k")["input_ids"] == tokenizer("a b l k")["input_ids"]
