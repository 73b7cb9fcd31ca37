from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from grao.configuration import build
from grao.rollout import EngineError
from grao.training import RunConfig, TrainedRun, train

ENGINE = """
from pathlib import Path

from grao.rollout import EngineError, LocalEngine


def fail(version):
    if version == "2" and not Path("repaired").exists():
        raise EngineError("server http://x: no answer")


class FailsToSample(LocalEngine):
    def sample(self, requests, params):
        fail(self.version)
        return super().sample(requests, params)


class FailsToSync(LocalEngine):
    def sync(self, model, version):
        fail(version)
        super().sync(model, version)
"""


def go(config: dict[str, Any], **flags: bool) -> TrainedRun:
    return train(build(RunConfig, config), console=Console(file=io.StringIO(), width=200), **flags)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FailsToSample", "FailsToSync"])
def test_an_engine_that_fails_leaves_a_checkpoint_to_resume_from(
    kind: str, workplace: Any, config: dict[str, Any]
) -> None:
    """Oracle: the run whose engine never fails, bit for bit; the message names the checkpoint of the last step."""
    (workplace / "failing.py").write_text(ENGINE, encoding="utf-8")
    config["trainer"] |= {"max_steps": 4, "save_steps": 100, "output_dir": "whole"}
    whole = go(config)
    config["engine"] = {"path": f"failing.py:{kind}"}
    config["trainer"]["output_dir"] = "stopped"
    with pytest.raises(EngineError, match=r"no answer\. Resume from stopped/checkpoint-2 with --resume"):
        go(config)
    (workplace / "repaired").touch()
    resumed = go(config, resume=True)
    left, right = (load_file(run.model / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(left[name], right[name]) for name in left)
