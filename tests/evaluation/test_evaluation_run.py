"""Evaluations of small models in this process: draws, scores, files and output."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from rich.console import Console

from grao.configuration import build
from grao.data import Encoder, load_examples
from grao.evaluation import EvaluateConfig, EvaluationResult, Item, evaluate, heldout_metrics, summarise
from grao.evaluation.items_file import read_items
from grao.groups import collate
from grao.policy import ModelConfig, group_logprobs, load_policy
from grao.rewards import RewardError
from grao.rollout import LocalEngine, SampleRequest, SamplingParams, draw_seed

Mapping = dict[str, Any]

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}@{{ m.content }}@{% endfor %}"
    "{% if add_generation_prompt %}assistant@{% endif %}"
)


def go(described: Mapping, **options: Any) -> tuple[EvaluationResult, str]:
    """Run it; return the result and the output."""
    output = io.StringIO()
    found = evaluate(build(EvaluateConfig, described), console=Console(file=output, width=200), **options)
    return found, output.getvalue()


def asked() -> Counter[str]:
    """Count how often the counting scorer scored each prompt."""
    file = Path("asked.txt")
    return Counter(file.read_text(encoding="utf-8").splitlines()) if file.exists() else Counter()


def contents(folder: Path) -> dict[str, bytes]:
    """Read every items file and evaluation.json."""
    files = [*sorted((folder / "items").rglob("*.parquet")), folder / "evaluation.json"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


# --- draws and scores ------------------------------------------------------------------------------------------------


def test_answers_are_drawn_with_the_same_keyed_seeds_for_every_model(described: Mapping) -> None:
    """Oracle: the engine, asked here for one prompt at a time with seeds from the definition."""
    found, _ = go(described)
    for name in ("base", "moved"):
        policy = load_policy(ModelConfig(f"models/{name}"))
        engine = LocalEngine(policy.model, policy.tokenizer)
        params = SamplingParams(max_new_tokens=8, temperature=0.7)
        rows = Encoder(policy.tokenizer).encode_all(load_examples("rows.jsonl"))[0]
        expected = []
        for row in rows:
            seeds = tuple(draw_seed(0, 0, row.example.row, sample) for sample in range(2))
            [members] = engine.sample([SampleRequest(row.prompt_ids, seeds)], params)
            expected += [(row.example.row, n, m.text, len(m.ids), m.finish) for n, m in enumerate(members)]
        assert [(i.row, i.sample, i.answer, i.tokens, i.finish) for i in found.items[name]] == expected


def test_scores_are_the_rewards_own(described: Mapping, scorer: Callable[[str], str]) -> None:
    """Oracle: the share of vowels counted here, with weights by hand; None where a scorer says so."""
    described["rewards"] = [{"path": scorer("vowels"), "weight": 2.0}, {"path": scorer("picky"), "weight": 0.5}]
    found, _ = go(described)
    for item in found.items["moved"]:
        share, reference = (sum(c in "aeiou" for c in t) / max(len(t), 1) for t in (item.answer, item.reference or ""))
        known = None if item.row % 2 else 1.0
        assert dict(item.scores) == {"vowels": share, "picky": known}
        assert dict(item.reference_scores) == {"vowels": reference, "picky": known}
        assert item.reward == 2 * share + (known or 0) * 0.5
        assert item.reference_reward == 2 * reference + (known or 0) * 0.5


def test_a_comparison_gives_the_reference_zero(described: Mapping, scorer: Callable[[str], str]) -> None:
    """Oracle: R(y, y) = 0 by definition; lengths compared here."""
    described["rewards"] = [{"path": scorer("longer")}]
    found, _ = go(described)
    for item in found.items["base"]:
        own, other = len(item.answer), len(item.reference or "")
        assert (item.reward, item.reference_reward) == ((own > other) - (own < other), 0)


def test_the_kl_is_the_mean_of_k3_over_a_fresh_answer(described: Mapping) -> None:
    """Oracle: Σ r − 1 − log r from the two models' log-probs of an answer drawn here, prompt by prompt."""
    described["data"]["limit"] = 5
    found, _ = go(described)
    policy, base = (load_policy(ModelConfig(f"models/{name}")) for name in ("moved", "base"))
    engine = LocalEngine(policy.model.eval(), policy.tokenizer)
    rows = Encoder(policy.tokenizer).encode_all(load_examples("rows.jsonl", limit=5))[0]
    expected = []
    for row in rows:
        request = SampleRequest(row.prompt_ids, (draw_seed(0, 1, row.example.row, 0),))
        [samples] = engine.sample([request], SamplingParams(max_new_tokens=8))
        group = row.as_group()
        batch = collate([type(group)(group.row, group.prompt, group.prompt_ids, samples)], pad_token_id=0)
        with torch.no_grad():
            ours, theirs = (group_logprobs(p.model.eval(), batch).logprobs_PMT.double() for p in (policy, base))
        ratio = (theirs - ours)[batch.mask_PMT]
        expected.append(float((ratio.exp() - 1 - ratio).sum()))
    first = [item for item in found.items["moved"] if item.sample == 0]
    assert [item.kl for item in first] == pytest.approx(expected, rel=1e-4)
    assert [item.kl for item in found.items["moved"] if item.sample == 1] == [None] * 5
    assert found.summaries["moved"].all.kl.value == pytest.approx(sum(expected) / 5, rel=1e-4)
    assert found.summaries["base"].all.kl.reason == "it is the base"


def test_a_model_that_did_not_move(described: Mapping) -> None:
    """Oracle: the same weights and seeds give the same answers: NAG, gain and KL are 0 exactly."""
    described["models"][1]["path"] = "models/base"
    found, _ = go(described)
    figures = found.summaries["moved"].all
    assert (figures.nag.value, figures.gain.value, figures.kl.value) == (0, 0, 0)


def test_figures_are_those_of_the_items(described: Mapping) -> None:
    """Oracle: `summarise` of the items that the directory's parquet files hold."""
    described |= {"k": [1, 2], "verifiable": ["counted"]}
    found, _ = go(described)
    items = {name: read_items(Path("evaluation/items") / f"{name}.parquet") for name in ("base", "moved")}
    assert items == {name: list(own) for name, own in found.items.items()}
    expected = summarise(items["moved"], items["base"], verifiable=["counted"], k=[1, 2])
    written = json.loads(Path("evaluation/evaluation.json").read_bytes())
    assert written["models"]["moved"]["summary"] == json.loads(json.dumps(expected.as_dict()))
    assert list(found.summaries["moved"].by_category) == ["even", "odd"]


# --- files -----------------------------------------------------------------------------------------------------------


def test_pandas_reads_the_answers(described: Mapping) -> None:
    """Oracle: the columns by hand, and the numbers of the items."""
    found, _ = go(described)
    table = pd.read_parquet("evaluation/items/moved.parquet")
    assert list(table.columns) == [
        *("row", "sample", "prompt", "reference", "answer", "category", "tokens", "finish"),
        *("reward", "reference_reward", "kl", "score/counted", "reference_score/counted"),
    ]
    assert table["reward"].tolist() == [item.reward for item in found.items["moved"]]
    assert table["category"].tolist() == ["odd" if row % 2 else "even" for row in table["row"]]


def test_extras_and_accounting_are_stored(described: Mapping, scorer: Callable[[str], str]) -> None:
    """Oracle: the first letter of each answer; 30 members a model in three calls, by hand: 12, 12 and 6."""
    described["rewards"] = [{"path": scorer("noting")}]
    go(described)
    table = pd.read_parquet("evaluation/items/moved.parquet")
    assert table["extra/first"].tolist() == [text[:1] for text in table["answer"]]
    written = json.loads(Path("evaluation/evaluation.json").read_bytes())
    assert written["models"]["moved"]["accounting"] == {
        "judge/cached_share": {"total": 1.5, "mean": 0.5},
        "judge/requests": {"total": 30.0, "mean": 10.0},
        "rewards/noting/errors": {"total": 0.0, "mean": 0.0},
    }


def test_odd_categories_survive(described: Mapping) -> None:
    """Oracle: the categories of the rows, in JSON; half a surrogate pair, which no file can hold, is its escape."""
    odd = ["\x00", "🙂 e\u0301", "\ud83d"]
    rows = [{"prompt": f"row {i}", "reference": "a", "category": category} for i, category in enumerate(odd)]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    go(described)
    written = json.loads(Path("evaluation/evaluation.json").read_bytes())
    found = written["models"]["moved"]["summary"]["by_category"]
    assert sorted(found) == sorted(["\x00", "🙂 e\u0301", "\\ud83d"])


@pytest.mark.slow
def test_the_same_again_only_prints(described: Mapping, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the files byte for byte, the counting scorer, and a loader that must not be called."""
    _, first = go(described)
    before, counted = contents(Path("evaluation")), asked()

    def refused(*arguments: Any) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("grao.evaluation.answer_generation.load_policy", refused)
    _, again = go(described)
    assert contents(Path("evaluation")) == before
    assert asked() == counted
    assert [line for line in first.splitlines() if "every answer is scored" not in line] == again.splitlines()


def test_every_answer_is_scored_once(described: Mapping) -> None:
    """Oracle: ten prompts, two models, two answers and a reference each: six times each, counted by the scorer."""
    go(described)
    assert asked() == Counter({f"row {i} has a question": 6 for i in range(10)})


@pytest.mark.slow
def test_a_model_that_is_added_leaves_the_others_alone(described: Mapping) -> None:
    """Oracle: the counting scorer, and an evaluation of all three from the start."""
    models = described["models"]
    described["models"] = models[:1]
    go(described)
    before = contents(Path("evaluation"))
    described["models"] = models
    go(described)
    assert asked() == Counter({f"row {i} has a question": 6 for i in range(10)})
    after = contents(Path("evaluation"))
    assert {name: after[name] for name in before if name != "evaluation.json"} == {
        name: content for name, content in before.items() if name != "evaluation.json"
    }
    described["output_dir"] = "at-once"
    go(described)
    assert [c for n, c in contents(Path("at-once")).items() if n != "evaluation.json"] == [
        c for n, c in after.items() if n != "evaluation.json"
    ]


@pytest.mark.slow
def test_a_model_that_is_taken_out_may_come_back(described: Mapping) -> None:
    """Oracle: the counting scorer: its stored answers were used."""
    go(described)
    counted, models = asked(), described["models"]
    described["models"] = models[:1]
    found, _ = go(described)
    assert list(found.summaries) == ["base"]
    described["models"] = models
    go(described)
    assert asked() == counted


@pytest.mark.slow
def test_overwrite_starts_over(described: Mapping) -> None:
    """Oracle: the counting scorer, twice as much; the same items."""
    go(described)
    before = contents(Path("evaluation"))
    go(described, overwrite=True)
    assert contents(Path("evaluation")) == before
    assert set(asked().values()) == {12}


@pytest.mark.slow
def test_another_seed_gives_other_answers(described: Mapping) -> None:
    """Oracle: none of the two sets of answers is the other; the configuration that differs is refused by its key."""
    first, _ = go(described)
    described["sampling"]["seed"] = 1
    with pytest.raises(ValueError, match=r"sampling\.seed: 0 in the run, 1 now"):
        go(described)
    described["output_dir"] = "other"
    second, _ = go(described)
    assert [i.answer for i in first.items["base"]] != [i.answer for i in second.items["base"]]


def test_metrics_can_be_recomputed_with_other_settings(described: Mapping) -> None:
    """Oracle: k and verifiable change no answer: nothing is scored again."""
    go(described)
    counted = asked()
    found, _ = go({**described, "k": [2], "verifiable": ["counted"]})
    assert list(found.summaries["base"].all.accuracy["counted"].pass_at) == [2]
    assert asked() == counted


@pytest.mark.slow
def test_a_scorer_that_fails_leaves_what_is_stored(described: Mapping, scorer: Callable[[str], str]) -> None:
    """Oracle: the message; then the same items as without the failure, and no stored answer asked about again."""
    described["rewards"] = [{"path": scorer("outage"), "name": "judge"}]
    Path("down").touch()
    with pytest.raises(RewardError, match=r"(?s)no reply.*Scoring base failed with 1 of 3 parts stored") as raised:
        go(described)
    assert "Run the same command again to continue: stored answers are not scored again" in str(raised.value)
    Path("down").unlink()
    go(described)
    assert asked()["row 0 has a question"] == 6
    resumed = contents(Path("evaluation"))
    described["output_dir"] = "whole"
    go(described)
    assert {n: c for n, c in contents(Path("whole")).items() if n != "evaluation.json"} == {
        n: c for n, c in resumed.items() if n != "evaluation.json"
    }


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_weights_that_changed_are_refused(described: Mapping) -> None:
    """Oracle: the message; touching or moving a file changes nothing, its content does."""
    Path("mine").mkdir()
    for file in Path("models/moved").iterdir():
        shutil.copy(file, "mine")
    described["models"][1]["path"] = "mine"
    go(described)
    weights = Path("mine/model.safetensors")
    weights.touch()
    Path("mine").rename("yours")
    described["models"][1]["path"] = "yours"
    go(described)
    content = bytearray((Path("yours") / weights.name).read_bytes())
    content[-1] ^= 1
    (Path("yours") / weights.name).write_bytes(content)
    with pytest.raises(ValueError, match=r"a model named 'moved' .*\n  model/model.safetensors has changed"):
        go(described)
    described["models"][1] |= {"name": "third", "dtype": "bfloat16"}
    go(described)
    described["models"][1]["dtype"] = "float32"
    with pytest.raises(ValueError, match="dtype was 'bfloat16' and is 'float32'"):
        go(described)


def test_a_model_without_answers_may_still_change(described: Mapping, scorer: Callable[[str], str]) -> None:
    """Oracle: nothing of it is stored when its first part fails, so there is nothing to protect: the run goes on."""
    described |= {"models": [{"name": "mine", "path": "models/base"}], "rewards": [{"path": scorer("outage")}]}
    described["batch"] = 10
    Path("down").touch()
    with pytest.raises(RewardError, match="Scoring mine failed with 0 of 1 parts stored"):
        go(described)
    Path("down").unlink()
    described["models"][0]["path"] = "models/moved"
    found, _ = go(described)
    assert len(found.items["mine"]) == 20


def test_a_base_that_changed_takes_the_kl_with_it(described: Mapping) -> None:
    """Oracle: the message for the other model, whose KL was measured to it."""
    shutil.copytree("models/base", "mine")
    described["models"][0]["path"] = "mine"
    described["output_dir"] = "one"
    go(described)
    shutil.rmtree("one/items/base")
    shutil.copy("models/moved/model.safetensors", "mine/model.safetensors")
    with pytest.raises(ValueError, match=r"named 'moved' .*\n  the base that the KL is measured to has changed"):
        go(described)


def test_rows_that_changed_are_refused(described: Mapping) -> None:
    """Oracle: the message; the file has its old name and length."""
    go(described)
    text = Path("rows.jsonl").read_text(encoding="utf-8")
    Path("rows.jsonl").write_text(text.replace("row 3", "row 8"), encoding="utf-8")
    with pytest.raises(ValueError, match="the rows of the data have changed"):
        go(described)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_training_run_is_not_written_over(described: Mapping, overwrite: bool) -> None:
    """Oracle: the message, and the directory as it was."""
    run = Path("evaluation")
    run.mkdir()
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"path": "base"}}), encoding="utf-8")
    (run / ".grao-run").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation holds a training run, not an evaluation\. Choose another"):
        go(described, overwrite=overwrite)
    assert sorted(path.name for path in run.iterdir()) == [".grao-run", "config.yaml"]


def test_a_directory_with_other_files_is_not_written_into(described: Mapping) -> None:
    """Oracle: the message."""
    Path("evaluation").mkdir()
    Path("evaluation/thesis.tex").touch()
    with pytest.raises(ValueError, match="evaluation is not empty and holds no evaluation"):
        go(described)


def test_killed_while_the_directory_was_made(described: Mapping) -> None:
    """Oracle: all that a kill at that moment leaves: no configuration; the evaluation runs."""
    Path("evaluation").mkdir()
    Path("evaluation/.grao-run").touch()
    Path("evaluation/.environment.json.tmp").touch()
    go(described)
    assert not Path("evaluation/.environment.json.tmp").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": [{"name": "a", "path": "models/none"}]}, "model 'a': cannot load a tokenizer from model.path"),
        ({"models": [{"name": "a", "path": "./none"}]}, "model 'a': model.path='./none' looks like a path, but there"),
        ({"data": {"source": "none.jsonl"}}, "no file or folder 'none.jsonl'"),
        ({"data": {"source": "empty.jsonl"}}, "empty.jsonl is empty"),
        ({"rewards": [{"path": "exact_mach"}]}, "no reward is named 'exact_mach' .nearest: exact_match"),
        (
            {"verifiable": ["conted"]},
            r"names 'conted' \(did you mean 'counted'\?\); the rewards are counted",
        ),
        (
            {"category_column": "categry"},
            r"'categry', which is no column of the data \(did you mean 'category'\?\); it has category",
        ),
        ({"sampling": {"max_new_tokens": 600}}, "model 'base': sampling.max_new_tokens=600 leaves no room"),
        (
            {"sampling": {"max_new_tokens": 500}},
            r"model 'base': row 0: the prompt has \d+ tokens, the limit is 12 .*context of 512 tokens minus sampl",
        ),
    ],
)
def test_errors_come_before_any_weights(
    changes: Mapping, message: str, described: Mapping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the message; nothing is loaded and no directory is made."""
    Path("empty.jsonl").touch()
    monkeypatch.delattr("grao.evaluation.answer_generation.load_policy")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        go({**described, **changes})
    assert not Path("evaluation").exists()


def test_a_comparison_without_reference_is_refused_at_once(described: Mapping, scorer: Callable[[str], str]) -> None:
    """Oracle: the message; no directory is made."""
    Path("rows.jsonl").write_text('{"prompt": "row 0"}\n', encoding="utf-8")
    described["rewards"] = [{"path": scorer("longer")}]
    with pytest.raises(ValueError, match="reward 'longer' compares with the reference answer, but row 0 has none"):
        go(described)
    assert not Path("evaluation").exists()


def test_without_references_there_is_no_ras(described: Mapping) -> None:
    """Oracle: RAS is a figure without value that says why; the mean reward is there."""
    Path("rows.jsonl").write_text('{"prompt": "row 0 has a question"}\n', encoding="utf-8")
    found, _ = go(described)
    figures = found.summaries["moved"].all
    assert (figures.ras.value, figures.ras.reason) == (None, "no answer and its reference are both scored")
    assert figures.reward.mean.value is not None
    assert figures.nag.value is not None


@pytest.mark.slow
def test_a_run_directory_stands_for_its_model(described: Mapping) -> None:
    """Oracle: the answers of the model itself; a run that is not finished names what can be evaluated of it."""
    run = Path("runs/first")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("model: {path: models/base}\n", encoding="utf-8")
    described["models"][1]["path"] = str(run)
    with pytest.raises(ValueError, match=r"'moved': the run runs/first has no runs/first/model yet. Resume the run$"):
        go(described)
    shutil.copytree("models/moved", run / "checkpoint-2")
    with pytest.raises(ValueError, match=r"Resume the run, or name a checkpoint: runs/first/checkpoint-2$"):
        go(described)
    (run / "checkpoint-2").rename(run / "model")
    found, _ = go(described)
    described |= {"output_dir": "other"}
    described["models"][1]["path"] = "models/moved"
    expected, _ = go(described)
    assert found.items == expected.items


# --- different models ------------------------------------------------------------------------------------------------


def test_other_tokens_mean_no_kl(described: Mapping) -> None:
    """Oracle: the reason, in the figures, the JSON and the output; every other figure is there."""
    described["models"].append({"name": "words", "path": "models/words"})
    found, output = go(described)
    figures = found.summaries["words"].all
    reason = "its vocabulary differs from that of base"
    assert (figures.kl.value, figures.kl.reason) == (None, reason)
    assert f"words: no KL: {reason}" in output
    written = json.loads(Path("evaluation/evaluation.json").read_bytes())
    assert written["models"]["words"]["summary"]["all"]["kl"]["reason"] == reason
    assert figures.nag.value is not None
    assert [item.kl for item in found.items["words"]] == [None] * 20


def test_the_same_tokens_under_another_name_have_a_kl(described: Mapping) -> None:
    """Oracle: a copy of the tokenizer elsewhere: tokens are compared, not names."""
    shutil.copytree("models/base", "elsewhere")
    described["models"][1] |= {"tokenizer": "elsewhere"}
    found, _ = go(described)
    assert found.summaries["moved"].all.kl.value is not None


def test_a_chat_template_of_its_own_means_no_kl(described: Mapping) -> None:
    """Oracle: the template's text in front of the answer changes what is answered; the reason names the base."""
    shutil.copytree("models/base", "chat")
    file = Path("chat/tokenizer_config.json")
    config = json.loads(file.read_bytes())
    config["chat_template"] = TEMPLATE.replace("@", "|")
    file.write_text(json.dumps(config), encoding="utf-8")
    config["chat_template"] = TEMPLATE.replace("@", "/")
    shutil.copytree("models/base", "other-chat")
    Path("other-chat/tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    described["models"] = [{"name": "base", "path": "chat"}, {"name": "other", "path": "other-chat"}]
    described["data"]["chat_template"] = "always"
    found, _ = go(described)
    assert found.summaries["other"].all.kl.reason == "it tokenizes prompts differently from base (such as row 0)"


@pytest.mark.slow
def test_rows_too_long_for_one_model_are_left_out_for_all(described: Mapping) -> None:
    """Oracle: the rows by hand (two long prompts among ten), counted and reported; others' answers to them stay."""
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text(encoding="utf-8").splitlines()]
    for i in (2, 7):
        rows[i]["prompt"] = f"row {i} has a question that goes on and on and on and on and on and on and on"
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    described["models"].append({"name": "short", "path": "models/short"})
    with pytest.raises(ValueError, match=r"model 'short': row 2: the prompt has \d+ tokens, the limit is 32"):
        go(described)
    described["data"]["overlong"] = "drop"
    found, output = go(described)
    expected = [row for row in range(10) if row not in (2, 7) for _ in range(2)]
    assert {name: [item.row for item in items] for name, items in found.items.items()} == dict.fromkeys(
        ("base", "moved", "short"), expected
    )
    assert found.summaries["base"].all.prompts == 8
    assert "left out for all models: 2 of 10 rows, too long for short (2)" in output
    written = json.loads(Path("evaluation/evaluation.json").read_bytes())
    assert written["rows"] == {"compared": 8, "too_long": {"short": [2, 7]}}
    counted = asked()
    described["models"].pop()
    found, _ = go(described)
    assert found.summaries["base"].all.prompts == 10
    assert asked() == counted


def test_no_row_that_all_can_read(described: Mapping) -> None:
    """Oracle: the message."""
    Path("rows.jsonl").write_text(json.dumps({"prompt": "row 0 " + "on and " * 20}) + "\n", encoding="utf-8")
    described["models"].append({"name": "short", "path": "models/short"})
    described["data"]["overlong"] = "drop"
    with pytest.raises(ValueError, match=r"model 'short': .*all 1 rows are too long"):
        go(described)


@pytest.mark.slow
def test_trained_adapters_are_a_model(described: Mapping) -> None:
    """Oracle: the model that they were trained on, with their product added to its weights here."""
    from grao.policy import LoRA

    policy = load_policy(ModelConfig("models/base", lora=LoRA(r=2, alpha=4)))
    torch.manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    policy.model.save_pretrained("adapters")
    policy.tokenizer.save_pretrained("adapters")
    policy.model.merge_and_unload().save_pretrained("merged")
    policy.tokenizer.save_pretrained("merged")
    described["models"] = [
        {"name": "base", "path": "models/base"},
        {"name": "adapters", "path": "adapters"},
        {"name": "merged", "path": "merged"},
    ]
    found, _ = go(described)
    assert [i.answer for i in found.items["adapters"]] == [i.answer for i in found.items["merged"]]
    kl = [found.summaries[name].all.kl.value for name in ("adapters", "merged")]
    assert kl[0] == pytest.approx(kl[1], rel=1e-3)
    assert kl[0] > 0


# --- metrics while training ------------------------------------------------------------------------------------------


def test_held_out_metrics_are_the_figures(described: Mapping) -> None:
    """Oracle: `summarise` of the same items, field by field."""
    found, _ = go(described)
    metrics = heldout_metrics(found.items["moved"], found.items["base"])
    figures = found.summaries["moved"].all
    for name, figure in {"reward": figures.reward.mean, "ras": figures.ras, "nag": figures.nag}.items():
        assert (metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"]) == (
            figure.value,
            figure.low,
            figure.high,
        )
    assert (metrics["n"], metrics["unscored"], metrics["win_rate"]) == (10, 0, figures.ras.value)


def test_items_are_whole(described: Mapping) -> None:
    """Oracle: every field of an item that the data and the model give, by hand."""
    described["sampling"]["num_samples"] = 1
    found, _ = go(described)
    item = found.items["base"][4]
    assert isinstance(item, Item)
    assert (item.row, item.sample, item.prompt) == (4, 0, "row 4 has a question")
    assert (item.reference, item.category) == ("an answeran answer", "even")
