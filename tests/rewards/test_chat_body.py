"""Bodies of chat completions, whole and broken."""

from __future__ import annotations

import json

import pytest

from grao.rewards.endpoint.chat_body import Fault, read_body
from grao.rewards.endpoint.reply_cache import Reply


def body(message, finish="stop", **more):
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}], **more}).encode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (body({"content": "1 > 2"}, usage={"prompt_tokens": 7, "completion_tokens": 3}), Reply("1 > 2", "stop", 7, 3)),
        (body({"content": "1 > 2"}, None), Reply("1 > 2")),
        (body({"content": ""}), Reply("")),
        (body({"content": "cut"}, "length"), Reply("cut", "length")),
        (body({"content": None, "refusal": "I cannot."}), Reply("I cannot.")),
        (body({"content": None}, "length"), Reply("", "length")),  # a model that thought until it was cut off
        (body({"content": None}, "content_filter"), Reply("", "content_filter")),
        (body({"content": "a"}, usage={"prompt_tokens": None}), Reply("a")),
        (body({"content": "a"}, usage="free"), Reply("a")),
        (b'{"choices": [{"message": {"content": "half \\ud800"}}]}', Reply("half ?")),
    ],
)
def test_replies(content, expected):
    """Oracle: by hand. What would come out the same the next time is a reply, not a fault."""
    assert read_body(content) == expected


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "invalid JSON"),
        (body({"content": "1 > 2"})[:-5], "invalid JSON"),
        (b"<html>502</html>", "invalid JSON"),
        (b"[" * 100_000, "invalid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"{}", "no choices"),
        (b"[]", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": ["1 > 2"]}', "no choices"),
        (b'{"choices": null, "error": {"message": "upstream is busy"}}', "no choices"),
        (body({"content": None}), "no content"),
        (body({"content": ["1 > 2"]}), "no content"),
        (body("1 > 2"), "no content"),
    ],
)
def test_faults(content, kind):
    """Oracle: by hand."""
    found = read_body(content)
    assert isinstance(found, Fault)
    assert found.kind == kind
    assert ("upstream is busy" in found.detail) == (b"busy" in content)
