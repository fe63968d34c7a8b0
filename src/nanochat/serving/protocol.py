"""What a request may say: the body of both endpoints, checked.

Notable: nothing is ignored in silence. A key is either done, or accepted because its value asks for nothing
(`tools: []`, `logprobs: false`) or is a hint about bookkeeping (`user`, `metadata`), or refused by name.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from nanochat.errors import nearest
from nanochat.serving.errors import ApiError, clipped, invalid
from nanochat.serving.limits import LEAST_PENALTY, MAX_STOP_CHARS, MAX_STOPS

StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Number = Annotated[float, Field(allow_inf_nan=False)]

# Hints that change no answer: accepted with any value, and not used.
_HINTS = frozenset(
    {
        "metadata",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",  # means nothing while there are no tools
    }
)

# What this server cannot do -> the values that do not ask for it (null never does).
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "store": (False,),
    "echo": (False,),
    "suffix": ("",),
}
_INSTEAD = {
    "frequency_penalty": "; repetition_penalty is there",
    "presence_penalty": "; repetition_penalty is there",
    "tools": "; the model's own calculator needs no declaration",
    "response_format": '; only {"type": "text"}',
}


class StreamOptions(BaseModel):
    """`include_usage`: one more chunk at the end, with the counts."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # padding against traffic analysis: OpenAI's own clients may switch it off


class Common(BaseModel):
    """What both endpoints understand. None: the server's default."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=LEAST_PENALTY, le=10)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=MAX_STOPS)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None  # for the client's own books

    @model_validator(mode="after")
    def _nothing_unknown(self) -> "Common":
        for key, value in (self.model_extra or {}).items():
            check_extra(key, value, known=type(self).model_fields)
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options is for stream=true only", "stream_options")
        return self

    @property
    def stops(self) -> list[str]:
        """The stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class Message(BaseModel):
    """One message. What an answer of ours holds may be sent back as it is, with its empty fields."""

    model_config = ConfigDict(strict=True, extra="allow")

    role: str
    content: JsonValue = None

    @model_validator(mode="after")
    def _nothing_unknown(self) -> "Message":
        for key, value in (self.model_extra or {}).items():
            if value not in (None, [], {}):
                raise invalid(f"a message has role and content; {key!r} is not supported", "messages")
        return self


class ChatRequest(Common):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "ChatRequest":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise invalid("max_tokens and max_completion_tokens are the same; give one of them", "max_tokens")
        return self


class CompletionRequest(Common):
    """POST /v1/completions. `prompt`: a text, or ids, or a list of either."""

    prompt: str | list[int] | list[str] | list[list[int]]
    best_of: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _no_ranking(self) -> "CompletionRequest":
        if self.best_of not in (None, 1, self.n):
            raise invalid("best_of is not supported: all n answers are returned", "best_of")
        return self


def check_extra(key: str, value: object, known: Mapping[str, object]) -> None:
    """Raises ApiError unless the key is a hint, or its value asks for nothing."""
    if key in _HINTS:
        return
    if key not in _REFUSED:
        raise invalid(f"unknown parameter {key!r}; {nearest(key, known)}", key, "unknown_parameter")
    if value is not None and not any(value == same and type(value) in (type(same), float) for same in _REFUSED[key]):
        raise invalid(f"{key} is not supported by this server{_INSTEAD.get(key, '')}", key, "unsupported_parameter")


def describe(errors: "list[Any]") -> ApiError:
    """The first of pydantic's errors as an answer of ours; of a union's, one that is more than "not that type"."""
    same_key = [error for error in errors if error["loc"][:2] == errors[0]["loc"][:2]]
    first = next((error for error in same_key if not error["type"].endswith("_type")), errors[0])
    if first["type"] == "json_invalid":
        return invalid(f"the body is not JSON: {first['ctx']['error']}")
    place = [str(part) for part in first["loc"] if part != "body"]
    param = place[0] if place else None
    # a union's loc also holds the name of the type that was tried
    where = ".".join(part for part in place if part.replace("_", "").isalnum() and part not in ("str", "int"))
    if first["type"] == "missing" and param:
        return invalid(f"{where} is missing", param, "missing_required_parameter")
    value = first["input"]
    shown = where or "the body"
    if where and isinstance(value, str | int | float):  # nothing nested: that could be too deep to be written
        shown = f"{where}={clipped(json.dumps(value), 60)}"
    return invalid(f"{shown}: {first['msg'][0].lower()}{first['msg'][1:]}", param, "invalid_value")
