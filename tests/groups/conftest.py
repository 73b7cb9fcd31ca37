"""Shape suffixes are checked in every test of batches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests import shapes


@pytest.fixture(autouse=True)
def _shapes_are_what_names_say() -> Iterator[None]:
    with shapes.checked():
        yield
