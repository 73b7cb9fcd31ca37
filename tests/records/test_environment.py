"""The versions that a run records."""

from __future__ import annotations

import json
import platform
import socket

import pyarrow as pa

from grao import __version__
from grao.records.environment import environment


def test_versions_are_those_that_run() -> None:
    """Oracle: what the libraries say of themselves."""
    found = environment()
    assert found["grao"] == __version__
    assert found["python"] == platform.python_version()
    assert found["libraries"]["pyarrow"] == pa.__version__


def test_it_names_no_place_and_is_json() -> None:
    """Oracle: this machine's name and the user's home, which must not occur."""
    import pathlib

    text = json.dumps(environment())
    assert socket.gethostname() not in text
    assert str(pathlib.Path.home()) not in text


def test_a_library_that_is_not_installed_is_left_out(monkeypatch) -> None:
    """Oracle: a name that no package has."""
    monkeypatch.setattr("grao.records.environment.LIBRARIES", ("pyarrow", "no-such-library-at-all"))
    assert list(environment()["libraries"]) == ["pyarrow"]
