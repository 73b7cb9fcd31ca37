"""Which files a source names."""

from __future__ import annotations

from pathlib import Path

import pytest

from grao.data.paths import local_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train.jsonl", "test.jsonl", "README.md", ".hidden.jsonl"):
        (tmp_path / name).write_text('{"prompt": "a"}\n')
    return tmp_path


def names(paths: list[Path] | None) -> list[str]:
    assert paths is not None
    return [path.name for path in paths]


def test_a_folder_gives_the_files_of_the_split(folder: Path) -> None:
    """Oracle: by hand; shards are sorted, other and hidden files left out."""
    for shard in ("train-00001-of-00002.jsonl", "train-00000-of-00002.jsonl"):
        (folder / shard).write_text("{}")
    expected = ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "train.jsonl"]
    assert names(local_files(folder, "train")) == expected
    assert names(local_files(str(folder), "test")) == ["test.jsonl"]


def test_a_folder_whose_files_name_no_split_gives_all(tmp_path: Path) -> None:
    """Oracle: by hand; "trainer" is not the word "train"."""
    for name in ("b_trainer.jsonl", "a.jsonl"):
        (tmp_path / name).write_text("{}")
    assert names(local_files(tmp_path, "train")) == ["a.jsonl", "b_trainer.jsonl"]


def test_a_pattern_gives_what_it_matches(folder: Path) -> None:
    """Oracle: by hand."""
    assert names(local_files(f"{folder}/t*.jsonl", "train")) == ["test.jsonl", "train.jsonl"]


def test_a_file_is_read_for_any_split(folder: Path) -> None:
    """Oracle: the file."""
    assert local_files(folder / "test.jsonl", "train") == [folder / "test.jsonl"]


def test_a_local_folder_comes_before_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the same string before and after a folder of that name is there."""
    monkeypatch.chdir(tmp_path)
    assert local_files("someone/rows-v1.5", "train") is None
    (tmp_path / "someone" / "rows-v1.5").mkdir(parents=True)
    (tmp_path / "someone" / "rows-v1.5" / "a.csv").write_text("prompt\na\n")
    assert names(local_files("someone/rows-v1.5", "train")) == ["a.csv"]


def test_the_home_folder_is_understood(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: $HOME."""
    monkeypatch.setenv("HOME", str(folder))
    assert local_files("~/train.jsonl", "train") == [folder / "train.jsonl"]


@pytest.mark.parametrize("source", ["./rows", "/nowhere/rows", "~/nowhere-rows", "rows.jsonl", "rows.json.gz"])
def test_a_missing_path_is_never_looked_up_on_the_hub(source: str) -> None:
    """Oracle: None of these exists; the error names each as given."""
    with pytest.raises(FileNotFoundError, match=f"no file or folder '{source}'"):
        local_files(source, "train")


def test_the_error_of_a_misspelt_path_suggests_the_nearest_name(folder: Path) -> None:
    """Oracle: the file that is there."""
    with pytest.raises(FileNotFoundError, match=r"Did you mean 'train\.jsonl'"):
        local_files(folder / "trian.jsonl", "train")
    with pytest.raises(FileNotFoundError, match=r"the folder .* does not exist"):
        local_files(folder / "nowhere" / "train.jsonl", "train")


def test_a_pattern_without_a_match_is_an_error(folder: Path) -> None:
    """Oracle: no such file."""
    with pytest.raises(FileNotFoundError, match=r"no file matches the pattern '.*\*\.parquet'"):
        local_files(f"{folder}/*.parquet", "train")


def test_a_folder_without_the_split_lists_what_it_has(folder: Path) -> None:
    """Oracle: the names in the folder."""
    with pytest.raises(ValueError, match=r"no file of split 'validation', found test\.jsonl, train\.jsonl"):
        local_files(folder, "validation")


def test_a_folder_without_data_names_the_folders_inside_that_have_some(tmp_path: Path) -> None:
    """Oracle: by hand."""
    with pytest.raises(ValueError, match=r"has no file ending in \.jsonl.*\.parquet$"):
        local_files(tmp_path, "train")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"Pass one of its folders: .*inner"):
        local_files(tmp_path, "train")


def test_copies_in_two_formats_are_not_read_twice(folder: Path) -> None:
    """Oracle: the two names."""
    (folder / "train.csv").write_text("prompt\na\n")
    with pytest.raises(ValueError, match=r"train\.csv, train\.jsonl, which may be copies in several formats"):
        local_files(folder, "train")


def test_a_folder_of_save_to_disk_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Oracle: a folder that `datasets` wrote."""
    import datasets

    datasets.Dataset.from_list([{"prompt": "a"}]).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"Pass `datasets\.load_from_disk\("):
        local_files(tmp_path / "saved", "train")
