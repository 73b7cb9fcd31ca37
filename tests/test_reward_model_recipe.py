"""`recipes/train_reward_model.py`: it trains on what scores are read from, and what it says of itself is true."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from grao.configuration import load_yaml
from grao.data import DataSource, Example
from grao.dotted_path import import_path
from grao.rewards import load_reward

pytest.importorskip("trl")
ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "recipes" / "train_reward_model.py"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
recipe = import_path(f"{SCRIPT}:main").__globals__


def rows(n: int, *, messages: bool = False) -> list[dict[str, Any]]:
    """Pairs that differ in their last word: "yes" was chosen."""
    texts = [f"question {i}?" for i in range(n)]
    prompts: list[Any] = [[{"role": "user", "content": text}] for text in texts] if messages else texts
    answers = [(f" well {i % 7} yes", f" well {i % 7} no") for i in range(n)]
    return [{"prompt": p, "chosen": c, "rejected": r} for p, (c, r) in zip(prompts, answers, strict=True)]


@pytest.fixture
def place(tmp_path: Path, write_bpe_model: Callable[..., Path]) -> Path:
    """A folder with a random base and rows to train on and to hold out."""
    write_bpe_model(tmp_path / "base", ["question yes no well"], 280)
    for name, count in (("train", 96), ("test", 20)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count))
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def settings(place: Path, **trainer: Any) -> list[str]:
    """Flags that move the HH recipe to this folder."""
    given = {
        "output": place / "judge",
        "model.path": place / "base",
        "model.max_length": 48,
        "data": f"{{source: {place / 'train.jsonl'}}}",
        "held_out": f"{{source: {place / 'test.jsonl'}}}",
        **{f"trainer.{key}": value for key, value in {"use_cpu": "true", "disable_tqdm": "true", **trainer}.items()},
    }
    return [part for key, value in given.items() for part in (f"--{key}={value}",)]


def main(*flags: str) -> int:
    return recipe["main"]([str(ROOT / "recipes" / "hh-reward-model.yaml"), *flags])


@pytest.mark.slow
def test_pairs_that_can_be_told_apart_are_and_the_record_says_how_well(place: Path, capsys) -> None:
    """Oracle: the rows: "yes" was chosen, 20 of 20, whose interval is [0.839, 1]; the saved model's own scores."""
    assert main(*settings(place, learning_rate=3e-3, num_train_epochs=2)) == 0
    assert "1.000 [0.839, 1.000] (n=20); 50 % is outside" in capsys.readouterr().out
    record = json.loads((place / "judge" / "reward_model.json").read_text(encoding="utf-8"))
    assert record["held_out"]["right"] == 20
    assert record["training"]["pairs"] == 96
    assert record["training"]["steps"] == 24
    assert record["held_out_prompts_in_training"] == 20
    reward = load_reward(str(place / "judge"), {"device": "cpu"}).call
    better, worse = reward(prompts=["question 3?"] * 2, completions=[" well 3 yes", " well 3 no"])
    assert better - worse == pytest.approx(record["held_out"]["mean_margin"], rel=0.5)
    assert reward.max_length == 48


@pytest.mark.parametrize(("messages", "longest"), [(False, 96), (True, 96), (False, 8), (True, 8)])
def test_training_reads_the_tokens_that_scoring_reads(place: Path, messages: bool, longest: int) -> None:
    """Oracle: what the model is given, caught at its door, while TRL trains and while a loaded copy scores; and the
    texts by hand, of which eight tokens remain in the last two.
    """
    if messages:
        tokenizer = AutoTokenizer.from_pretrained(place / "base")
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(place / "base")
    config = recipe["build"](
        recipe["RewardModelConfig"],
        {
            "output": str(place / "judge"),
            "model": {"path": str(place / "base"), "max_length": longest},
            "data": {"source": str(place / "train.jsonl")},
            "held_out": {"source": str(place / "test.jsonl")},
            "trainer": {"max_steps": 1, "per_device_train_batch_size": 6, "use_cpu": True, "disable_tqdm": True},
        },
    )
    pairs = recipe["Pairs"].of(DataSource(rows(6, messages=messages)).load(), "rows")  # type: ignore[arg-type]
    reader = recipe["new_reward_model"](config)
    caught = catch(reader.model)
    recipe["RewardTrainer"](
        model=reader.model,
        args=recipe["trl_arguments"](config),
        train_dataset=recipe["tokenised"](reader, pairs),
        processing_class=reader.tokenizer,
    ).train()
    recipe["save"](reader, place / "judge")
    trained = set(caught)
    reward = load_reward(str(place / "judge"), {"device": "cpu"}).call
    scored = catch(reward.model)
    recipe["measure"](reward, pairs)
    assert len(trained) == 12
    assert trained == set(scored)
    answers = [f" well {i} {word}" for i in range(6) for word in ("yes", "no")]
    prompts = [f"question {i}?" for i in range(6) for _ in range(2)]
    form = "[user]{}\n[assistant]{}\n" if messages else "{}{}"
    whole = sorted(form.format(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))
    read = sorted(reward.tokenizer.decode(ids) for ids in trained)
    assert read == whole if longest == 96 else {len(ids) for ids in trained} == {8}


def catch(model: torch.nn.Module) -> list[tuple[int, ...]]:
    """The ids of each text that the model is given from now on, without padding."""
    seen: list[tuple[int, ...]] = []

    def look(_: Any, __: Any, given: dict[str, torch.Tensor]) -> None:
        texts = zip(given["input_ids"], given["attention_mask"].bool(), strict=True)
        seen.extend(tuple(ids[mask].tolist()) for ids, mask in texts)

    model.register_forward_pre_hook(look, with_kwargs=True)
    return seen


def test_accuracy_counts_ties_as_wrong() -> None:
    """Oracle: by hand: margins 1, 0, −1, 2; Wilson's interval of 2 of 4 is [0.150, 0.850]."""
    found = recipe["PairAccuracy"].of([2.0, 1.0, 0.0, 2.0], [1.0, 1.0, 1.0, 0.0])
    assert (found.right, found.ties, found.mean_margin) == (2, 1, 0.5)
    assert str(found) == "0.500 [0.150, 0.850] (n=4); 50 % is inside"
    assert found.reward_std == pytest.approx(0.7071, abs=1e-4)  # of 2, 1, 0, 2, 1, 1, 1, 0


def test_rows_without_a_pair_are_refused() -> None:
    """Oracle: the messages, read: the first such row, and how many."""
    examples = [Example(0, "a", "b", "c"), Example(3, "a", "b"), Example(4, "a", "b")]
    with pytest.raises(ValueError, match=r"rows.jsonl: 2 of 3 rows have no rejected answer \(first: row 3\)"):
        recipe["Pairs"].of(examples, "rows.jsonl")
    with pytest.raises(ValueError, match=r"1 of 1 rows have no chosen answer \(first: row 5\)"):
        recipe["Pairs"].of([Example(5, "a", None, "c")], "rows.jsonl")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--trainer.max_length", "9"], "trainer.max_length cannot be set here. Set model.max_length"),
        (["--trainer.learning_rat", "1"], "unexpected keyword argument 'learning_rat'.*fields of trl.RewardConfig"),
        (["--model.max_lenght", "9"], "did you mean model.max_length"),
        (["--data.source", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_settings_that_do_not_fit_are_told(flags: list[str], message: str, place: Path, capsys) -> None:
    """Oracle: the messages, read; nothing is written."""
    assert main(*settings(place), *flags) == 1
    printed = capsys.readouterr().err
    assert re.search(message, printed), printed
    assert not (place / "judge").exists()


def test_nothing_foreign_is_written_over(place: Path, capsys) -> None:
    """Oracle: the message, read, and the file as it was."""
    (place / "judge").mkdir()
    (place / "judge" / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert main(*settings(place)) == 1
    assert "is not empty and has no reward_model.json" in capsys.readouterr().err
    assert [path.name for path in (place / "judge").iterdir()] == ["thesis.txt"]


def test_without_trl_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the message, read."""
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(SystemExit, match=r'pip install "grao\[reward\]"'):
        runpy.run_path(str(SCRIPT))


def test_the_recipe_names_what_the_base_recipe_makes() -> None:
    """Oracle: the base recipe's own output."""
    given = load_yaml(ROOT / "recipes" / "hh-reward-model.yaml")
    assert given["model"]["path"] == load_yaml(ROOT / "recipes" / "hh-base.yaml")["output"]
    assert recipe["build"](recipe["RewardModelConfig"], given).output == "models/hh-reward-model"
