"""Rows of a dataset on the hub; the one place that imports `datasets`."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
from datasets.exceptions import DatasetNotFoundError

from grao.data.row import Record


def read_hub(name: str, *, config: str | None, split: str, revision: str | None) -> Iterator[Record]:
    """The rows of one split of a hub dataset, such as ``openai/gsm8k`` with ``config="main"``.

    What `datasets` says about a missing configuration or split reaches the user as it is: it lists those there are.

    Raises:
        FileNotFoundError: neither here nor on the hub.
    """
    try:
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except (DatasetNotFoundError, ConnectionError) as error:
        raise FileNotFoundError(
            f"{name!r} is no file or folder here, and could not be had from the hub ({error}); for a local file give "
            f"its path with its ending or as './{name}', for the hub check the id, the connection and the login"
        ) from error
    return (Record(f"{name} {split}, row {place}", fields) for place, fields in enumerate(rows))
