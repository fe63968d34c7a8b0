"""HTTP: what is tried again, what is not, and what is made of odd answers."""

import json
import threading
import time
from collections.abc import Callable

import pytest
from chat_server import Asked, Reply, chat_server

from nanochat.errors import NanochatError
from nanochat.synthesis.endpoint import Answer, Endpoint, Target
from nanochat.synthesis.limits import Pace, Stopped

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("nanochat.synthesis.limits.BACKOFF", 0.001)


def ask(answer: Callable[[int, Asked], Reply], retries: int = 2, timeout: float = 5.0) -> tuple[Answer, list[Asked]]:
    with chat_server(answer) as server:
        target = Target(server.url + "/", "m", None, timeout, retries)
        endpoint = Endpoint(target, Pace(None, threading.Event()))
        try:
            return endpoint.ask(MESSAGES), server.asked
        finally:
            endpoint.close()


def test_what_is_sent() -> None:
    answer, asked = ask(lambda n, a: Reply("hello"))
    assert answer == Answer("hello", 100, 40)
    assert asked[0].path == "/v1/chat/completions"
    assert "Authorization" not in asked[0].headers
    assert asked[0].body["model"] == "m" and asked[0].body["messages"] == MESSAGES
    assert "temperature" not in asked[0].body


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_busy_is_tried_again(status: int) -> None:
    answer, asked = ask(lambda n, a: Reply("x") if n == 2 else Reply(status=status))
    assert answer.text == "x" and len(asked) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 402, 403, 404, 422])
def test_a_mistake_is_not(status: int) -> None:
    asked: list[int] = []

    def answer(number: int, request: Asked) -> Reply:
        asked.append(number)
        return Reply(status=status, headers={"Location": "/v1/elsewhere"}, body=b"no " * 500)

    with pytest.raises(NanochatError, match=f"HTTP {status}") as caught:
        ask(answer)
    assert asked == [0]
    assert len(str(caught.value)) < 500


def test_attempts_are_bounded() -> None:
    asked: list[int] = []
    with pytest.raises(NanochatError, match="failed 3 times in a row: HTTP 503"):
        ask(lambda n, a: asked.append(n) or Reply(status=503))
    assert len(asked) == 3


def test_retry_after_is_waited_for() -> None:
    began = time.monotonic()
    ask(lambda n, a: Reply("x") if n else Reply(status=429, headers={"Retry-After": "0.4"}))
    assert 0.4 <= time.monotonic() - began < 3


def test_an_answer_in_drops_is_a_timeout() -> None:
    """Each byte comes in time; the whole does not."""
    with pytest.raises(NanochatError, match=r"no answer within identity.timeout=0.3"):
        ask(lambda n, a: Reply("x" * 300, drip=0.02), retries=0, timeout=0.3)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"null", b'{"choices": []}', b'{"choices": [{"message": {"content": null}}]}', b"\xff\xfe"],
)
def test_an_odd_body_is_an_empty_answer(body: bytes) -> None:
    answer, _ = ask(lambda n, a: Reply(body=body))
    assert answer == Answer("", 0, 0)


def test_odd_usage_counts_nothing() -> None:
    body = json.dumps({"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "7"}}).encode()
    assert ask(lambda n, a: Reply(body=body))[0] == Answer("x", 0, 0)


def test_a_stop_ends_a_worker_that_waits() -> None:
    stop = threading.Event()
    with chat_server(lambda n, a: Reply(status=429, headers={"Retry-After": "300"})) as server:
        endpoint = Endpoint(Target(server.url, "m", None, 5.0, 3), Pace(None, stop))
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(Stopped):
            endpoint.ask(MESSAGES)


def test_the_key_is_not_in_a_target_that_is_printed() -> None:
    assert "sk-1" not in repr(Target("u", "m", None, 1.0, 1, "sk-1", "K"))
