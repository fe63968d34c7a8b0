"""Loading, failing, ending: who asks then is told so, and nobody waits for ever."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from api_server import Api, api_server, make_service, until
from engines import HeldEngine, ready_made
from models import ChainGPT

from nanochat.engine.engine import Engine
from nanochat.errors import CorruptError
from nanochat.serving.app import create_app
from nanochat.serving.server import Connection, Server, listen, run
from nanochat.tokenizer.bpe import Tokenizer

CONTEXT = 256
LONG = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 200}


def post(api: Api, **changes: Any) -> httpx.Response:
    return httpx.post(f"{api.url}/v1/chat/completions", json=LONG | changes, timeout=20)


def health(api: Api) -> tuple[int, str]:
    response = httpx.get(f"{api.url}/health")
    return response.status_code, response.json()["status"]


def test_while_the_model_loads_it_says_so(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    loaded = threading.Event()

    def make() -> Engine:
        assert loaded.wait(20)
        return Engine(alphabet, tokenizer, "cpu")

    with api_server(make_service(tokenizer, [make], CONTEXT), wait=False) as api:
        assert health(api) == (503, "loading")
        refused = post(api)
        assert refused.status_code == 503 and refused.headers["retry-after"]
        assert refused.json()["error"]["code"] == "loading"
        loaded.set()
        until(lambda: health(api) == (200, "ok"))
        assert post(api).status_code == 200


def test_a_model_that_cannot_be_loaded_ends_the_server(tokenizer: Tokenizer) -> None:
    def make() -> Engine:
        raise CorruptError("the weights are damaged")

    service = make_service(tokenizer, [make], CONTEXT)
    with pytest.raises(CorruptError, match="damaged"):
        run(create_app(service), service, listen("127.0.0.1", 0), lambda: pytest.fail("it was never ready"))


def test_an_engine_that_fails_answers_all_and_shows(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    engine = HeldEngine(alphabet, tokenizer, "cpu", max_rows=2, pause=0.005)
    service = make_service(tokenizer, [ready_made(engine)], CONTEXT, max_rows=2)
    body = LONG | {"stream": True}
    with api_server(service) as api, ThreadPoolExecutor(3) as pool, httpx.Client(timeout=20) as client:
        with client.stream("POST", f"{api.url}/v1/chat/completions", json=body) as stream:
            events = stream.iter_lines()
            assert next(events).startswith("data: ")  # its status is out: only an event can tell of the failure
            asked = [pool.submit(post, api) for _ in range(3)]
            until(lambda: service.live_rows + service.waiting_rows == 4)
            engine.broken = True
            rest = [line for line in events if line]
        for future in asked:
            assert future.result().status_code == 500
            assert future.result().json()["error"]["code"] == "engine"
        assert "a fault of the device" not in asked[0].result().text
        assert '"error"' in rest[-1]
        assert not any("[DONE]" in line for line in rest)
        assert health(api) == (503, "failed")
        assert post(api).status_code == 503


def test_one_of_two_replicas_that_fails_leaves_the_other(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    engines = [HeldEngine(alphabet, tokenizer, "cpu") for _ in range(2)]
    service = make_service(tokenizer, [ready_made(engine) for engine in engines], CONTEXT)
    with api_server(service) as api:
        engines[0].broken = True
        assert post(api).status_code == 500
        assert health(api) == (200, "degraded")
        assert [post(api).status_code for _ in range(3)] == [200] * 3


def test_what_only_the_engine_refuses_is_a_400(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    """The service believes in a longer context than the model reaches."""
    with api_server(make_service(tokenizer, [lambda: Engine(alphabet, tokenizer, "cpu")], 10**6)) as api:
        for stream in (False, True):
            refused = post(api, messages=[{"role": "user", "content": "x" * 5000}], stream=stream)
            assert refused.status_code == 400 and "too long" in refused.json()["error"]["message"]
        assert post(api).status_code == 200


def test_ending_lets_short_answers_finish_and_breaks_off_long_ones(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    engine = HeldEngine(alphabet, tokenizer, "cpu", pause=0.02)
    service = make_service(tokenizer, [ready_made(engine)], CONTEXT, grace_seconds=1.5)
    with ThreadPoolExecutor(4) as pool:
        with api_server(service) as api, httpx.Client() as kept:
            assert kept.get(f"{api.url}/health").status_code == 200
            engine.go.clear()  # or the short one may end before the others have come
            short, long = pool.submit(post, api, max_tokens=5), pool.submit(post, api)
            stream = pool.submit(post, api, stream=True)
            until(lambda: service.live_rows + service.waiting_rows == 3)
            began = time.monotonic()
            api.server.should_exit = True
            until(lambda: service.closing)
            engine.go.set()
        assert time.monotonic() - began < 4
        assert short.result().status_code == 200
        assert short.result().json()["usage"]["completion_tokens"] == 5
        assert long.result().status_code == 503
        assert long.result().json()["error"]["code"] == "shutting_down"
        assert '"shutting_down"' in stream.result().text.split("\n\n")[-2]
        with pytest.raises(httpx.ConnectError):
            post(api)
    assert not any(worker._thread.is_alive() for worker in service.workers)


def test_a_second_signal_ends_at_once(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    service = make_service(tokenizer, [], CONTEXT)
    server = Server(create_app(service), service, lambda: None)
    server.handle_exit(2, None)
    assert server.should_exit and not server.force_exit
    server.handle_exit(2, None)
    assert server.force_exit


def test_a_connection_that_asks_nothing_is_closed(
    alphabet: ChainGPT, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that brings no byte, half a head, or half a second one; not one whose answer takes longer."""
    monkeypatch.setattr(Connection, "patience", 0.3)
    engine = HeldEngine(alphabet, tokenizer, "cpu", pause=0.01)
    with api_server(make_service(tokenizer, [ready_made(engine)], CONTEXT)) as api:
        half = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
        for sent in (b"", half, half + b"\r\n" + half):
            with socket.create_connection(("127.0.0.1", api.port), timeout=4) as caller:
                caller.sendall(sent)
                while caller.recv(4096):
                    pass
        began = time.monotonic()
        assert post(api, max_tokens=100).json()["usage"]["completion_tokens"] == 100
        assert time.monotonic() - began > 0.6
