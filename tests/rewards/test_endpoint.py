"""Asking an endpoint that fails. Oracle for the cost throughout: the endpoint's own counts."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
import traceback
from collections import Counter

import pytest
from tests.rewards.faulty_endpoint import FAULTS, ODD_REPLIES, FaultyEndpoint

from grao.rewards.endpoint.client import AskResult, Endpoint, EndpointConfig, UnusableReplyError
from grao.rewards.errors import EndpointDownError, EndpointRefusedError, StopError

KEY = "sk-a-secret-of-forty-two-letters"
VERDICTS = ("1 > 2", "1 = 2", "1 < 2")


def judge(messages):
    """A verdict that depends on nothing but the question."""
    return VERDICTS[sum(map(ord, messages[-1]["content"])) % 3]


def read(text):
    if text not in VERDICTS:
        raise UnusableReplyError(f"no verdict: {text[:20]!r}")
    return text


def question(i):
    return [{"role": "system", "content": "Judge."}, {"role": "user", "content": f"pair {i}"}]


def stricter(i):
    return [{"role": "system", "content": "Judge in one line."}, {"role": "user", "content": f"pair {i}"}]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def make(server, **settings):
    quick = {"api_key_env": "OPENAI_API_KEY", "timeout": 5.0, "backoff": 0.001, "longest_wait": 0.1, "max_attempts": 8}
    return Endpoint(EndpointConfig("judge", base_url=server.url, **{**quick, **settings}))


def ask_all(endpoint, n, *, retry=True, ask_read=read):
    async def gathered():
        asks = (endpoint.ask(question(i), ask_read, retry_messages=stricter(i) if retry else None) for i in range(n))
        return await asyncio.gather(*asks)

    return asyncio.run(gathered())


def ask(endpoint, i=0, **kwargs):
    return asyncio.run(endpoint.ask(question(i), read, **kwargs))


# ---------------------------------------------------------------------- what is sent, and what comes back


def test_a_healthy_endpoint_is_asked_once_a_question():
    """Oracle: the judge called directly; the server's counts."""
    with FaultyEndpoint(judge, key=KEY) as server:
        endpoint = make(server)
        assert [a.value for a in ask_all(endpoint, 20)] == [judge(question(i)) for i in range(20)]
        assert sum(server.requests.values()) == sum(server.paid.values()) == 20
        assert (endpoint.usage.requests, endpoint.usage.answered, endpoint.usage.retries) == (20, 20, 0)


def test_the_request_by_hand():
    """Oracle: the JSON written out by hand; settings of null are not in it."""
    with FaultyEndpoint(judge) as server:
        ask(make(server, temperature=None, seed=3, max_tokens=7, extra_body={"top_k": 1}))
        (sent,) = map(json.loads, server.requests)
        assert sent == {"model": "judge", "messages": question(0), "max_tokens": 7, "seed": 3, "top_k": 1}


def test_tokens_and_money_by_hand():
    """Oracle: "Judge." and "pair i" are 3 words, a verdict 3: 30 and 30 tokens at 2 and 10 USD a million."""
    with FaultyEndpoint(judge) as server:
        endpoint = make(server, price_per_million_input=2.0, price_per_million_output=10.0)
        ask_all(endpoint, 4)
        before = endpoint.usage
        ask_all(endpoint, 10)
        used = endpoint.usage - before
        assert (used.prompt_tokens, used.completion_tokens) == (30, 30)
        assert used.cost == pytest.approx(30 * 2e-6 + 30 * 10e-6, rel=1e-12)
        assert used.metrics()["answered"] == 10.0
        assert (make(server).usage - make(server).usage).cost is None  # without prices it is unknown, not 0


def test_no_more_requests_at_once_than_allowed():
    """Oracle: the server's own gauge, with answers that take 20 ms so that requests overlap."""
    with FaultyEndpoint(judge, delay=0.02) as server:
        ask_all(make(server, max_concurrency=3), 12)
        assert server.most_at_once == 3


def test_half_a_character_is_sent_and_received():
    """Oracle: a lone surrogate has no UTF-8; it arrives as "?" and comes back as "?", and nothing raises."""
    with FaultyEndpoint(lambda messages: "\ud800") as server:
        endpoint = make(server, cache=None)
        asked = asyncio.run(endpoint.ask([{"role": "user", "content": "a\udfff"}], str))
        assert asked == AskResult("?", None, False)
        assert "a?" in next(iter(server.requests))


# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_alone_is_asked_again(fault):
    """Oracle: two faults, then health: three requests, one of them paid, and the verdict of the judge itself."""
    with FaultyEndpoint(judge) as server:
        endpoint = make(server, timeout=0.2 if fault == "hang" else 5.0)
        server.next += [fault, fault]
        assert ask(endpoint) == AskResult(judge(question(0)), None, False)
        assert (sum(server.requests.values()), sum(server.paid.values())) == (3, 1)
        usage = endpoint.usage
        assert (usage.requests, usage.retries, usage.answered) == (3, 2, 1)
        assert sum(usage.faults.values()) == 2
        assert len(usage.faults) == 1


KINDS = {
    "close": "connection",
    "cut-off": "connection",
    "hang": "timeout",
    "truncated": "invalid JSON",
    "invalid": "invalid JSON",
    "no-choices": "no choices",
    "null-content": "no content",
    "not-utf8": "not UTF-8",
    **dict.fromkeys(["429", "429-seconds", "429-date"], "status 429"),
    **{status: f"status {status}" for status in ("500", "502", "503")},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_counted_by_its_kind_and_given_up_at_last(fault):
    """Oracle: the table above; a question alone does not mean that the endpoint is down."""
    with FaultyEndpoint(judge) as server:
        server.always = fault
        endpoint = make(server, max_attempts=2, timeout=0.2 if fault == "hang" else 5.0)
        asked = ask(endpoint)
        assert asked.value is None
        assert asked.reason.startswith("gave up after 2 attempts: ")
        assert endpoint.usage.faults == {KINDS[fault]: 2}
        assert endpoint.usage.given_up == 1


def test_a_question_alone_with_an_endpoint_that_has_gone_stops():
    """Oracle: by hand: its three attempts, then the list of models, which is not answered either; once back, it is."""
    with FaultyEndpoint(judge) as server:
        server.away = True
        endpoint = make(server, max_attempts=3)
        with pytest.raises(EndpointDownError, match=r"is down: 3 requests in a row failed"):
            ask(endpoint)
        assert (endpoint.usage.requests, endpoint.usage.given_up) == (3, 0)
        server.away = False
        assert ask(endpoint).value == judge(question(0))


def test_a_question_that_fails_by_itself_is_given_up():
    """Oracle: by hand: the sixth of six fails every time; five are scored, and the list of models is there."""
    with FaultyEndpoint(judge) as server:
        endpoint = make(server, max_attempts=3, max_concurrency=1)
        server.next += [*[None] * 5, *["500"] * 3]
        asked = ask_all(endpoint, 6)
        assert [a.value for a in asked] == [*(judge(question(i)) for i in range(5)), None]
        assert endpoint.usage.given_up == 1


@pytest.mark.parametrize("reply", ODD_REPLIES)
def test_a_reply_that_cannot_be_read_is_asked_for_with_other_words(reply):
    """Oracle: by hand: two paid answers, the second to the stricter question and with the next seed."""
    with FaultyEndpoint(judge) as server:
        server.next += [reply]
        endpoint = make(server)
        assert ask(endpoint, retry_messages=stricter(0)) == AskResult(judge(stricter(0)), None, False)
        sent = [json.loads(question) for question in server.requests]
        assert [s["messages"] for s in sent] == [question(0), stricter(0)]
        assert [s["seed"] for s in sent] == [0, 1]
        assert endpoint.usage.unusable == 1


def test_replies_that_can_never_be_read_leave_the_question_unscored():
    """Oracle: by hand: as many paid answers as `max_reply_attempts`, and never a value."""
    with FaultyEndpoint(lambda messages: "I will not choose.") as server:
        endpoint = make(server, max_reply_attempts=3)
        assert ask(endpoint) == AskResult(None, "unparsable", False)
        assert sum(server.paid.values()) == endpoint.usage.unusable == 3


@pytest.mark.slow
def test_a_third_of_all_requests_fails_and_nothing_is_lost():
    """Oracle: the judge itself for the values; the server for the cost: every question paid exactly once."""
    n = 300
    with FaultyEndpoint(judge, rate=0.3) as server:
        endpoint = make(server, max_attempts=12, timeout=3.0)
        asked = ask_all(endpoint, n)
        assert [a.value for a in asked] == [judge(question(i)) for i in range(n)]
        assert set(server.paid.values()) == {1}
        assert len(server.paid) == n
        assert set(server.played) == set(FAULTS)  # each of them happened
        usage = endpoint.usage
        assert usage.requests == sum(server.requests.values()) == n + sum(server.played.values())
        assert sum(usage.faults.values()) == sum(server.played.values())


@pytest.mark.slow
def test_faults_and_odd_replies_together_lose_only_what_is_counted(tmp_path):
    """Oracle: value or reason for every question; values are the judge's; no paid answer is asked for again."""
    n = 300
    with FaultyEndpoint(judge, rate=0.3, faults=[*FAULTS, *ODD_REPLIES, *ODD_REPLIES]) as server:
        endpoint = make(server, max_attempts=12, timeout=3.0, cache=str(tmp_path / "replies.sqlite"))
        first = ask_all(endpoint, n)
        paid, requests = sum(server.paid.values()), sum(server.requests.values())
        for i, asked in enumerate(first):
            assert asked.value in (judge(question(i)), judge(stricter(i))) or asked == AskResult(
                None, "unparsable", False
            )
        assert 0 < sum(asked.value is None for asked in first) < n / 10
        assert set(server.paid.values()) == {1}
        assert endpoint.usage.answered == paid
        # Again, in another process as it were: the same values and reasons, and the server hears nothing of it.
        assert [(a.value, a.reason) for a in ask_all(make(server, cache=str(tmp_path / "replies.sqlite")), n)] == [
            (a.value, a.reason) for a in first
        ]
        assert sum(server.requests.values()) == requests


def test_a_retry_after_is_waited_for_up_to_a_limit():
    """Oracle: the server's clock: at least 0.05 s for "0.05", and the limit, not 1 s, for a date 1 s ahead."""
    with FaultyEndpoint(judge) as server:
        server.next += ["429-seconds"]
        ask(make(server, backoff=0.0))
        assert server.times[1] - server.times[0] >= 0.05
        server.next += ["429-date"]
        ask(make(server, backoff=0.0, longest_wait=0.1), 1)
        assert (
            0.1 > server.times[3] - server.times[2] - 0.1 >= -0.1
        )  # the date counts whole seconds: 0 to 0.1 s of wait


# ---------------------------------------------------------------------- when it will not go on


def test_a_rejected_question_is_unscored_and_the_others_are_not():
    """Oracle: by hand: question 3 is too long for the server; it is asked once."""
    with FaultyEndpoint(judge) as server:
        server.rejects = lambda messages: messages[-1]["content"] == "pair 3"
        endpoint = make(server)
        asked = ask_all(endpoint, 6)
        assert [a.value is None for a in asked] == [False, False, False, True, False, False]
        assert asked[3].reason == "rejected by the endpoint: 400 This model's maximum context length is 64 tokens"
        assert (endpoint.usage.rejected, endpoint.usage.requests) == (1, 6)


def test_rejections_from_the_first_on_are_a_misconfiguration():
    """Oracle: by hand: the third of three rejections stops and quotes the server."""
    with FaultyEndpoint(judge) as server:
        server.rejects = lambda messages: True
        endpoint = make(server, down_requests=3)
        assert ask(endpoint, 0).reason.startswith("rejected")
        assert ask(endpoint, 1).reason.startswith("rejected")
        with pytest.raises(EndpointRefusedError, match=r"first 3 questions.*maximum context length"):
            ask(endpoint, 2)


def test_a_wrong_key_stops_at_once_and_is_named_not_shown(monkeypatch):
    """Oracle: by hand: one request; the variable is named. The server repeats the key it was sent."""
    monkeypatch.setenv("JUDGE_KEY", "another-secret-key")
    with FaultyEndpoint(judge, key=KEY) as server:
        with pytest.raises(
            EndpointRefusedError, match=r"401.*Check the key in the environment variable JUDGE_KEY"
        ) as caught:
            ask(make(server, api_key_env="JUDGE_KEY"))
        assert "another-secret-key" not in shown(caught.value)
        assert sum(server.requests.values()) == 1
        monkeypatch.delenv("JUDGE_KEY")
        with pytest.raises(ValueError, match=r"JUDGE_KEY with the key for http.* is not set"):
            make(server, api_key_env="JUDGE_KEY")


def test_the_key_for_openai_goes_to_no_other_endpoint(monkeypatch):
    """Oracle: a server that refuses requests without this key; it is sent once the variable is named."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with FaultyEndpoint(judge, key=KEY) as server:
        with pytest.raises(EndpointRefusedError, match=r"401.*No key was sent.*api_key_env"):
            ask(make(server, api_key_env=None))
        assert ask(make(server)).value == judge(question(0))


@pytest.mark.parametrize("status", ["401", "403"])
def test_other_refusals_stop_too(status):
    """Oracle: by hand: one request."""
    with FaultyEndpoint(judge) as server:
        server.always = status
        with pytest.raises(EndpointRefusedError, match=status):
            ask(make(server))
        assert sum(server.requests.values()) == 1


def test_an_unknown_model_is_answered_with_those_there_are():
    """Oracle: the server's list; and a page that is not there at all points at base_url."""
    with FaultyEndpoint(judge, models=["small-judge", "large-judge"]) as server:
        with pytest.raises(EndpointRefusedError, match="Its models are: small-judge, large-judge"):
            ask(make(server))
        server.always = "404"
        with pytest.raises(EndpointRefusedError, match="check base_url, which mostly ends in /v1"):
            ask(Endpoint(EndpointConfig("small-judge", base_url=server.url)))


def test_an_endpoint_that_is_down_stops_the_run():
    """Oracle: by hand: nothing listens; of 40 questions at most `SUSPICIOUS` and those in progress are sent at once,
    then one at a time, until 3 of them have used up their attempts."""
    with FaultyEndpoint(judge) as server:
        pass
    endpoint = make(server, max_attempts=3, down_requests=3)
    with pytest.raises(
        EndpointDownError, match=r"is down: \d+ requests in a row failed.*No `cache` is set.*continue with --resume"
    ):
        ask_all(endpoint, 40)
    assert endpoint.usage.answered == 0
    assert endpoint.usage.requests < 40
    assert isinstance(EndpointDownError(), StopError)


def test_down_for_too_long_names_the_cache(tmp_path):
    """Oracle: by hand: with plenty of attempts it is the clock that ends it; the message names the file."""
    with FaultyEndpoint(judge) as server:
        endpoint = make(server, max_attempts=1000, down_after=0.3, cache=str(tmp_path / "kept.sqlite"))
        ask_all(endpoint, 5)
        server.always = "503"
        with pytest.raises(EndpointDownError, match=r"503 told to fail with 503.*kept\.sqlite"):
            asyncio.run(ask_two(endpoint))
        server.always = None
        assert ask(endpoint, 7).value == judge(question(7))  # it is back, and so is the same object


async def ask_two(endpoint):
    return await asyncio.gather(*(endpoint.ask(question(i), read) for i in (5, 6)))


def test_an_outage_that_ends_costs_no_verdict():
    """Oracle: the judge itself: away for 300 ms, with 16 questions whose own pauses add up to 250 ms at the most."""
    with FaultyEndpoint(judge) as server:
        server.always = "close"

        def come_back():
            while len(server.times) < 8:
                time.sleep(0.001)
            time.sleep(0.3)
            server.always = None

        threading.Thread(target=come_back, daemon=True).start()
        endpoint = make(server, max_attempts=4, backoff=0.05, down_after=20.0)
        assert [a.value for a in ask_all(endpoint, 16)] == [judge(question(i)) for i in range(16)]
        assert endpoint.usage.given_up == 0
        assert endpoint.usage.faults["connection"] >= 8


# ---------------------------------------------------------------------- cache, loops, keys


def test_the_same_question_at_once_is_asked_once():
    """Oracle: the server's counts, with answers that take 50 ms so that all ten wait together."""
    with FaultyEndpoint(judge, delay=0.05) as server:
        endpoint = make(server)

        async def ten():
            return await asyncio.gather(*(endpoint.ask(question(0), read) for _ in range(10)))

        asked = asyncio.run(ten())
        assert sum(server.requests.values()) == 1
        assert {a.value for a in asked} == {judge(question(0))}
        assert sorted(a.cached for a in asked) == [False] + [True] * 9


def test_a_call_that_waits_for_a_cancelled_question_asks_it():
    """Oracle: by hand: the first is cancelled while both wait; the second still gets its verdict."""
    with FaultyEndpoint(judge, delay=0.1) as server:
        endpoint = make(server, timeout=5.0)

        async def two():
            first = asyncio.create_task(endpoint.ask(question(0), read))
            second = asyncio.create_task(endpoint.ask(question(0), read))
            await asyncio.sleep(0.02)
            first.cancel()
            return await second

        assert asyncio.run(two()).value == judge(question(0))


@pytest.mark.parametrize(
    "change",
    [{"temperature": 0.5}, {"max_tokens": 9}, {"seed": 1}, {"extra_body": {"top_k": 2}}, {"model": "other"}, {}],
)
def test_the_cache_tells_questions_apart(change, tmp_path):
    """Oracle: the server's counts: a question with other settings is another one; the same one is not asked again."""
    cache = str(tmp_path / "replies.sqlite")
    with FaultyEndpoint(judge, models=["judge", "other"]) as server:
        assert not ask(make(server, cache=cache)).cached
        settings = {"model": "judge", "base_url": server.url, "cache": cache, **change}
        assert ask(Endpoint(EndpointConfig(**settings))).cached == (change == {})
        assert sum(server.requests.values()) == 1 + (change != {})


def test_several_loops_and_threads_share_an_endpoint():
    """Oracle: the judge itself. Each thread has its own loop; loops cannot share connections."""
    with FaultyEndpoint(judge, rate=0.2, faults=["close", "503"]) as server:
        endpoint = make(server)
        found = {}
        threads = [
            threading.Thread(target=lambda i=i: found.update({i: ask_all(endpoint, 10)}), daemon=True)
            for i in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        expected = [judge(question(i)) for i in range(10)]
        assert [[a.value for a in found[i]] for i in range(4)] == [expected] * 4


def shown(error):
    return "".join(traceback.format_exception(error)) + repr(error) + repr(error.__context__) + repr(error.__cause__)


def test_the_key_is_nowhere(tmp_path, caplog):
    """Oracle: a search for the key in reprs, all log lines at DEBUG, exceptions with their causes, and the cache file.

    The server says the key in every message and in its verdicts.
    """
    cache = tmp_path / "replies.sqlite"
    caplog.set_level(logging.DEBUG)
    with FaultyEndpoint(lambda messages: f"your key is {KEY}") as server:
        endpoint = make(server, cache=str(cache), max_attempts=20)
        server.next += [fault for fault in FAULTS if fault != "hang"]
        results = [asyncio.run(endpoint.ask(question(i), str)) for i in range(4)]
        for status in ("401", "404"):
            server.always = status
            with pytest.raises(EndpointRefusedError) as caught:
                ask(endpoint, 9)
            assert KEY not in shown(caught.value)
    assert results[0].value == "your key is <OPENAI_API_KEY>"
    assert KEY not in repr(endpoint) + repr(endpoint.config) + repr(vars(endpoint)) + repr(results)
    assert KEY not in caplog.text
    assert "Authorization" not in caplog.text
    with sqlite3.connect(cache) as rows:
        assert KEY not in repr(rows.execute("SELECT * FROM replies").fetchall())


def test_one_line_of_log_for_each_kind_of_trouble(caplog):
    """Oracle: counted: 60 questions at 50 % of three faults, and three warnings."""
    caplog.set_level(logging.WARNING)
    with FaultyEndpoint(judge, rate=0.5, faults=["503", "close", "invalid"]) as server:
        ask_all(make(server, max_attempts=40), 60)
    told = Counter(record.name for record in caplog.records)
    assert told == {"grao.rewards.endpoint.client": 3}


# ---------------------------------------------------------------------- settings


def test_openai_itself_needs_a_key(monkeypatch):
    """Oracle: the variable is named; another endpoint needs none."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match=r"OPENAI_API_KEY with the key for https.* is not set"):
        Endpoint(EndpointConfig("gpt"))
    with FaultyEndpoint(judge) as server:
        assert ask(make(server, api_key_env=None)).value == judge(question(0))


def test_a_key_with_a_line_break_is_mended_and_one_that_is_none_is_refused(monkeypatch):
    """Oracle: an HTTP header holds neither; a client would quote the whole key in its error."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY + "\n")
    with FaultyEndpoint(judge, key=KEY) as server:
        assert ask(make(server)).value == judge(question(0))
    monkeypatch.setenv("OPENAI_API_KEY", "ключ")
    with pytest.raises(ValueError, match="contains characters that no key has") as caught:
        Endpoint(EndpointConfig("gpt"))
    assert "ключ" not in shown(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000/v1"}, "Give an address such as"),
        ({"base_url": "http://me:secret@host/v1"}, "base_url contains a user name, a password or a query"),
        ({"max_concurrency": 0}, "max_concurrency is 0"),
        ({"timeout": 0}, "timeout is 0"),
        ({"backoff": -1.0}, "backoff is -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    """Oracle: the message names the setting; a secret in an address is not repeated."""
    with pytest.raises(ValueError, match=message) as caught:
        EndpointConfig("judge", **settings)
    assert "secret" not in str(caught.value)
