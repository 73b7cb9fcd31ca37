"""What every test shares: no network, no telemetry, one torch thread, and the way to the real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Read once, when the libraries are imported: so before any test module is, and inherited by the processes tests start.
os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
)


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> None:
    """Sums in one order on every machine, and workers that do not fight for cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; read-only, and not part of it."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real data sets (gsm8k, hh-rlhf) in ../shared/data, beside the repository")
    return folder
