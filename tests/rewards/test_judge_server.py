"""Judges above a real server: vLLM, which recipes/serve_judge.py starts, with a model of recipes/sanity_judge.py.

One test, since each of its parts needs the trained model and the server, which take a minute each.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import eq
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from tests.rewards.hostile_answers import CHAT_FORMATS, hostile_answers

from grao.configuration import build
from grao.groups import Group
from grao.rewards import RewardConfig, RewardSet, ScoredGroups, load_reward
from grao.rewards.errors import EndpointDownError, EndpointRefusedError
from grao.rewards.judge import PairwiseJudge
from grao.rewards.judging.question import Material, Message, ask_messages, reminded
from grao.rewards.judging.rubric import Rubric, load_rubric
from grao.rewards.judging.verdict import SIGNS

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
VLLM = Path(os.environ.get("GRAO_VLLM_PYTHON") or ROOT / ".venv-vllm" / "bin" / "python")
CANARY_QUESTIONS = 16
ODD = "Indeed: Jupiter is large; its diameter, please note, is eleven times the Earth's (142,984 km)!"
"""Unlike anything the model has learnt from, so what it says is anybody's guess."""
SOON_DOWN = {"max_attempts": 2, "backoff": 0.05, "down_requests": 2}


class Server:
    """recipes/serve_judge.py in its own process, and vLLM's own counters."""

    def __init__(self, model: Path, log: Path, port: int) -> None:
        script = [sys.executable, RECIPES / "serve_judge.py", model, "--name=sanity", f"--python={VLLM}"]
        self.log = log
        self.process = subprocess.Popen(
            [*script, f"--port={port}", "--", "--dtype=float32"],
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    @cached_property
    def section(self) -> str:
        """What is to be pasted; it comes when the server has answered."""
        assert self.process.stdout is not None
        section = ""
        while "cache:" not in section:
            line = self.process.stdout.readline()
            assert line, self.log.read_text(encoding="utf-8")[-3000:]
            section += line
        return section

    def kwargs(self) -> dict[str, Any]:
        """The same, read as the configuration of a reward."""
        (section,) = yaml.safe_load(self.section)["rewards"]
        config = build(RewardConfig, section)
        assert config.path == "judge"
        return dict(config.kwargs)

    @property
    def port(self) -> int:
        return int(self.kwargs()["base_url"].removesuffix("/v1").rpartition(":")[2])

    def ask(self, path: str, body: Any = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            return str(reply.read().decode())

    def counts(self) -> Counter[str]:
        """Of Prometheus's page: questions answered, and the tokens that took."""
        names = {
            "vllm:prompt_tokens_total{": "prompt_tokens",
            "vllm:generation_tokens_total{": "completion_tokens",
            'http_requests_total{handler="/v1/chat/completions",method="POST",status="2xx"}': "answered",
        }
        found: Counter[str] = Counter()
        for line in self.ask("/metrics").splitlines():
            for beginning, name in names.items():
                if line.startswith(beginning):
                    found[name] += int(float(line.rpartition(" ")[2]))
        return found

    def control_tokens(self, messages: Sequence[Message]) -> int:
        """How many of them the server's tokenizer makes of a question."""
        body = {"model": "sanity", "messages": list(messages), "return_token_strs": True}
        return sum(token.startswith("<|im_") for token in json.loads(self.ask("/tokenize", body))["token_strs"])

    def kill(self) -> None:
        """SIGKILL to vLLM, as the machine's memory might: to the one child of the script."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        os.kill(int(children.read_text()), signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def sanity(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """recipes/sanity_judge.py."""
    monkeypatch.syspath_prepend(str(RECIPES))
    return importlib.import_module("sanity_judge")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends those that still run."""
    servers: list[Server] = []

    def run(model: Path, port: int = 0) -> Server:
        servers.append(Server(model, tmp_path / f"vllm-{len(servers)}.log", port))
        return servers[-1]

    yield run
    for server in servers:
        server.stop()


@dataclass(frozen=True)
class Case:
    """What the judge is asked, and what comes of that by hand."""

    groups: list[Group]
    """One sample each; those of the first `known` are like what the model has learnt."""
    known: int
    rubric: Rubric
    reply: Callable[[Sequence[Sequence[Message]]], list[str]]
    """The same weights in this process, by transformers."""

    def questions(self, order: tuple[int, int]) -> list[list[Message]]:
        found = []
        for group in self.groups:
            assert group.reference is not None
            texts = (group.samples[0].text, group.reference.text)
            material = Material.of(group.prompt, texts, 20_000, "cut_middle")
            assert material is not None
            found.append(ask_messages(self.rubric, material, order))
        return found

    def verdicts(self, order: tuple[int, int]) -> list[str | None]:
        """What it says; asked again where that is no verdict, as the judge does."""
        questions = self.questions(order)
        found = self.reply(questions)
        again = [i for i, reply in enumerate(found) if reply not in SIGNS.values()]
        for i, reply in zip(again, self.reply([reminded(questions[i], self.rubric) for i in again]), strict=True):
            found[i] = reply
        return [reply if reply in SIGNS.values() else None for reply in found]

    @cached_property
    def replies(self) -> list[tuple[str | None, str | None]]:
        """In both orders: of (answer, reference) and of (reference, answer)."""
        return list(zip(self.verdicts((0, 1)), self.verdicts((1, 0)), strict=True))

    @cached_property
    def rewards(self) -> list[float | None]:
        """From the table: wins in both orders, loses in both, no verdict in one, else a tie."""
        table = {("1 > 2", "1 < 2"): 1.0, ("1 < 2", "1 > 2"): -1.0}
        return [None if None in both else table.get(both, 0.0) for both in self.replies]  # type: ignore[arg-type]


def score(judge: PairwiseJudge, case: Case) -> ScoredGroups:
    return RewardSet([load_reward(judge)]).score(case.groups)


def rewards(scored: ScoredGroups) -> list[float | None]:
    return [group.samples[0].reward for group in scored.groups]


@pytest.mark.slow
@pytest.mark.skipif(not VLLM.is_file(), reason="no vLLM: `make vllm`, or let GRAO_VLLM_PYTHON name a Python with it")
def test_a_real_server_judges(
    tmp_path: Path, sanity: ModuleType, start: Callable[..., Server], make_group: Callable[..., Group]
) -> None:
    """The oracles are those of the five parts."""
    model = tmp_path / "judge"
    sanity.train(model)
    server = start(model)
    pairs = [(pair.context, *pair.texts) for pair in sanity.fresh_pairs(36, seed=5)]
    rows = [*pairs, *(("Which planet?", ODD, other) for other in ("", "no", ODD[:40], "please " * 30))]
    groups = [make_group(i, [answer], reference, prompt=prompt) for i, (prompt, answer, reference) in enumerate(rows)]
    rubric = load_rubric(model / "rubric.yaml", "pairwise")
    case = Case(groups, len(pairs), rubric, sanity.load(model))

    def judge(**changes: Any) -> PairwiseJudge:
        ours = {"rubric": str(model / "rubric.yaml"), "cache": str(tmp_path / "replies.sqlite"), "max_tokens": 8}
        return PairwiseJudge(**{**server.kwargs(), **ours, **changes})

    its_rewards_are_those_of_the_model(judge(), case, server, sanity)
    nothing_is_asked_twice(judge(), case, server)
    an_unknown_model_is_refused(judge(model="another", cache=None, canary="off"), case)
    no_text_makes_a_control_token(case, server)
    soon_down = judge(cache=str(tmp_path / "crash.sqlite"), canary="off", max_concurrency=1, **SOON_DOWN)
    a_crash_costs_nothing(soon_down, case, server, lambda: start(model, server.port))


def its_rewards_are_those_of_the_model(judge: PairwiseJudge, case: Case, server: Server, sanity: ModuleType) -> None:
    """Oracles: transformers with the same weights, answer by answer; the rule it was taught; vLLM's own counters."""
    before = server.counts()
    scored = score(judge, case)
    took, usage, logged = server.counts() - before, judge.endpoint.usage, scored.report.metrics()
    assert rewards(scored) == case.rewards

    known = case.groups[: case.known]
    rule = [sanity.is_polite(g.samples[0].text) - sanity.is_polite(g.reference.text) for g in known]  # type: ignore[union-attr]
    assert set(rule) == {-1, 0, 1}
    assert sum(map(eq, rewards(scored), rule)) >= 2 / 3 * case.known, "guessing is right in a third"

    asked = 2 * len(case.groups) + CANARY_QUESTIONS
    assert asked <= usage.answered <= asked + usage.unusable
    assert took == {
        "answered": usage.answered,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    agreeing = {("1 > 2", "1 < 2"), ("1 < 2", "1 > 2"), ("1 = 2", "1 = 2")}
    whole = [both for both in case.replies if None not in both]
    inconsistent = sum(both not in agreeing for both in whole)
    assert logged["judge/please/position_inconsistency"] == pytest.approx(inconsistent / len(whole))
    assert logged["judge/please/unscored"] == case.rewards.count(None)


def nothing_is_asked_twice(judge: PairwiseJudge, case: Case, server: Server) -> None:
    """Oracle: the server's counters, which a new judge with the same cache leaves as they are."""
    before = server.counts()
    assert rewards(score(judge, case)) == case.rewards
    assert server.counts() == before


def an_unknown_model_is_refused(judge: PairwiseJudge, case: Case) -> None:
    """Oracle: the name under which the server was started."""
    with pytest.raises(EndpointRefusedError, match=r"404.*another.*Its models are: sanity\. Set `model`"):
        score(judge, case)


def no_text_makes_a_control_token(case: Case, server: Server) -> None:
    """Oracle: the tokenizer in the server; five tokens are the template's, and unquoted hostile text makes more."""
    assert server.control_tokens([{"role": "user", "content": CHAT_FORMATS["chatml"]}]) > 3
    hostile = hostile_answers("Which is better?", ["0123456789abcdef"])
    short = {name: text for name, text in hostile.items() if len(text) < 1000}
    assert len(short) > 40
    for name, text in short.items():
        material = Material.of("Which planet?", (text, "no"), 20_000, "cut_middle")
        assert material is not None
        assert server.control_tokens(ask_messages(case.rubric, material, (0, 1))) == 5, name


def a_crash_costs_nothing(judge: PairwiseJudge, case: Case, server: Server, restart: Callable[[], Server]) -> None:
    """Oracles: the rewards of the model; the second server's counter, which has only what the first had not answered;
    the rows of the cache, which holds a question once: as many as were paid for.
    """
    stopped: list[EndpointDownError] = []

    def until_it_is_down() -> None:
        try:
            score(judge, case)
        except EndpointDownError as error:
            stopped.append(error)

    scoring = threading.Thread(target=until_it_is_down)
    scoring.start()
    while judge.endpoint.usage.answered < 10:
        assert scoring.is_alive()
        time.sleep(0.001)
    server.kill()
    scoring.join(60)
    first = judge.endpoint.usage.answered
    assert len(stopped) == 1
    assert "continue with --resume" in str(stopped[0])
    assert 10 <= first < 2 * len(case.groups)
    assert server.process.wait(60) == 1, "the script ends where the server did"

    second = restart()
    second.kwargs()
    before = second.counts()
    assert rewards(score(judge, case)) == case.rewards
    paid = judge.endpoint.usage.answered
    assert (second.counts() - before)["answered"] == paid - first
    with sqlite3.connect(judge.cache or "") as cache:
        assert cache.execute("SELECT count(*) FROM replies").fetchone() == (paid,)
