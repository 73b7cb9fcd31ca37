"""Loading and saving a policy, and the messages for a model or tokenizer that is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers as tf

from grao.policy import LoRA, ModelConfig, check_vocabulary, group_logprobs, load_policy, router_coefficient
from grao.policy.lora import has_adapters
from grao.policy.scorer import scorer_of


def save_tokenizer(folder: Path, words: int) -> None:
    """A word-level tokenizer of so many words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(
        folder
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny: SimpleNamespace) -> Path:
    """A saved tiny model with its tokenizer. Read-only for the tests: they copy it."""
    path = tmp_path_factory.mktemp("model")
    tiny.tiny_model("llama", scored=False, dtype=torch.float32).save_pretrained(path)
    save_tokenizer(path, tiny.VOCABULARY)
    return path


@pytest.fixture
def copy_of(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model"))


def test_a_saved_model_becomes_a_policy(tiny: SimpleNamespace, folder: Path) -> None:
    """Oracle: the model that was saved: equal log-probs; its config's context length; its tokenizer's words."""
    policy = load_policy(ModelConfig(str(folder)))
    batch = tiny.random_batch()
    expected = group_logprobs(tiny.tiny_model("llama", dtype=torch.float32), batch).logprobs_PMT
    assert torch.equal(group_logprobs(policy.model, batch).logprobs_PMT, expected)
    assert policy.context_length == 64
    assert policy.tokenizer("w3 w7").input_ids == [3, 7]
    assert not has_adapters(policy.model)


@pytest.mark.parametrize(
    ("asked", "got"), [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("auto", torch.bfloat16)]
)
def test_dtype(tiny: SimpleNamespace, copy_of: Path, asked: str, got: torch.dtype) -> None:
    """Oracle: the dtype that was asked for; `auto` is the checkpoint's, here bfloat16."""
    tiny.tiny_model("llama", scored=False, dtype=torch.bfloat16).save_pretrained(copy_of)
    model = load_policy(ModelConfig(str(copy_of), dtype=asked)).model  # type: ignore[arg-type]
    assert {p.dtype for p in model.parameters()} == {got}


def test_adapters_are_added(folder: Path) -> None:
    """Oracle: by definition only adapters are trainable."""
    policy = load_policy(ModelConfig(str(folder), lora=LoRA(r=2)))
    assert has_adapters(policy.model)
    assert all("lora_" in n for n, p in policy.model.named_parameters() if p.requires_grad)


def test_a_policy_saves_as_an_ordinary_model(tiny: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    """Oracle: transformers loads it without us: equal logits, the same files, the same architectures entry."""
    policy = load_policy(ModelConfig(str(folder)))
    policy.model.save_pretrained(tmp_path)
    policy.tokenizer.save_pretrained(tmp_path)
    ids = torch.tensor([[3, 4, 5, 6]])
    plain = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(plain) is tf.LlamaForCausalLM
    assert torch.equal(plain(ids).logits, policy.model(ids).logits)
    before, after = (json.loads((f / "config.json").read_text()) for f in (folder, tmp_path))
    assert after["architectures"] == before["architectures"] == ["LlamaForCausalLM"]
    assert after == before
    assert {p.name for p in folder.iterdir()} == {p.name for p in tmp_path.iterdir()}
    again = load_policy(ModelConfig(str(tmp_path)))
    batch = tiny.random_batch()
    ours, theirs = (group_logprobs(p.model, batch).logprobs_PMT for p in (policy, again))
    assert torch.equal(ours, theirs)


def message(config: ModelConfig) -> str:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the message is compared by the caller
        load_policy(config)
    return str(raised.value)


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    """Oracle: the whole message, read by a person: which setting, which path, what is wrong with it."""
    path = str(tmp_path / "nowhere")
    assert message(ModelConfig(path)) == f"model.path={path!r} looks like a path, but there is no such directory"


def test_a_tokenizer_directory_that_does_not_exist(folder: Path, tmp_path: Path) -> None:
    """Oracle: the message names model.tokenizer, not model.path, which is right."""
    path = str(tmp_path / "nowhere")
    config = ModelConfig(str(folder), tokenizer=path)
    assert message(config) == f"model.tokenizer={path!r} looks like a path, but there is no such directory"


def test_a_model_directory_that_does_not_exist_beside_a_good_tokenizer(folder: Path, tmp_path: Path) -> None:
    """Oracle: the message names model.path."""
    path = str(tmp_path / "nowhere")
    config = ModelConfig(path, tokenizer=str(folder))
    assert message(config) == f"model.path={path!r} looks like a path, but there is no such directory"


def test_a_directory_without_a_tokenizer(copy_of: Path) -> None:
    """Oracle: the whole message; it says how to put one there."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy_of / name).unlink()
    assert message(ModelConfig(str(copy_of))) == (
        f"{str(copy_of)!r} holds no tokenizer (no tokenizer.json, tokenizer_config.json or vocab file). Save one "
        "there with tokenizer.save_pretrained(...), or name one with model.tokenizer"
    )


def test_a_directory_without_a_model(copy_of: Path) -> None:
    """Oracle: the message names the setting and holds transformers' reason."""
    for name in ("config.json", "model.safetensors"):
        (copy_of / name).unlink()
    found = message(ModelConfig(str(copy_of)))
    assert "model.path=" in found
    assert str(copy_of) in found


def test_a_pickled_checkpoint_is_refused(copy_of: Path) -> None:
    """Oracle: no pickle: with only pytorch_model.bin the message says that safetensors are needed."""
    (copy_of / "model.safetensors").rename(copy_of / "pytorch_model.bin")
    found = message(ModelConfig(str(copy_of)))
    assert found.startswith(f"cannot load a causal language model from model.path={str(copy_of)!r}")
    assert "safetensors" in found


def test_a_name_that_no_hub_has() -> None:
    """Oracle: the message names what was asked for (no network here: the hub is not asked)."""
    assert "'no-such-organisation/no-such-model'" in message(ModelConfig("no-such-organisation/no-such-model"))


def test_a_revision_is_the_models_not_another_tokenizers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: what transformers is asked for: a commit of one repository means nothing in another."""
    asked: list[str | None] = []
    real = tf.AutoTokenizer.from_pretrained

    def record(where: str, **settings: object) -> object:
        asked.append(settings["revision"])  # type: ignore[arg-type]
        return real(where)

    monkeypatch.setattr(tf.AutoTokenizer, "from_pretrained", record)
    load_policy(ModelConfig(str(folder), revision="abc"))
    load_policy(ModelConfig(str(folder), revision="abc", tokenizer=str(folder)))
    assert asked == ["abc", None]


def test_a_tokenizer_that_knows_more_than_the_model(tiny: SimpleNamespace, copy_of: Path) -> None:
    """Oracle: the whole message: both numbers and both remedies."""
    save_tokenizer(copy_of, tiny.VOCABULARY + 10)
    assert message(ModelConfig(str(copy_of))) == (
        f"the tokenizer of {str(copy_of)!r} has 60 tokens, but the model embeds only 50. Set "
        "model.tokenizer to the one this model was trained with, or resize the model's embeddings."
    )


def test_a_model_may_embed_more_than_the_tokenizer_knows(tiny: SimpleNamespace, copy_of: Path) -> None:
    """Oracle: many models pad their embeddings (Qwen 2.5: 151 665 tokens, 151 936 rows): no error."""
    save_tokenizer(copy_of, tiny.VOCABULARY - 10)
    policy = load_policy(ModelConfig(str(copy_of)))
    check_vocabulary(policy.model, policy.tokenizer, "here")


def test_the_weight_of_the_router_loss(tiny: SimpleNamespace, tmp_path: Path) -> None:
    """Oracle: the config's own coefficient, and the one that was set."""
    tiny.tiny_model("qwen3_moe", scored=False, dtype=torch.float32).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, tiny.VOCABULARY)
    assert router_coefficient(load_policy(ModelConfig(str(tmp_path))).model) == 0.02
    assert router_coefficient(load_policy(ModelConfig(str(tmp_path), router_loss=0.3)).model) == 0.3
    assert router_coefficient(load_policy(ModelConfig(str(tmp_path), router_loss=0.0)).model) == 0.0


def test_the_configuration_says_how_to_score(folder: Path, tmp_path: Path) -> None:
    """Oracle: what each choice means; what is saved knows nothing of it."""
    for scoring, streams in (("auto", True), ("stream", True), ("padded", False)):
        model = load_policy(ModelConfig(str(folder), scoring=scoring)).model  # type: ignore[arg-type]
        assert scorer_of(model).streams == streams
        model.save_pretrained(tmp_path / scoring)
        assert "grao" not in (tmp_path / scoring / "config.json").read_text()
    with pytest.raises(ValueError, match="scoring is 'rows'; it must be one of auto, stream, padded"):
        load_policy(ModelConfig(str(folder), scoring="rows"))  # type: ignore[arg-type]
