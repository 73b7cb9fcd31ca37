"""An independent reader of a judge's question: written from the description of the form, sharing no code with it.

It walks lines and characters, refuses what the form does not allow, and gives back context and texts exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Parsed:
    """What stands in a question."""

    code: str
    context: list[tuple[str | None, str]]
    texts: list[str]
    left_out: list[int]
    """Characters left out of each text."""
    request: str
    """The line after the blocks, and a reminder if there is one."""


@dataclass
class Block:
    """One block."""

    title: str
    code: str
    parts: list[tuple[str | None, list[str]]] = field(default_factory=lambda: [(None, [])])


def parse_prompt(message: str) -> Parsed:
    """The parts of a user's message; ValueError where it has another form."""
    lines = message.split("\n")
    blocks: list[Block] = []
    at = 0
    while at < len(lines) and lines[at].startswith("=== BEGIN "):
        block, at = read_block(lines, at)
        blocks.append(block)
        if lines[at] != "":
            raise ValueError(f"a blank line was due after a block, found {lines[at]!r}")
        at += 1
    titles = [block.title.removesuffix(" (blank)") for block in blocks]
    if titles not in (["CONTEXT", "TEXT 1", "TEXT 2"], ["CONTEXT", "TEXT"]) or len({b.code for b in blocks}) != 1:
        raise ValueError(f"found blocks {titles} with codes {[b.code for b in blocks]}")
    context, *texts = blocks
    turns = [(note, join(of)) for note, of in context.parts if note is not None or of]
    return Parsed(
        blocks[0].code, turns, [text_of(b)[0] for b in texts], [text_of(b)[1] for b in texts], "\n".join(lines[at:])
    )


def read_block(lines: list[str], at: int) -> tuple[Block, int]:
    first = lines[at]
    title, _, code = first.removeprefix("=== BEGIN ").removesuffix(" ===").rpartition(" ")
    block = Block(title, code)
    for place in range(at + 1, len(lines)):
        line = lines[place]
        if line == f"=== END {title} {code} ===":
            return block, place + 1
        if line.startswith("| "):
            block.parts[-1][1].append(line[2:])
        elif line.startswith("-- "):
            block.parts.append((line[3:], []))
        else:
            raise ValueError(f"line {line!r} in block {title} is neither quoted nor a note")
    raise ValueError(f"block {title} never ends")


def text_of(block: Block) -> tuple[str, int]:
    """The text of a block, its halves joined, and how much is missing between them."""
    (_, head), *rest = block.parts
    if not rest:
        return join(head), 0
    [(note, tail)] = rest
    number, _, words = (note or "").partition(" ")
    if words != "characters left out":
        raise ValueError(f"unexpected note {note!r}")
    return join(head) + join(tail), int(number)


def join(lines: list[str]) -> str:
    return unescaped(undotted("\n".join(lines)))


def undotted(text: str) -> str:
    """Without the one dot behind each character that needs it; characters are looked at one by one."""
    out: list[str] = []
    at = 0
    while at < len(text):
        out.append(text[at])
        at += 1
        if at < len(text) and text[at] == "·" and dot_is_ours(text[at - 1], text, at):
            at += 1
    return "".join(out)


def dot_is_ours(before: str, text: str, at: int) -> bool:
    if before in "<＜﹤":
        return True
    behind = at
    while behind < len(text) and text[behind] == "·":
        behind += 1
    following = text[behind] if behind < len(text) else ""
    if before in ">＞":
        return following != "" and following in ">＞"
    if before in "~～":
        return following != "" and following in "[［"
    if before in "]］" and following != "" and following in "~～":
        return True
    return before in "[［" and is_bracketed_word(text, behind)


def is_bracketed_word(text: str, at: int) -> bool:
    """Whether 1 to 60 characters, no white space and no bracket among them, are closed by a bracket; not "[1]"."""
    for end in range(at, min(len(text), at + 61)):
        if text[end] in "]］":
            return end > at and not set(text[at:end]) <= set("0123456789,.-")
        if text[end].isspace() or text[end] in "[［<＜﹤>＞~～·":
            return False
    return False


def unescaped(text: str) -> str:
    head, *marks = text.split("⟨U+")
    out = [head]
    for mark in marks:
        digits, closed, rest = mark.partition("⟩")
        if not closed:
            raise ValueError(f"a mark is not closed: {mark[:20]!r}")
        out += [chr(int(digits, 16)), rest]
    return "".join(out)
