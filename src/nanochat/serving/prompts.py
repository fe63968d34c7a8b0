"""From a request to token ids: a conversation in the chat format, or a plain text.

Notable: text is text. What looks like a special token in it is encoded letter by letter. Nothing is dropped to make
a request fit: one that does not is refused with the code `context_length_exceeded`, before it is tokenised if it is
so long that it could not fit in any case. Tool calls of earlier answers, which come back as the text that was shown,
become tool calls again.
"""

from typing import Any

from nanochat.engine.chat import parts_of_shown
from nanochat.serving.errors import ApiError, invalid
from nanochat.serving.protocol import ChatRequest, CompletionRequest, Message
from nanochat.serving.service import Service
from nanochat.tokenizer.chat import render_for_completion

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_JOINT = "\n\n"  # between messages of one role that follow each other, as the format puts between system and user


def chat_prompt(service: Service, request: ChatRequest) -> list[int]:
    """The ids of the conversation up to where the assistant is to speak. Raises ApiError."""
    limit = service.limits.max_turns
    if len(request.messages) > limit:
        raise invalid(f"{len(request.messages)} messages; this server takes at most {limit}", "messages")
    turns = merge(request.messages)
    _check_length(service, sum(len(turn["content"]) for turn in turns), "messages")
    for turn in turns:
        if turn["role"] == "assistant":
            turn["content"] = parts_of_shown(turn["content"])
    return _fitting(service, render_for_completion(service.tokenizer, {"messages": turns}), "messages")


def text_prompts(service: Service, request: CompletionRequest) -> list[list[int]]:
    """The ids of each prompt. A text gets <|bos|> in front, ids are taken as they are. Raises ApiError."""
    prompts = _as_list(request.prompt)
    if not prompts:
        raise invalid("prompt is an empty list", "prompt")
    if len(prompts) > service.limits.max_choices:
        raise invalid(f"{len(prompts)} prompts; this server takes at most {service.limits.max_choices}", "prompt")
    return [_fitting(service, _ids(service, prompt), "prompt") for prompt in prompts]


def merge(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages as the chat format has them: a system message in front, then user and assistant in turn.

    Messages of one role that follow each other become one, a blank line between. Raises ApiError.
    """
    turns: list[dict[str, Any]] = []
    for position, message in enumerate(messages):
        role, text = _role(message, position), _text_of(message.content, position)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += _JOINT + text
        elif role == "system" and turns:
            raise invalid(f"messages[{position}]: a system message stands in front of all others", "messages")
        else:
            turns.append({"role": role, "content": text})
    _check_order([turn["role"] for turn in turns])
    return turns


def _check_order(roles: list[str]) -> None:
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if not spoken:
        raise invalid("messages: there is no user message to answer", "messages")
    if spoken[0] != "user":
        raise invalid("messages: the user speaks first, an assistant message cannot", "messages")
    if spoken[-1] != "user":
        raise invalid("messages: the last one must be the user's; an answer is not continued", "messages")


def _role(message: Message, position: int) -> str:
    if message.role not in _ROLES:
        known = ", ".join(_ROLES)
        raise invalid(f"messages[{position}]: role {message.role!r} is not supported; known: {known}", "messages")
    return _ROLES[message.role]


def _text_of(content: Any, position: int) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise invalid(f"messages[{position}]: content must be a text or a list of text parts", "messages")
    texts = []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(part.get("text"), str):
            known = 'a part is {"type": "text", "text": TEXT}'
            raise invalid(f"messages[{position}]: {known}; type {kind!r} is not supported", "messages")
        texts.append(part["text"])
    return "".join(texts)


def _as_list(prompt: str | list[int] | list[str] | list[list[int]]) -> list[str] | list[list[int]]:
    if isinstance(prompt, str):
        return [prompt]
    return [prompt] if prompt and isinstance(prompt[0], int) else prompt  # type: ignore[return-value]


def _ids(service: Service, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        _check_length(service, len(prompt), "prompt")
        return [service.tokenizer.bos, *service.tokenizer.encode(prompt)]
    size = service.tokenizer.vocab_size
    if not prompt or not all(0 <= token < size for token in prompt):
        raise invalid(f"prompt: a list of ids has at least one, and each is from 0 to {size - 1}", "prompt")
    return prompt


def _check_length(service: Service, chars: int, param: str) -> None:
    """Refuses what is too long whatever its tokens are: a character is at least a byte of some token."""
    if chars > service.context * service.longest_token:
        raise _too_long(service, f"{chars} characters", param)


def _fitting(service: Service, ids: list[int], param: str) -> list[int]:
    if len(ids) >= service.context:
        raise _too_long(service, f"{len(ids)} tokens", param)
    return ids


def _too_long(service: Service, length: str, param: str) -> ApiError:
    return invalid(
        f"{param}: a prompt of {length} leaves no room for an answer, this model's context holds {service.context} "
        "tokens; shorten it, or drop the oldest messages",
        param,
        "context_length_exceeded",
    )
