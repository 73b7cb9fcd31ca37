"""Base models: tokenizers, shapes, training, recipes."""

import hashlib
import json
import math
import random
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from grao.configuration import build, load_yaml
from grao.data import Encoder, Example
from grao.demo.base_model import (
    FAMILIES,
    BaseModelConfig,
    ModelSpec,
    base_model_from_config,
    bpe_tokenizer,
    main_from_config,
    train_base_model,
    word_tokenizer,
)
from grao.demo.base_model.base_model_config import BaseData, text_pairs, without_final_line
from grao.demo.base_model.pretraining import (
    IGNORED,
    TokenisedPair,
    learning_rate_share,
    new_model,
    pad_rows,
    row_batches,
    tokenise_pairs,
    training_losses,
)

PAIRS = [(f"{i % 5} + 1 =", f"it is {i % 5 + 1} .") for i in range(20)]
WORDS = ["+", ".", "=", "is", "it", *"012345"]
TINY = ModelSpec(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=24
)
QUICK = {"steps": 4, "batch_size": 4, "quiet": True}


def weights_digest(directory: Path) -> str:
    return hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------------- tokenizers


def test_word_tokenizer_gives_each_word_the_id_of_its_place():
    """Oracle: ids worked by hand: three special tokens, then the vocabulary."""
    tokenizer = word_tokenizer(["b", "a", "."])
    assert tokenizer("a b . c")["input_ids"] == [4, 3, 5, 2]
    assert tokenizer.decode([4, 3, 5]) == "a b ."
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_word_tokenizer_refuses_what_could_not_round_trip():
    """Oracle: a word twice would have two ids; a word with a space would be two words."""
    with pytest.raises(ValueError, match=r"\['a'\] more than once"):
        word_tokenizer(["a", "b", "a"])
    with pytest.raises(ValueError, match=r"'a b'"):
        word_tokenizer(["a b"])


@pytest.mark.parametrize("text", ["3 + 4 = 7\n#### 7", " lead, trail \n", "naïve — 東京 🙂", "\x00\xa0\t", "a  b   c"])
def test_bpe_tokenizer_is_lossless_on_any_text(text):
    """Oracle: the identity decode(encode(text)) = text, on bytes it was not trained on."""
    tokenizer = bpe_tokenizer(["three and four are seven", "seven and four are eleven"], 300)
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_bpe_tokenizer_depends_on_the_texts_alone():
    """Oracle: two trainings compared file by file; and the first merge worked by hand ("an" occurs most often)."""
    texts = ["banana and ananas", "an anagram"] * 3
    first, second = bpe_tokenizer(texts, 270), bpe_tokenizer(texts, 270)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert json.loads(first.backend_tokenizer.to_str())["model"]["merges"][0] == ["a", "n"]
    assert first.pad_token_id != first.eos_token_id


def test_bpe_tokenizer_needs_room_for_every_byte():
    """Oracle: 256 bytes and two special tokens are 258."""
    with pytest.raises(ValueError, match="at least 258"):
        bpe_tokenizer(["a"], 257)


# ------------------------------------------------------------------------------------------------------------ shape


def test_parameters_of_a_dense_model_are_counted_by_hand():
    """Oracle: the sum over the layer's matrices, tied embeddings counted once.

    V = 14 words, d = 16, 1 layer, 2 heads of 8, 1 key-value head, f = 24:
    V·d + (q 16·16 + k 16·8 + v 16·8 + o 16·16) + 3·16·24 + norms 2·16 + final norm 16 = 224 + 768 + 1152 + 48 = 2192.
    Qwen3 adds a norm of 8 for queries and one for keys.
    """
    tokenizer = word_tokenizer(WORDS)
    count = {
        family: AutoModelForCausalLM.from_config(
            ModelSpec(**{**vars(TINY), "family": family}).config(tokenizer)
        ).num_parameters()
        for family in ("llama", "qwen3")
    }
    assert count == {"llama": 2192, "qwen3": 2192 + 16}


def test_sparse_family_has_six_experts_two_a_token():
    """Oracle: the configuration's fields, and that transformers' generate runs on a padded batch."""
    tokenizer = word_tokenizer(WORDS)
    config = ModelSpec(**{**vars(TINY), "family": "qwen3_moe"}).config(tokenizer)
    assert (config.num_experts, config.num_experts_per_tok, config.moe_intermediate_size) == (6, 2, 12)
    assert config.router_aux_loss_coef == 0.01
    batch = tokenizer(["it is", "it"], padding=True, return_tensors="pt")
    answers = AutoModelForCausalLM.from_config(config).generate(**batch, max_new_tokens=3, do_sample=False)
    assert answers.shape[0] == 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"family": "qwen2"}, "llama, qwen3, qwen3_moe"),
        ({"hidden_size": 20, "num_attention_heads": 4}, "even whole number"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "multiple of num_key_value_heads"),
    ],
)
def test_a_spec_refuses_sizes_that_make_no_model(sizes, message):
    """Oracle: the message names the remedy."""
    with pytest.raises(ValueError, match=message):
        ModelSpec(**sizes)


# --------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_base_model_is_an_ordinary_directory(tmp_path, family):
    """Oracle: transformers' own Auto classes give back the same ids, special tokens and log-probs' shape."""
    tokenizer = word_tokenizer(WORDS)
    spec = ModelSpec(**{**vars(TINY), "family": family})
    trained = train_base_model(PAIRS, tokenizer, spec, tmp_path, **QUICK)
    again = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    for prompt, completion in PAIRS:
        assert again(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]
        assert again.decode(again(completion)["input_ids"]) == completion
    for config in (model.config, model.generation_config):
        assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert trained.parameters == model.num_parameters()
    assert math.isfinite(trained.final_loss)


def test_a_bpe_tokenizer_reloads_as_it_was(tmp_path):
    """Oracle: the identity of ids before and after saving, on texts with white space and digits of every kind."""
    texts = ["12 + 345 = 357\n\n#### 357", "\n\nHuman: Hi?\n\nAssistant: Don't!"]
    tokenizer = bpe_tokenizer(texts, 280)
    train_base_model([(t, t) for t in texts], tokenizer, ModelSpec(family="qwen3"), tmp_path, **QUICK)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert [again(t)["input_ids"] for t in texts] == [tokenizer(t)["input_ids"] for t in texts]


@pytest.mark.parametrize("family", FAMILIES)
def test_same_seed_same_weights(tmp_path, family):
    """Oracle: SHA-256 of the weight files; another seed differs; the global generator is as it was."""
    spec = ModelSpec(**{**vars(TINY), "family": family})
    before = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train_base_model(PAIRS, word_tokenizer(WORDS), spec, tmp_path / name, seed=seed, **QUICK)
    assert torch.equal(torch.random.get_rng_state(), before)
    a, b, c = (weights_digest(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


def test_the_seed_also_shuffles_the_pairs(tmp_path, monkeypatch):
    """Oracle: from the same first weights two seeds end at different ones, so the order differed."""
    monkeypatch.setattr(
        "grao.demo.base_model.pretraining.new_model",
        lambda spec, tokenizer, seed: new_model(spec, tokenizer, 0),
    )
    for name, seed in (("a", 0), ("b", 1)):
        train_base_model(PAIRS, word_tokenizer(WORDS), TINY, tmp_path / name, seed=seed, **QUICK)
    assert weights_digest(tmp_path / "a") != weights_digest(tmp_path / "b")


def test_experts_are_balanced_without_counting_padding():
    """Oracle: experts · Σ_e f_e p_e is 2 where two of six are chosen evenly: fresh routers come within a tenth of it.

    Times the coefficient 0.01; more padding changes nothing; a dense model has no such term.
    """
    tokenizer = word_tokenizer(WORDS)
    rows = [TokenisedPair([5, 6, 7, 8, 9, 10, 11, 12, 13, 1], 3), TokenisedPair([9, 8, 1], 1)]
    batch = pad_rows(rows, 0, "everything")
    padded = tuple(torch.nn.functional.pad(t, (0, 7), value=v) for t, v in zip(batch, (0, 0, IGNORED), strict=True))
    terms = {}
    for family in ("llama", "qwen3_moe"):
        model = new_model(ModelSpec(**{**vars(TINY), "family": family}), tokenizer, 0)
        terms[family] = [training_losses(model, *tensors) for tensors in (batch, padded)]
    (loss, balance), (loss_padded, balance_padded) = terms["qwen3_moe"]
    assert balance.item() == pytest.approx(0.02, rel=0.1)
    torch.testing.assert_close((loss, balance), (loss_padded, balance_padded))
    assert terms["llama"][0][1] == 0


def test_training_learns_the_pairs(tmp_path):
    """Oracle: greedy decoding of the five memorised answers, against the texts themselves."""
    tokenizer = word_tokenizer(WORDS)
    spec = ModelSpec(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
                     num_key_value_heads=2, initializer_range=0.05)  # fmt: skip
    trained = train_base_model(
        PAIRS, tokenizer, spec, tmp_path, steps=80, batch_size=20, learning_rate=1e-2, quiet=True
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    batch = tokenizer([prompt for prompt, _ in PAIRS[:5]], padding=True, return_tensors="pt")
    ids = model.generate(**batch, max_new_tokens=8, do_sample=False)[:, batch.input_ids.shape[1] :]
    assert tokenizer.batch_decode(ids, skip_special_tokens=True) == [completion for _, completion in PAIRS[:5]]
    assert trained.final_loss < 0.05


def test_what_is_learnt_is_what_alignment_encodes():
    """Oracle: the data room's Encoder, which makes the ids that alignment trains on."""
    tokenizer = bpe_tokenizer(["3 + 4 = 7\n#### 7", "How much?"], 270)
    pair = ("How much is 3 + 4?", "3 + 4 = 7\n#### 7")
    (row,), too_long = tokenise_pairs([pair], tokenizer, 512)
    encoded = Encoder(tokenizer).encode(Example(0, *pair))
    assert row.ids == [*encoded.prompt_ids, *encoded.reference_ids]
    assert (row.prompt, too_long) == (len(encoded.prompt_ids), 0)


def test_pairs_that_are_too_long_are_counted_or_refused(tmp_path):
    """Oracle: token counts by hand: 4 + 4 + eos = 9 fit 9, 5 + 4 + eos = 10 do not."""
    tokenizer = word_tokenizer(WORDS)
    spec = ModelSpec(**{**vars(TINY), "max_position_embeddings": 9})
    pairs = [("1 + 1 =", "it is 2 ."), ("1 + 1 = =", "it is 2 .")]
    assert train_base_model(pairs, tokenizer, spec, tmp_path / "a", **QUICK).too_long == 1
    with pytest.raises(ValueError, match="has 10 tokens"):
        train_base_model(pairs[1:], tokenizer, spec, tmp_path / "b", **QUICK)
    with pytest.raises(ValueError, match=r"no \(prompt, completion\) pairs were given"):
        train_base_model([], tokenizer, spec, tmp_path / "c", **QUICK)


def test_labels_cover_the_completion_or_everything():
    """Oracle: the batch written out by hand."""
    rows = [TokenisedPair([5, 6, 7, 1], 2), TokenisedPair([8, 9, 1], 1)]
    ids, mask, labels = pad_rows(rows, 0, "completion")
    x = IGNORED
    assert ids.tolist() == [[5, 6, 7, 1], [8, 9, 1, 0]]
    assert mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert labels.tolist() == [[x, x, 7, 1], [x, 9, 1, x]]
    assert pad_rows(rows, 0, "everything")[2].tolist() == [[5, 6, 7, 1], [8, 9, 1, x]]


@pytest.mark.parametrize("pool", [1, 3])
def test_batches_meet_every_row_once_an_epoch(pool):
    """Oracle: counting. 12 rows in batches of 4: every 3 batches are an epoch; pooled, each batch is of one length."""
    lengths = [1, 2, 3] * 4
    batches = list(row_batches(lengths, 4, 7, pool, torch.Generator().manual_seed(0)))
    assert len(batches) == 7
    for epoch in (batches[:3], batches[3:6]):
        assert sorted(row for batch in epoch for row in batch) == list(range(12))
    if pool == 3:
        assert all(len({lengths[row] for row in batch}) == 1 for batch in batches)


def test_schedule_at_its_corners():
    """Oracle: by hand: 1/10 at the start of ten warm-up steps, 1 → 0.05 + 0.95/2 half way, nearly 0.05 at the end."""
    assert learning_rate_share(0, 100, 10) == pytest.approx(0.1)
    assert learning_rate_share(50, 100, 10) == pytest.approx(0.525)
    assert learning_rate_share(100, 100, 0) == pytest.approx(0.05)


def test_a_directory_of_something_else_is_not_overwritten(tmp_path):
    """Oracle: the file that was there is still there; a base model made here may be made again."""
    arguments = (PAIRS, word_tokenizer(WORDS), TINY)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"has no base_model\.json, so it may hold something else"):
        train_base_model(*arguments, tmp_path, **QUICK)
    with pytest.raises(FileExistsError, match="is a file"):
        train_base_model(*arguments, tmp_path / "thesis.txt", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    for _ in range(2):
        train_base_model(*arguments, tmp_path / "new", **QUICK)


# ---------------------------------------------------------------------------------------------------------- recipes


@pytest.fixture
def config(tmp_path):
    rows = [{"question": f"{i} + 1?", "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}"} for i in range(10)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    return {
        "output": str(tmp_path / "base"),
        "data": {"source": str(source), "format": "gsm8k", "skip": 4, "limit": 8},
        "model": {**vars(TINY)},
        "training": {"steps": 2, "batch_size": 2},
        "vocab_size": 260,
    }


def test_a_recipe_trains_on_its_rows_only(config, tmp_path, capsys):
    """Oracle: the record beside the weights: six rows of ten follow the first four; what is said of it."""
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(config))
    directory = main_from_config(path, ["--training.steps", "3", "--seed=7"])
    assert capsys.readouterr().out.startswith(f"base model: {tmp_path / 'base'}, ")
    record = json.loads((directory / "base_model.json").read_text())
    assert (record["pairs"], record["steps"], record["seed"]) == (6, 3, 7)
    assert len(AutoTokenizer.from_pretrained(directory)) == 260


def test_an_unknown_key_names_the_nearest_known_one(config):
    """Oracle: the message."""
    with pytest.raises(ValueError, match=r"training\.step: unknown key; did you mean training\.steps\?"):
        base_model_from_config(config, ["--training.step", "3"])


def test_final_lines_are_dropped_with_the_probability_asked_for():
    """Oracle: 1 of 1 at p = 1, 0 at p = 0, and within 4.5 standard deviations of 300 in 1000 at p = 0.3."""
    examples = [Example(i, "3 + 4?", "3 + 4 = 7\n#### 7") for i in range(1000)]

    def dropped(p: float) -> int:
        data = BaseData(source="", drop_final_line=p)
        return sum("####" not in completion for _, completion in text_pairs(examples, data, random.Random(0)))

    assert (dropped(0.0), dropped(1.0)) == (0, 1000)
    assert abs(dropped(0.3) - 300) < 4.5 * math.sqrt(1000 * 0.3 * 0.7)
    assert without_final_line("one line") == "one line"
    with pytest.raises(ValueError, match="between 0 and 1"):
        BaseData(source="", drop_final_line=1.5)


def test_answers_choose_reference_rejected_or_both():
    """Oracle: the pairs written out by hand."""
    examples = [Example(0, "Hi?", " Yes.", " No.")]
    pairs = {
        answers: text_pairs(examples, BaseData(source="", answers=answers), random.Random(0))
        for answers in ("reference", "rejected", "both")
    }
    assert pairs == {
        "reference": [("Hi?", " Yes.")],
        "rejected": [("Hi?", " No.")],
        "both": [("Hi?", " Yes."), ("Hi?", " No.")],
    }
    with pytest.raises(ValueError, match="row 3 has no rejected answer"):
        text_pairs([Example(3, "Hi?", "Yes.")], BaseData(source="", answers="both"), random.Random(0))


@pytest.mark.parametrize("name", ["gsm8k-base", "hh-base"])
def test_recipes_are_valid_and_of_the_size_they_say(name):
    """Oracle: 11.0 million parameters counted on a model without memory; the schema accepts every key.

    4096·384 + 6·(2·384² + 2·384·128 + 3·384·1024 + 2·384 + 2·64) + 384 = 11,015,808.
    """
    path = Path(__file__).resolve().parents[2] / "recipes" / f"{name}.yaml"
    config = build(BaseModelConfig, load_yaml(path))
    with torch.device("meta"):
        hf = config.model.config(bpe_tokenizer(["a"], 258))
        hf.vocab_size = config.vocab_size
        model = AutoModelForCausalLM.from_config(hf)
    assert model.num_parameters() == 11_015_808
    assert "11.0 million" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "file"), [("gsm8k-base", "gsm8k/train.jsonl.gz"),
                                            ("hh-base", "hh-rlhf/harmless-base/train.jsonl.gz")])  # fmt: skip
def test_recipes_run_on_the_real_rows(name, file, shared_data, tmp_path):
    """Oracle: after thirty steps the loss is below a uniform guess's, ln 4096 = 8.3 nats; every pair is counted:
    5000 rows; 900 rows less the two whose chosen answer is empty, twice.
    """
    recipe = Path(__file__).resolve().parents[2] / "recipes" / f"{name}.yaml"
    small = ["--model.hidden_size", "48", "--model.num_hidden_layers", "1", "--training.steps", "30"]
    place = ["--output", str(tmp_path / "base"), "--data.source", str(shared_data / file)]
    trained = base_model_from_config(recipe, [*small, *place], quiet=True)
    record = json.loads((trained.directory / "base_model.json").read_text())
    assert trained.final_loss < math.log(4096)
    assert record["pairs"] + trained.too_long == {"gsm8k-base": 5000, "hh-base": 1796}[name]
