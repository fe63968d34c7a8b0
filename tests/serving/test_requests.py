"""What a request may say, what is refused, and with which words."""

from typing import Any

import httpx
import pytest
from api_server import Api

from nanochat.errors import NanochatError
from nanochat.serving.errors import ApiError
from nanochat.serving.prompts import merge
from nanochat.serving.protocol import Message
from nanochat.tokenizer.bpe import Tokenizer

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def post(api: Api, body: Any, path: str = "/v1/chat/completions", **more: Any) -> httpx.Response:
    return httpx.post(api.url + path, json=body, timeout=20, **more)


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


REFUSED = [
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    ({"logprobs": True}, "logprobs", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"frequency_penalty": 0.5}, "frequency_penalty", "unsupported_parameter"),
    ({"logit_bias": {"1": 2}}, "logit_bias", "unsupported_parameter"),
    ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"temprature": 1}, "temprature", "unknown_parameter"),
    ({"prompt": "x"}, "prompt", "unknown_parameter"),
    ({"temperature": -1}, "temperature", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_value"),
    ({"top_p": 1.5}, "top_p", "invalid_value"),
    ({"top_k": 1.5}, "top_k", "invalid_value"),
    ({"min_p": 2}, "min_p", "invalid_value"),
    ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
    ({"repetition_penalty": 1e-300}, "repetition_penalty", "invalid_value"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": 100_000}, "max_tokens", None),
    ({"max_completion_tokens": 3}, "max_tokens", None),
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 9}, "n", None),
    ({"stop": ""}, "stop", "invalid_value"),
    ({"stop": ["a"] * 17}, "stop", "invalid_value"),
    ({"seed": 2**63}, "seed", "invalid_value"),
    ({"stream": "yes"}, "stream", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "stream_options", None),
    ({"stream": True, "stream_options": {"what": True}}, "stream_options", "invalid_value"),
    ({"messages": None}, "messages", "invalid_value"),
    ({"messages": []}, "messages", None),
    ({"messages": [{"role": "user", "content": "x"}] * 257}, "messages", None),
    ({"model": "other"}, "model", "model_not_found"),
]


@pytest.mark.parametrize(("change", "param", "code"), REFUSED, ids=lambda v: str(v)[:40])
def test_what_is_not_done_is_refused_by_name(api: Api, change: dict[str, Any], param: str, code: str | None) -> None:
    response = post(api, HELLO | change)
    assert response.status_code == (404 if code == "model_not_found" else 400)
    found = error(response)
    assert (found["type"], found["param"], found["code"]) == ("invalid_request_error", param, code)
    assert len(found["message"]) > 10


@pytest.mark.parametrize(
    "change",
    [
        {"top_k": 10**30},
        {"temperature": 1e-38},
        {"temperature": 5e-324},
        {"temperature": 1e-45, "top_p": 1e-300, "min_p": 1e-300, "repetition_penalty": 0.01},
        {"temperature": 2, "top_p": 1e-300},
        {"temperature": 2, "min_p": 1, "repetition_penalty": 10},
        {"seed": -(2**63)},
    ],
    ids=str,
)
def test_no_number_ends_the_engine(api: Api, change: dict[str, Any]) -> None:
    """What overflows there would end it for everybody."""
    assert post(api, HELLO | change).status_code == 200
    assert httpx.get(f"{api.url}/health").json()["status"] == "ok"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"temperature": 3}, "temperature=3: input should be less than or equal to 2"),
        ({"stop": ["a"] * 17}, "at most 16 items"),
        ({"max_tokens": "many"}, 'max_tokens="many": input should be a valid integer'),
    ],
    ids=str,
)
def test_a_refusal_names_the_value_and_the_bound(api: Api, change: dict[str, Any], said: str) -> None:
    assert said in error(post(api, HELLO | change))["message"]


def test_what_was_sent_does_not_come_back_at_full_length(api: Api) -> None:
    long = "x" * 100_000
    changes = ({long: 1}, {"model": long}, {"messages": [{"role": long, "content": "x"}]}, {"temperature": long})
    assert all(len(post(api, HELLO | change).content) < 2000 for change in changes)


def test_a_typing_mistake_is_told_the_nearest_name(api: Api) -> None:
    assert "temperature" in error(post(api, HELLO | {"temprature": 1}))["message"]


def test_what_asks_for_nothing_and_hints_are_accepted(api: Api) -> None:
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
        "top_logprobs": None,
        "frequency_penalty": 0.0,
        "presence_penalty": 0,
        "logit_bias": {},
        "functions": None,
        "user": "me",
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "store": False,
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "safety_identifier": "x",
        "temperature": None,
        "stop": None,
        "n": None,
    }
    assert post(api, HELLO | neutral).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [300_000]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "logprobs": 0}, "logprobs"),
        ({"prompt": "x", "n": 3, "temperature": float("inf")}, "temperature"),
    ],
    ids=str,
)
def test_completions_that_are_refused(api: Api, body: dict[str, Any], param: str) -> None:
    import json

    headers = {"Content-Type": "application/json"}  # json: httpx does not write infinity
    response = httpx.post(f"{api.url}/v1/completions", content=json.dumps(body), headers=headers)
    assert response.status_code == 400 and error(response)["param"] == param


def test_bodies_that_are_no_requests(api: Api) -> None:
    def send(content: bytes, kind: str = "application/json") -> httpx.Response:
        return httpx.post(f"{api.url}/v1/chat/completions", content=content, headers={"Content-Type": kind})

    assert "not JSON" in error(send(b"{"))["message"]
    assert send(b"[]").status_code == send(b"null").status_code == send(b"").status_code == 400
    for content in (b"\xff\xfe{}", b"[" * 100_000, b'{"seed":' + b"9" * 5000 + b"}"):
        refused = send(content)
        assert refused.status_code == 400
        assert "not JSON" in error(refused)["message"] and error(refused)["code"] is None
    assert send(b"{}", "text/plain").status_code == 415
    assert error(send(b"a=b", "application/x-www-form-urlencoded"))["message"].endswith("must be application/json")


def test_unknown_places_and_methods_answer_in_the_same_form(api: Api) -> None:
    assert error(httpx.get(f"{api.url}/v1/nothing"))["code"] == "unknown_url"
    assert httpx.get(f"{api.url}/v1/chat/completions").status_code == 405
    assert httpx.get(f"{api.url}/docs").status_code == 404
    assert httpx.get(f"{api.url}/openapi.json").status_code == 404


def test_a_prompt_fills_the_context_up_to_one_token(api: Api, tokenizer: Tokenizer) -> None:
    """The context is 256; bos, user_start, user_end and assistant_start take four."""
    whole = {"messages": [{"role": "user", "content": "x" * 251}], "max_tokens": 9}
    answer = post(api, whole).json()
    assert answer["usage"] == {"prompt_tokens": 255, "completion_tokens": 1, "total_tokens": 256}
    assert answer["choices"][0]["finish_reason"] == "length"
    for count in (252, 200_000):
        found = post(api, {"messages": [{"role": "user", "content": "x" * count}]})
        assert found.status_code == 400 and error(found)["code"] == "context_length_exceeded"
    assert error(post(api, {"prompt": "x" * 300}, "/v1/completions"))["code"] == "context_length_exceeded"


def test_without_a_bound_an_answer_fills_the_context(api: Api) -> None:
    usage = post(api, {"messages": HELLO["messages"]}).json()["usage"]
    assert usage["total_tokens"] == 256


def test_what_looks_like_a_special_token_is_text(api: Api) -> None:
    text = "<|assistant_end|><|bos|>"
    usage = post(api, {"messages": [{"role": "user", "content": text}], "max_tokens": 1}).json()["usage"]
    assert usage["prompt_tokens"] == len(text) + 4
    usage = post(api, {"prompt": text, "max_tokens": 1}, "/v1/completions").json()["usage"]
    assert usage["prompt_tokens"] == len(text) + 1


def merged(*messages: tuple[str, Any]) -> list[tuple[str, str]]:
    turns = merge([Message(role=role, content=content) for role, content in messages])
    return [(turn["role"], turn["content"]) for turn in turns]


def test_messages_are_brought_into_the_chat_format() -> None:
    assert merged(("system", "be"), ("developer", "kind"), ("user", "a"), ("user", "b")) == [
        ("system", "be\n\nkind"),
        ("user", "a\n\nb"),
    ]
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert merged(("user", parts)) == [("user", "one two")]
    assert merged(("user", "a"), ("assistant", "b"), ("assistant", "c"), ("user", "d"))[1] == ("assistant", "b\n\nc")


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([("system", "x")], "no user message"),
        ([("assistant", "x"), ("user", "y")], "user speaks first"),
        ([("user", "x"), ("assistant", "y")], "last one must be the user's"),
        ([("user", "x"), ("system", "y"), ("user", "z")], "stands in front"),
        ([("tool", "x")], "role 'tool' is not supported"),
        ([("user", None)], "content must be"),
        ([("user", [])], "content must be"),
        ([("user", [{"type": "image_url", "image_url": {"url": "x"}}])], "type 'image_url' is not supported"),
        ([("user", [{"type": "text"}])], "a part is"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_conversations_that_the_format_does_not_have(messages: list[tuple[str, Any]], said: str) -> None:
    with pytest.raises(ApiError, match=said) as caught:
        merged(*messages)
    assert caught.value.status == 400 and not isinstance(caught.value, NanochatError)


def test_a_message_with_more_than_text_is_refused() -> None:
    assert Message.model_validate({"role": "assistant", "content": "x", "refusal": None, "tool_calls": []})
    with pytest.raises(ApiError, match="tool_calls"):
        Message.model_validate({"role": "assistant", "content": None, "tool_calls": [{"id": 1}]})
