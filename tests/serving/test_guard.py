"""Who may ask, what the answers carry, and how much may be sent."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from api_server import Api, api_server, make_service
from models import ChainGPT
from openai import OpenAI
from starlette.datastructures import Headers

from nanochat.engine.engine import Engine
from nanochat.errors import ConfigError
from nanochat.serving.errors import ApiError
from nanochat.serving.guard import Access, check_origin, is_loopback
from nanochat.tokenizer.bpe import Tokenizer

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


@contextmanager
def guarded(model: ChainGPT, tokenizer: Tokenizer, access: Access, **limits: Any) -> Iterator[Api]:
    service = make_service(tokenizer, [lambda: Engine(model, tokenizer, "cpu")], 256, **limits)
    with api_server(service, access) as api:
        yield api


def post(api: Api, **headers: str) -> httpx.Response:
    return httpx.post(f"{api.url}/v1/chat/completions", json=HELLO, headers=headers, timeout=20)


def test_a_key_is_asked_for_where_it_matters(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with guarded(alphabet, tokenizer, Access(api_key="sésame")) as api:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "sesame"}):
            refused = post(api, **headers)
            assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
            assert refused.json()["error"]["code"] == "invalid_api_key"
        for path in ("/v1/models", "/metrics"):
            assert httpx.get(api.url + path).status_code == 401
        for path in ("/health", "/"):
            assert httpx.get(api.url + path).status_code == 200
        raw = b"Bearer s\xc3\xa9same"
        answer = httpx.post(f"{api.url}/v1/chat/completions", json=HELLO, headers=[(b"authorization", raw)])
        assert answer.status_code == 200
        with OpenAI(base_url=f"{api.url}/v1", api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


def allowed(access: Access, path: str = "/v1/models", **headers: str) -> int:
    """The status of the refusal; 200 for none."""
    try:
        access.check(path, Headers({name.replace("_", "-"): value for name, value in headers.items()}))
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "127.0.0.1", "[::1]:8000", "localhost"])
def test_names_of_this_machine_may_be_used(host: str) -> None:
    assert allowed(Access(), host=host) == 200
    assert allowed(Access(), host=host, origin=f"http://{host}") == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "localhost.evil.example", "192.168.1.9:8000", "", "[bad"])
def test_a_name_that_was_made_to_point_here_is_refused(host: str) -> None:
    """DNS rebinding: Origin and Host agree, but it is none of our names."""
    assert allowed(Access(), host=host, origin=f"http://{host}") == 403
    assert allowed(Access(), host=host) == 403


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://localhost:8000",
        "http://127.0.0.1:x",
        "junk",
        "",
    ],
)
def test_pages_of_other_hosts_are_refused(origin: str) -> None:
    assert allowed(Access(), host="127.0.0.1:8000", origin=origin) == 403
    assert allowed(Access(host="0.0.0.0"), host="box:8000", origin=origin) == 403
    assert allowed(Access(api_key="k"), host="127.0.0.1:8000", origin=origin, authorization="Bearer k") == 403


def test_a_page_that_was_allowed_may_ask_also_from_behind_a_proxy() -> None:
    access = Access(origins=("https://chat.example",))
    assert allowed(access, host="127.0.0.1:8000", origin="https://chat.example") == 200
    assert allowed(access, host="chat.example", origin="https://chat.example") == 200
    assert allowed(access, host="evil.example", origin="https://chat.example") == 403
    assert allowed(Access(api_key="k"), host="chat.example", authorization="Bearer k") == 200
    assert allowed(Access(host="0.0.0.0"), host="box:8000", origin="http://box:8000") == 200
    assert (
        allowed(Access(api_key="k"), host="chat.example", origin="https://chat.example", authorization="bearer k")
        == 200
    )


def test_browsers_are_told_of_allowed_pages_only(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    page, access = "https://chat.example", Access(origins=("https://chat.example",), api_key="k")
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    with guarded(alphabet, tokenizer, access) as api:
        asked = httpx.options(f"{api.url}/v1/chat/completions", headers=preflight | {"Origin": page})
        assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == page
        assert post(api, Origin=page).headers["access-control-allow-origin"] == page, "a refusal can be read too"
        answer = post(api, Origin=page, Authorization="Bearer k")
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == page
        other = httpx.options(f"{api.url}/v1/chat/completions", headers=preflight | {"Origin": "https://evil.example"})
        assert other.status_code == 400 and "access-control-allow-origin" not in other.headers


def test_without_allowed_pages_there_is_no_cors(api: Api) -> None:
    assert post(api, Origin="https://evil.example").status_code == 403
    own = post(api, Origin=api.url)
    assert own.status_code == 200 and "access-control-allow-origin" not in own.headers


def test_origins_are_checked_when_the_server_is_started() -> None:
    for good in ("https://chat.example", "http://localhost:3000"):
        check_origin(good, None)
    check_origin("*", "key")
    for bad in ("*", "chat.example", "https://chat.example/", "https://Chat.example", "ftp://x", "null"):
        with pytest.raises(ConfigError, match="--allow-origin"):
            check_origin(bad, None)


def test_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))


def test_every_answer_carries_the_headers(api: Api) -> None:
    for response in (httpx.get(api.url), httpx.get(f"{api.url}/nothing"), post(api), post(api, Origin="http://x")):
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "unsafe" not in response.headers["content-security-policy"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["x-frame-options"] == "DENY"
        assert response.headers["x-request-id"].startswith("req-")
        assert "server" not in response.headers
    assert len({httpx.get(api.url).headers["x-request-id"] for _ in range(3)}) == 3


def test_a_long_body_is_refused_with_413(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with guarded(alphabet, tokenizer, Access(), max_body_bytes=1000) as api:
        url, kind = f"{api.url}/v1/chat/completions", {"Content-Type": "application/json"}
        for content in (b"{" * 1001, b"x" * 7000, iter([b"x" * 600, b"x" * 600])):  # the last has no Content-Length
            refused = httpx.post(url, content=content, headers=kind)
            assert refused.status_code == 413 and refused.json()["error"]["code"] == "request_too_large"
        assert httpx.post(url, content=b" " * 1000, headers=kind).status_code == 400
        assert post(api).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with guarded(alphabet, tokenizer, Access(), body_seconds=0.2) as api:
        with socket.create_connection(("127.0.0.1", api.port)) as wire:
            wire.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            wire.settimeout(5)
            assert b" 408 " in wire.recv(1000)
        assert post(api).status_code == 200


def test_metrics_count_what_was_asked_and_answered(alphabet: ChainGPT, tokenizer: Tokenizer) -> None:
    with guarded(alphabet, tokenizer, Access()) as api:
        post(api)
        httpx.post(f"{api.url}/v1/chat/completions", json=HELLO | {"stream": True, "max_tokens": 3})
        httpx.post(f"{api.url}/v1/chat/completions", json={})
        httpx.get(f"{api.url}/made-up/1")
        response = httpx.get(f"{api.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    lines = response.text.splitlines()
    for line in (
        'nanochat_requests_total{endpoint="/v1/chat/completions",status="200"} 2.0',
        'nanochat_requests_total{endpoint="/v1/chat/completions",status="400"} 1.0',
        'nanochat_requests_total{endpoint="other",status="404"} 1.0',
        'nanochat_request_seconds_count{endpoint="/v1/chat/completions"} 3.0',
        "nanochat_time_to_first_token_seconds_count 2.0",
        "nanochat_prompt_tokens_total 18.0",
        "nanochat_generated_tokens_total 5.0",
        "nanochat_queue_length 0.0",
        "nanochat_live_rows 0.0",
        "nanochat_replicas_ready 1.0",
    ):
        assert line in lines, line
