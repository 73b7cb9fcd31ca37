"""A task on disk: what an ordinary configuration reads."""

import hashlib
import json

import pytest
from transformers import AutoTokenizer

from grao.data import load_examples
from grao.demo.synthetic_task import split_of, write_task
from research.tasks import TASKS

SIZES = {"n_train": 12, "n_validation": 6, "n_test": 8, "steps": 2, "quiet": True}


@pytest.mark.parametrize("name", TASKS)
def test_a_written_task_is_read_back_by_the_data_room(tmp_path, name):
    """Oracle: `load_examples` gives the examples the task made, column by column; the base knows every word, and
    gives every text back.
    """
    task = TASKS[name]()
    trained = write_task(task, tmp_path, **SIZES)
    for split, n in (("train", 12), ("validation", 6), ("test", 8)):
        read = load_examples(tmp_path / f"{split}.jsonl")
        assert list(read) == task.examples(split, n)
    assert trained.directory == tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(trained.directory)
    for text in [str(row.prompt) for row in read] + [str(row.reference) for row in read]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_writing_twice_gives_the_same_files(tmp_path):
    """Oracle: SHA-256 of every file; another seed gives other rows."""

    def digests(place):
        files = sorted(path for path in place.rglob("*") if path.is_file())
        return {str(f.relative_to(place)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_task(TASKS["dialogue"](), tmp_path / name, seed=seed, **SIZES)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["train.jsonl"] != digests(tmp_path / "c")["train.jsonl"]


def test_family_and_eps_reach_the_base_model(tmp_path):
    """Oracle: the configuration saved; and eps 0 against 1 gives other weights from the same seed."""
    task = TASKS["dialogue"]()
    write_task(task, tmp_path / "moe", family="qwen3_moe", **SIZES)
    assert json.loads((tmp_path / "moe/base/config.json").read_text())["model_type"] == "qwen3_moe"
    for eps in (0.0, 1.0):
        write_task(task, tmp_path / str(eps), eps=eps, **SIZES)
    never, always = ((tmp_path / eps / "base/model.safetensors").read_bytes() for eps in ("0.0", "1.0"))
    assert never != always


def test_split_of_lays_the_hash_along_the_shares():
    """Oracle: BLAKE2b computed here: its value in hundredths against the running sums 50, 65, 100."""
    shares = {"train": 50, "validation": 15, "test": 35}
    for key in map(str, range(200)):
        place = int(hashlib.blake2b(key.encode(), digest_size=8).hexdigest(), 16) % 100
        expected = "train" if place < 50 else "validation" if place < 65 else "test"
        assert split_of(key, shares) == expected
