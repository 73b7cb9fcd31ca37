from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from grao.rollout.stopping import StopStrings, eos_ids


@pytest.mark.parametrize(
    ("configured", "own", "expected"),
    [(None, None, set()), (3, None, {3}), ([3, 4], 5, {3, 4, 5}), (0, 0, {0})],
)
def test_eos_ids(configured: object, own: int | None, expected: set[int]) -> None:
    """Oracle: by hand; the union of one id or several, id 0 included."""
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=configured))
    assert eos_ids(model, SimpleNamespace(eos_token_id=own)) == expected


def test_eos_ids_without_a_generation_config() -> None:
    """Oracle: by hand; the tokenizer's alone."""
    assert eos_ids(SimpleNamespace(generation_config=None), SimpleNamespace(eos_token_id=7)) == {7}


@pytest.mark.parametrize(
    ("text", "stop"),
    [
        ("so it goes END! and on", "END"),  # tokens "EN" and "D!": begins at a token's start, ends within a token
        ("the aEND! b", "END"),  # "aE" could hide the beginning of the string
        ("one\n\n\n\ntwo", "\n\n\n"),  # "\n\n" twice
        ("café au lait", "é"),  # two bytes, two tokens
        ("a b c", " "),
        ("the end, then another then", "then"),
        ("x" * 200 + "y" * 90 + "z", "y" * 90),
    ],
)
def test_the_token_that_completes_a_string(tokenizer, text: str, stop: str) -> None:
    """Oracle: a plain loop that decodes everything after every token."""
    ids = tokenizer.encode(text)
    first = next(n for n in range(1, len(ids) + 1) if stop in tokenizer.decode(ids[:n]))
    rule = StopStrings(tokenizer, [stop])
    assert next(n for n in range(1, len(ids) + 1) if rule.completed(ids[:n])) == first
    assert rule.cut(tokenizer.decode(ids[:first])) == text[: text.index(stop) + len(stop)]


def test_a_string_that_ends_within_a_token_is_cut(tokenizer) -> None:
    """Oracle: by hand; END ends within the token "D!", which the ids keep and the text does not."""
    ids = tokenizer.encode("so END!")
    assert tokenizer.decode(ids[-1:]) == "D!"
    rule = StopStrings(tokenizer, ["END"])
    assert rule.completed(ids)
    assert not rule.completed(ids[:-1])
    assert rule.cut(tokenizer.decode(ids)) == "so END"


def test_the_string_that_ends_first_cuts(tokenizer) -> None:
    """Oracle: by hand; "the" ends before "b th" does, though it is named second."""
    assert StopStrings(tokenizer, ["b th", "the"]).cut("the b the") == "the"
    assert StopStrings(tokenizer, ["nowhere"]).cut("the b the") == "the b the"


def test_a_tokenizer_that_drops_the_first_space() -> None:
    """Oracle: a plain loop; "▁b" decodes to "b" alone and to " b" after another token, so it completes "a "."""
    words = Tokenizer(models.WordLevel({"\u2581a": 0, "\u2581b": 1}, unk_token="\u2581a"))
    words.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    assert (tokenizer.decode([1]), tokenizer.decode([0, 1])) == ("b", "a b")
    rule = StopStrings(tokenizer, ["a "])
    assert [rule.completed([0, 1][:n]) for n in (1, 2)] == [False, True]
    assert rule.cut("a b") == "a "


def test_only_rows_that_could_contain_it_are_decoded(tokenizer) -> None:
    """Oracle: counting; of the bytes of "a b! END!", only two tokens hold the last character of "!!"."""

    class Counting:
        calls = 0

        def __getattr__(self, name: str):
            return getattr(tokenizer, name)

        def decode(self, ids, **options):
            self.calls += 1
            return tokenizer.decode(ids, **options)

    counting = Counting()
    rule = StopStrings(counting, ["!!"])
    ids = tokenizer.encode("a b! END!")
    assert not any(rule.completed(ids[:n]) for n in range(1, len(ids) + 1))
    assert counting.calls == 2


def test_special_tokens_are_matched_by_id(tokenizer) -> None:
    """Oracle: the definition; decoding skips <turn>, so as text it would never be found."""
    rule = StopStrings(tokenizer, ["<turn>", "END"])
    assert rule.special_ids == {tokenizer.convert_tokens_to_ids("<turn>")}
    assert rule.strings == ("END",)


def test_no_strings(tokenizer) -> None:
    """Oracle: the definition; nothing ever completes nothing."""
    rule = StopStrings(tokenizer, [])
    assert not rule.completed(tokenizer.encode("END"))
    assert rule.cut("END") == "END"
