"""A conversation as tokens, with the mask that says which of them the assistant is taught.

    <|bos|> <|user_start|> text <|user_end|> <|assistant_start|> parts <|assistant_end|> <|user_start|> ...

| token                                                   | mask |
|---------------------------------------------------------|------|
| assistant text                                          | 1    |
| a tool call, with <|python_start|> and <|python_end|>   | 1    |
| <|assistant_end|>                                       | 1    |
| tool output, with <|output_start|> and <|output_end|>   | 0    |
| bos, everything of the user, <|assistant_start|>        | 0    |

The mask belongs to the token itself: it is 1 where that token, as a target, counts in the loss. Whoever shifts the
ids by one to make targets shifts the mask along.
"""

from typing import Any

from nanochat.errors import ConfigError, nearest
from nanochat.tokenizer.bpe import Tokenizer

# part type -> (delimiters, mask)
PART_TYPES: dict[str, tuple[tuple[str, str] | None, int]] = {
    "text": (None, 1),
    "python": (("<|python_start|>", "<|python_end|>"), 1),
    "python_output": (("<|output_start|>", "<|output_end|>"), 0),
}


def render(tokenizer: Tokenizer, conversation: dict[str, Any]) -> tuple[list[int], list[int]]:
    """`{"messages": [{"role", "content"}, ...]}` -> ids (n,) and mask (n,) of 0 and 1.

    Content is a string or, for the assistant, a list of {"type": "text" | "python" | "python_output", "text": str}.
    A leading system message is joined to the first user message. ConfigError if roles do not alternate.
    """
    ids, mask = [tokenizer.bos], [0]
    for position, message in enumerate(join_system(conversation["messages"])):
        role = message["role"]
        if role != ("user", "assistant")[position % 2]:
            raise ConfigError(f"conversation: message {position} is of {role!r}; user and assistant must alternate")
        if role == "user":
            turn = user_turn(tokenizer, message["content"])
        else:
            turn = assistant_turn(tokenizer, message["content"])
        ids += turn[0]
        mask += turn[1]
    return ids, mask


def render_for_completion(tokenizer: Tokenizer, conversation: dict[str, Any]) -> list[int]:
    """Ids (n,) of the conversation up to where the assistant is to speak; its last message, if there, is left out."""
    messages = conversation["messages"]
    if messages and messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    ids, _ = render(tokenizer, {"messages": messages})
    return [*ids, tokenizer.special("<|assistant_start|>")]


def join_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a leading system message put in front of the first user's, a blank line between."""
    if not messages or messages[0]["role"] != "system":
        return messages
    if len(messages) < 2 or messages[1]["role"] != "user":
        raise ConfigError("conversation: a system message must be followed by a user message")
    system, user, *rest = messages
    return [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]


def user_turn(tokenizer: Tokenizer, content: str) -> tuple[list[int], list[int]]:
    """The user's text between its delimiters, none of it supervised."""
    if not isinstance(content, str):
        raise ConfigError(f"conversation: a user message must be a string, not {type(content).__name__}")
    ids = [tokenizer.special("<|user_start|>"), *tokenizer.encode(content), tokenizer.special("<|user_end|>")]
    return ids, [0] * len(ids)


def assistant_turn(tokenizer: Tokenizer, content: str | list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """The assistant's parts; <|assistant_end|> is supervised, for it must learn to stop."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    ids, mask = [tokenizer.special("<|assistant_start|>")], [0]
    for part in parts:
        part_ids, value = encode_part(tokenizer, part)
        ids += part_ids
        mask += [value] * len(part_ids)
    return [*ids, tokenizer.special("<|assistant_end|>")], [*mask, 1]


def encode_part(tokenizer: Tokenizer, part: dict[str, str]) -> tuple[list[int], int]:
    """The ids of one part with its delimiters, and the mask value they all share."""
    kind = part["type"]
    if kind not in PART_TYPES:
        raise ConfigError(f"conversation: unknown part type {kind!r}; {nearest(kind, PART_TYPES)}")
    delimiters, value = PART_TYPES[kind]
    ids = tokenizer.encode(part["text"])
    if delimiters is None:
        return ids, value
    start, end = delimiters
    return [tokenizer.special(start), *ids, tokenizer.special(end)], value
