"""From the text that a model answered to a conversation, or the reason why it is none.

Models wrap JSON in fences, introduce it, or add a remark after it; the first object or list that can be decoded and
holds messages is taken.
"""

import json
from typing import Any

from nanochat.tasks.base import Conversation
from nanochat.tasks.custom_json import problem_of_line

_KEPT = ("role", "content")
_TRIES = 50  # places where JSON may begin; an answer of nothing but brackets must not take minutes


class Refused(Exception):
    """An answer that is not taken. The text is one of few reasons, so that they can be counted."""


def parse_conversation(text: str) -> Conversation:
    """The conversation in `text`. Raises Refused: no JSON, or a conversation that the tasks would not read."""
    messages = _find_messages(text)
    if messages is None:
        raise Refused("no conversation in JSON")
    conversation = {"messages": [_plain(message) for message in messages]}
    line = json.dumps(conversation, ensure_ascii=False).encode("utf-8", "replace")
    if problem_of_line(line) is not None:
        raise Refused("roles or texts that are not a conversation")
    if conversation["messages"][-1]["role"] != "assistant":
        raise Refused("the assistant does not speak last")
    kept: Conversation = json.loads(line)
    return kept


def _plain(message: Any) -> Any:
    """Role and content alone, the content without blanks around it; what is no message is left as it is."""
    if not isinstance(message, dict):
        return message
    kept = {key: message[key] for key in _KEPT if key in message}
    content = kept.get("content")
    return {**kept, "content": content.strip()} if isinstance(content, str) else kept


def _find_messages(text: str) -> list[Any] | None:
    decoder, position = json.JSONDecoder(), 0
    for _ in range(_TRIES):
        start = _next_open(text, position)
        if start is None:
            break
        try:
            value, position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            position = start + 1
            continue
        messages = value.get("messages") if isinstance(value, dict) else value
        if isinstance(messages, list) and messages and isinstance(messages[0], dict) and "role" in messages[0]:
            return messages
    return None


def _next_open(text: str, position: int) -> int | None:
    """Where the next object or list may begin."""
    found = [at for at in (text.find("{", position), text.find("[", position)) if at >= 0]
    return min(found, default=None)
