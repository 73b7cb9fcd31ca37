"""How a tokenizer's chat template writes a prompt and the answer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import TemplateError

from grao.data.messages import Messages

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROBE = "probe-answer"


def render(tokenizer: PreTrainedTokenizerBase, messages: Messages, *, for_answer: bool) -> str:
    """A conversation as the chat template writes it; `for_answer` ends it where the assistant begins.

    Raises:
        ValueError: what the template says against the conversation.
    """
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=for_answer))
    except TemplateError as error:
        roles = ", ".join(turn["role"] for turn in messages)
        raise ValueError(
            f"the chat template refuses a conversation of roles {roles}: {error}; change the conversation, or set "
            "another tokenizer.chat_template"
        ) from error


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the chat template writes after an answer, without the white space that separates it from the next turn.

    Example: ``"<|im_end|>"``. Empty for a template that ends an answer with nothing.
    """
    turns = [{"role": "user", "content": "probe-question"}, {"role": "assistant", "content": PROBE}]
    return render(tokenizer, turns, for_answer=False).rpartition(PROBE)[2].strip()


def templated_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Messages, answer: str, end: str
) -> tuple[str, str | None]:
    """The whole conversation as templated, and what of it the answer adds to the templated prompt.

    The white space that a template writes after `end`, the end of a turn, belongs to the next turn: no sample that
    stops at the end of its turn holds it. It is left out.

    The second is None where the template writes the prompt differently once it is answered (some templates open a
    thinking block for the answer and take it out of the past): the answer is no continuation of the prompt then.
    """
    whole = render(tokenizer, [*prompt, {"role": "assistant", "content": answer}], for_answer=False)
    if end:
        whole = whole.rstrip()
    opened = render(tokenizer, prompt, for_answer=True)
    return whole, whole[len(opened) :] if whole.startswith(opened) else None


def transcript(messages: Messages) -> str:
    r"""A conversation without any chat template: labelled turns, open where the assistant's begins.

    >>> transcript([{"role": "user", "content": "3 + 4?"}])
    'User: 3 + 4?\n\nAssistant:'
    """
    turns = [f"{turn['role'].capitalize()}: {turn['content']}" for turn in messages]
    return "\n\n".join([*turns, "Assistant:"])
