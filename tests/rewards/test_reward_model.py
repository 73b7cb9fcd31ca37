from __future__ import annotations

import logging

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from grao.rewards import RewardFunction, RewardReturnError, RewardSet, load_reward
from grao.rewards.model import RewardModel

WORDS = ["[PAD]", "[EOS]", "[BOS]", "[UNK]", "U:", "A:", *"abcdefghij"]
TEMPLATE = (
    "[BOS]{% for m in messages %}{{ 'U:' if m['role'] == 'user' else 'A:' }} {{ m['content'] }} {% endfor %}[EOS]"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; a text begins with [BOS]."""
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", eos_token="[EOS]", bos_token="[BOS]", unk_token="[UNK]"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(kind: str = "llama", labels: int = 1):
    """Random float64 weights, large enough that rewards differ visibly."""
    torch.manual_seed(0)
    size = {"vocab_size": len(WORDS), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    size |= {"num_attention_heads": 2, "max_position_embeddings": 32}
    size |= {"num_labels": labels, "initializer_range": 0.5}
    if kind == "llama":
        return LlamaForSequenceClassification(LlamaConfig(**size, pad_token_id=0)).double()
    return BertForSequenceClassification(BertConfig(**size)).double()


def logit(model, ids):
    """One text, no padding, no mask."""
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([ids])).logits[0, 0].item()


def ids_of(text):
    return [WORDS.index(word) for word in text.split()]


TEXTS = ["a", "a b c", "j i h g f e d c b a", "c c", "a b", "f g h a b c d"]


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_padded_batches_equal_one_text_at_a_time(kind):
    """Oracle: the model itself on each text alone, in float64, without padding."""
    model = make_model(kind)
    reward = RewardModel(model, make_tokenizer(), batch_size=4)
    found = reward(prompts=["b a "] * len(TEXTS), completions=TEXTS)
    expected = [logit(model, ids_of("[BOS] b a " + text)) for text in TEXTS]
    assert max(expected) - min(expected) > 0.1
    assert found == pytest.approx(expected, abs=1e-6)
    assert found == pytest.approx(expected, abs=1e-12)


def test_conversations_go_through_the_chat_template_once():
    """Oracle: the template written out by hand, with one [BOS], not two."""
    model = make_model()
    reward = RewardModel(model, make_tokenizer())
    prompt = [{"role": "user", "content": "a b"}]
    found = reward(prompts=[prompt], completions=[[{"role": "assistant", "content": "c"}]])
    assert found == pytest.approx([logit(model, ids_of("[BOS] U: a b A: c [EOS]"))], abs=1e-12)


def test_each_distinct_text_is_scored_once(monkeypatch):
    """Oracle: rows the model saw, counted: 2 distinct texts among 5."""
    model = make_model()
    reward = RewardModel(model, make_tokenizer(), batch_size=1)
    seen = []
    model.register_forward_pre_hook(lambda m, a, k: seen.append(len(k["input_ids"])), with_kwargs=True)
    found = reward(prompts=["a "] * 5, completions=["b", "c", "b", "b", "c"])
    assert sum(seen) == 2
    assert found[0] == found[2] == found[3] != found[1] == found[4]


@pytest.mark.parametrize(("side", "remaining"), [("left", "[BOS] c d e"), ("right", "[BOS] a b c")])
def test_long_texts_are_cut_on_the_named_side_and_counted(side, remaining, caplog):
    """Oracle: the four tokens that remain, written out; two cut texts, one line in the log."""
    model = make_model()
    reward = RewardModel(model, make_tokenizer(), max_length=4, truncation_side=side)
    with caplog.at_level(logging.WARNING):
        found = reward(prompts=["a b "] * 3, completions=["c d e", "c", "j c d e"])
    assert found[0] == pytest.approx(logit(model, ids_of(remaining)), abs=1e-12)
    assert reward.num_truncated == 2
    assert len(caplog.records) == 1
    assert f"cut 2 of 3 texts to 4 tokens (on the {side})" in caplog.text


def test_the_models_positions_bound_a_text():
    """Oracle: the config's 32 positions."""
    assert RewardModel(make_model(), make_tokenizer()).max_length == 32


def test_a_saved_model_loads_by_path(tmp_path, make_group):
    """Oracle: the model in memory; through `load_reward` and a scored group, in evaluation mode and float64."""
    model = make_model()
    model.save_pretrained(tmp_path / "judge")
    make_tokenizer().save_pretrained(tmp_path / "judge")
    reward = load_reward(str(tmp_path / "judge"), {"device": "cpu", "batch_size": 2})
    assert reward.name == "judge"
    assert reward.call.model.dtype == torch.float64
    assert not reward.call.model.training
    (group,) = RewardSet([reward]).score([make_group(0, ["a", "b c"], "d", prompt="a ")]).groups
    expected = [logit(model, ids_of("[BOS] a " + text)) for text in ("a", "b c", "d")]
    assert [m.reward for m in group.members] == pytest.approx(expected, abs=1e-12)


def test_a_model_object_is_a_reward():
    """Oracle: the model on the text alone."""
    model = make_model()
    reward = load_reward(model, {"tokenizer": make_tokenizer()})
    assert reward.name == "LlamaForSequenceClassification"
    found = reward.call(prompts=["a "], completions=["b"])
    assert found == pytest.approx([logit(model, ids_of("[BOS] a b"))], abs=1e-12)


def test_models_that_are_no_reward_models_are_refused(tmp_path):
    """Oracle: the messages, read: two labels; a language model, whose head would be random."""
    with pytest.raises(ValueError, match=r"2 labels.*exactly 1"):
        RewardModel(make_model(labels=2), make_tokenizer())
    make_model(labels=2).save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match="two' is a classifier of 2 labels"):
        RewardModel.from_pretrained(tmp_path / "two")
    config = make_model().config
    LlamaForCausalLM(config).save_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match=r"has no weights for \['score.weight'\].*random"):
        RewardModel.from_pretrained(tmp_path / "lm")
    with pytest.raises(ValueError, match="batch_size ≥ 1"):
        RewardModel(make_model(), make_tokenizer(), batch_size=0)


def test_pickled_weights_are_refused(tmp_path):
    """Oracle: transformers finds no safetensors file and says so."""
    make_model().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.unlink()
    torch.save(make_model().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        RewardModel.from_pretrained(tmp_path)


def test_a_logit_that_is_not_finite_stops_the_run_or_leaves_its_member_unscored(make_group):
    """Oracle: one weight made NaN; the row is named, or all three members are counted as errors."""
    model = make_model()
    with torch.no_grad():
        model.score.weight[0, 0] = torch.nan
    reward = RewardModel(model, make_tokenizer(), name="judge")
    groups = [make_group(5, ["a", "b"], "c", prompt="a ")]
    with pytest.raises(RewardReturnError, match=r"'judge' returned nan for row 5, sample 0"):
        RewardSet([reward]).score(groups)
    scored = RewardSet([RewardFunction(reward, name="judge", on_error="unscored")]).score(groups)
    assert [member.reward for member in scored.groups[0].members] == [None] * 3
    assert scored.report["judge"].errors == 3


def test_an_empty_completion_is_scored_as_its_prompt_alone_and_an_empty_text_is_refused():
    """Oracle: the model on the prompt; with no token at all there is nothing to read, and the message says so."""
    model, tokenizer = make_model(), make_tokenizer()
    found = RewardModel(model, tokenizer)(prompts=["a b "], completions=[""])
    assert found == pytest.approx([logit(model, ids_of("[BOS] a b"))], abs=1e-12)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    with pytest.raises(ValueError, match="was given an empty text, which has no token"):
        RewardModel(model, tokenizer)(prompts=["a", ""], completions=["b", ""])


def test_what_to_pad_with_is_found_or_asked_for():
    """Oracle: the ids by hand: the tokenizer's 0, else the model's 5, else the end of sequence, 1; else a message."""
    model, tokenizer = make_model(), make_tokenizer()
    padded_with = []
    model.register_forward_pre_hook(lambda m, a, k: padded_with.append(k["input_ids"][0, -1].item()), with_kwargs=True)
    given = {"prompts": ["", ""], "completions": ["a", "b c"]}
    expected = [logit(make_model(), ids_of("[BOS] a")), logit(make_model(), ids_of("[BOS] b c"))]
    for tokenizer_pad, model_pad, eos in (("[PAD]", 5, "[EOS]"), (None, 5, "[EOS]"), (None, None, "[EOS]")):
        tokenizer.pad_token, tokenizer.eos_token, model.config.pad_token_id = tokenizer_pad, eos, model_pad
        assert RewardModel(model, tokenizer)(**given) == pytest.approx(expected, abs=1e-12)
    assert padded_with == [0, 5, 1]
    tokenizer.pad_token = tokenizer.eos_token = model.config.pad_token_id = None
    with pytest.raises(ValueError, match=r"neither a padding nor an end-of-sequence token.*Set tokenizer\.pad_token"):
        RewardModel(model, tokenizer)
    with pytest.raises(ValueError, match="append_eos needs an end-of-sequence token"):
        RewardModel(model, tokenizer, append_eos=True)


def test_a_conversation_needs_a_chat_template_that_takes_it():
    """Oracle: the messages, read."""
    tokenizer = make_tokenizer()
    reward = RewardModel(make_model(), tokenizer, name="judge")
    given = {"prompts": [[{"role": "user", "content": "a"}]], "completions": [[{"role": "assistant", "content": "b"}]]}
    tokenizer.chat_template = "{{ raise_exception('no user may speak') }}"
    with pytest.raises(
        ValueError, match=r"template of reward model 'judge' refuses .*user, assistant: no user may speak"
    ):
        reward(**given)
    tokenizer.chat_template = None
    with pytest.raises(
        ValueError, match=r"'judge' was given a conversation, but its tokenizer has no chat template. Set"
    ):
        reward(**given)


def test_append_eos_ends_every_plain_text_once():
    """Oracle: ids written out: one end each, where the text has one already too, and within the limit."""
    model = make_model()
    reward = RewardModel(model, make_tokenizer(), append_eos=True, max_length=5)
    prompts = ["a ", "a ", "a b c "]
    ids = reward.token_ids(prompts, ["b", "b [EOS]", "d e"])
    assert ids == [ids_of(text) for text in ("[BOS] a b [EOS]", "[BOS] a b [EOS]", "[BOS] c d e [EOS]")]
    assert reward.num_truncated == 1
    turn = [{"role": "assistant", "content": "b"}]
    assert reward.token_ids([[{"role": "user", "content": "a"}]], [turn])[0][-1:] == ids_of("[EOS]")
    found = reward(prompts=prompts[:1], completions=["b"])
    assert found == pytest.approx([logit(model, ids_of("[BOS] a b [EOS]"))], abs=1e-12)


def test_very_long_texts_are_cut_and_reported_as_a_metric():
    """Oracle: by hand: two of three distinct texts exceed 32 tokens in the first call, none in the second."""
    metrics = []
    reward = RewardModel(make_model(), make_tokenizer(), name="judge")
    hook = {"log_metric": lambda *metric: metrics.append(metric)}
    reward(prompts=["a "] * 4, completions=["b " * 100_000, "b", "c " * 40, "b"], **hook)
    reward(prompts=["a "], completions=["b"], **hook)
    assert metrics == [("rewards/judge/cut", 2.0), ("rewards/judge/cut", 0.0)]


def test_the_log_speaks_of_cuts_as_often_as_their_number_has_doubled(caplog):
    """Oracle: counts by hand: one cut a call, lines at 1, 2, 4 and 8 of ten."""
    reward = RewardModel(make_model(), make_tokenizer(), max_length=2)
    with caplog.at_level(logging.WARNING):
        for letter in "abcdefghij":
            reward(prompts=["a "], completions=[f"{letter} b"])
    assert [record.getMessage().rsplit("; ")[1] for record in caplog.records] == [f"{n} so far" for n in (1, 2, 4, 8)]


def test_surrogates_without_a_partner_are_read_as_replacement_characters(caplog):
    """Oracle: the reward of the text with U+FFFD written out; a pair of surrogates is its character."""
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "\ufffd": 2, "🙂": 3}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[UNK]", unk_token="[UNK]")
    reward = RewardModel(make_model(), tokenizer, name="judge")
    with caplog.at_level(logging.WARNING):
        assert reward.token_ids(["a "] * 3, ["\ud800", "\ud83d\ude42", "\ufffd"]) == [[1, 2], [1, 3], [1, 2]]
    assert reward.num_surrogates_replaced == 2
    assert "'judge' read 2 of 3 texts with U+FFFD" in caplog.text
