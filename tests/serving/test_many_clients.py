"""Many at once: nothing is lost, the queue has an end, those who leave make room."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread
from typing import Any

import httpx
import openai
import pytest
from api_server import Api, api_server, make_service, until
from engines import HeldEngine, ready_made
from models import ChainGPT, Typist
from openai import OpenAI

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_for_completion

CONTEXT = 256
MODEL = "sft/tiny@7"
LONG = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 200}


@contextmanager
def held(model: Any, tokenizer: Tokenizer, *, pause: float = 0.0, rows: int = 32, **limits: Any) -> Iterator[Any]:
    """(server, its engine)."""
    engine = HeldEngine(model, tokenizer, "cpu", max_rows=rows, pause=pause)
    service = make_service(tokenizer, [ready_made(engine)], CONTEXT, max_rows=rows, **limits)
    with api_server(service) as api:
        yield api, engine


def post(api: Api, body: Any = LONG, **more: Any) -> httpx.Response:
    return httpx.post(f"{api.url}/v1/chat/completions", json=body, timeout=20, **more)


@contextmanager
def in_background(function: Callable[..., Any], *args: Any, times: int = 1) -> Iterator[list[Any]]:
    """Calls it in threads; the list is filled with what comes back, at the latest when the block has ended."""
    results: list[Any] = []
    threads = [Thread(target=lambda: results.append(function(*args)), daemon=True) for _ in range(times)]
    for thread in threads:
        thread.start()
    yield results
    for thread in threads:
        thread.join(20)


def test_32_clients_lose_nothing(model: Typist, tokenizer: Tokenizer) -> None:
    """Each gets what it gets alone: half of them at temperature 0, half by their seed; half as a stream."""
    questions = [f"question {i} " + "and so on " * (i % 5) for i in range(32)]
    lengths = [10 + i % 30 for i in range(32)]

    def alone(i: int) -> str:
        prompt = render_for_completion(tokenizer, {"messages": [{"role": "user", "content": questions[i]}]})
        params = SamplingParams(max_new_tokens=lengths[i], temperature=float(i % 2), seed=i)
        return tokenizer.decode(Engine(model, tokenizer, "cpu").generate_batch([prompt], params)[0])

    def ask(url: str, i: int) -> str:
        with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            messages: list[Any] = [{"role": "user", "content": questions[i]}]
            asked: Any = {"model": MODEL, "messages": messages, "max_tokens": lengths[i], "seed": i}
            if i % 4 < 2:
                answer = client.chat.completions.create(**asked, temperature=i % 2)
                assert answer.usage.completion_tokens == lengths[i] and answer.choices[0].finish_reason == "length"
                return str(answer.choices[0].message.content)
            chunks = list(client.chat.completions.create(**asked, temperature=i % 2, stream=True))
            assert chunks[-1].choices[0].finish_reason == "length"
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    expected = [alone(i) for i in range(32)]
    with held(model, tokenizer, rows=8) as (api, engine):
        engine.go.clear()  # until all have come
        with ThreadPoolExecutor(32) as pool:
            asked = [pool.submit(ask, api.url, i) for i in range(32)]
            until(lambda: api.service.waiting_rows == 32)
            engine.go.set()
            assert [future.result() for future in asked] == expected
        assert engine.most_live == 8, "they were not written together"
        assert api.service.live_rows == api.service.waiting_rows == 0
        assert engine.steps < sum(lengths) / 4


def test_a_full_queue_answers_429(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with held(alphabet, tokenizer, rows=1, max_queue=2) as (api, engine):
        engine.go.clear()
        with in_background(post, api, times=3) as answers:
            until(lambda: api.service.waiting_rows == 3)
            refused = post(api)
            assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
            assert refused.json()["error"]["code"] == "queue_full"
            assert refused.json()["error"]["type"] == "rate_limit_error"
            client = OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0)
            with client, pytest.raises(openai.RateLimitError):
                client.completions.create(model=MODEL, prompt="x")
            assert post(api, LONG | {"n": 4}).status_code == 400, "that many never fit"
            engine.go.set()
        assert [answer.status_code for answer in answers] == [200] * 3
        assert post(api).status_code == 200


def test_the_clients_own_retries_get_through_a_full_queue(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with held(alphabet, tokenizer, rows=1, max_queue=0) as (api, engine):
        engine.go.clear()
        with in_background(post, api):
            until(lambda: api.service.waiting_rows == 1)
            with in_background(time.sleep, 0.3), OpenAI(base_url=f"{api.url}/v1", api_key="none") as client:
                Thread(target=lambda: (time.sleep(0.2), engine.go.set()), daemon=True).start()
                answer = client.completions.create(model=MODEL, prompt="x", max_tokens=1)
            assert answer.usage is not None and answer.usage.completion_tokens == 1


def test_an_answer_that_met_its_stop_string_makes_room_before_the_others_end(
    alphabet: ChainGPT, tokenizer: Tokenizer
) -> None:
    """After "a" come letters; after "0", which the network does not know, comes no letter."""
    with held(alphabet, tokenizer, pause=0.01) as (api, engine):
        body = {"prompt": ["a", "0"], "stop": "e", "max_tokens": 100}
        url = f"{api.url}/v1/completions"
        engine.go.clear()
        with in_background(lambda: httpx.post(url, json=body, timeout=20)) as answers:
            until(lambda: api.service.waiting_rows == 2)
            engine.go.set()
            until(lambda: api.service.waiting_rows == 0 and api.service.live_rows == 1)
            assert engine.busy and not answers
        first, second = answers[0].json()["choices"]
        assert (first["text"], first["finish_reason"], second["finish_reason"]) == ("bcd", "stop", "length")
        assert answers[0].json()["usage"]["completion_tokens"] == 4 + 100


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_makes_room_at_once(alphabet: ChainGPT, tokenizer: Tokenizer, stream: bool) -> None:
    with held(alphabet, tokenizer, pause=0.01, rows=4) as (api, engine):
        body = json.dumps(LONG | {"stream": stream, "n": 3}).encode()
        with socket.create_connection(("127.0.0.1", api.port)) as wire:
            wire.sendall(_head(api, len(body)) + body)
            until(lambda: api.service.live_rows == 3)
        until(lambda: not engine.busy)
        assert engine.steps < 150 and api.service.live_rows == api.service.waiting_rows == 0
        assert post(api, LONG | {"max_tokens": 3}).status_code == 200


def test_who_hangs_up_while_waiting_leaves_the_queue(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with held(alphabet, tokenizer, pause=0.005, rows=1, max_queue=1) as (api, engine), in_background(post, api) as done:
        until(lambda: api.service.live_rows == 1)
        with socket.create_connection(("127.0.0.1", api.port)) as wire:
            body = json.dumps(LONG).encode()
            wire.sendall(_head(api, len(body)) + body)
            until(lambda: api.service.waiting_rows == 1)
        until(lambda: api.service.waiting_rows == 0)
        assert not done and engine.busy, "the first was to be under way still"


def test_a_client_that_does_not_read_holds_nobody(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with held(alphabet, tokenizer) as (api, _):
        body = json.dumps(LONG | {"stream": True, "n": 8}).encode()
        with socket.socket() as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            wire.connect(("127.0.0.1", api.port))
            wire.sendall(_head(api, len(body)) + body)
            until(lambda: api.service.live_rows > 0)
            assert post(api).status_code == 200
            until(lambda: api.service.live_rows == 0)
            wire.settimeout(10)
            received = b""
            while b"[DONE]" not in received:
                received += wire.recv(65536)
            assert received.count(b'"finish_reason":"length"') == 8, "and gets all of it when it does read"


def test_two_replicas_share_the_work(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    engines = [HeldEngine(alphabet, tokenizer, "cpu", max_rows=4) for _ in range(2)]
    service = make_service(tokenizer, [ready_made(engine) for engine in engines], CONTEXT, max_rows=4, max_queue=0)
    with api_server(service) as api:
        for engine in engines:
            engine.go.clear()
        with in_background(post, api, times=8) as answers:
            until(lambda: api.service.waiting_rows == 8)
            assert [worker.load for worker in service.workers] == [4, 4]
            assert post(api).status_code == 429
            for engine in engines:
                engine.go.set()
        assert [answer.status_code for answer in answers] == [200] * 8
        assert all(engine.steps for engine in engines)


def _head(api: Api, length: int) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: 127.0.0.1:{api.port}", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()
