"""Whether a host is there, found out in time."""

import socket
from threading import Event

import pytest

from nanochat.runtime.offline import is_reachable, offline_switch, within


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    is_reachable.cache_clear()
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_host_that_answers_and_one_that_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_reachable(f"http://127.0.0.1:{port}")
    assert not is_reachable(f"http://127.0.0.1:{port}/again")


def test_a_lookup_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: Event().wait())
    assert not is_reachable("https://hub.invalid", seconds=0.05)


def test_behind_a_proxy_it_is_taken_for_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: pytest.fail("asked"))
    assert is_reachable("https://hub.invalid")


def test_what_is_left_behind_and_what_is_in_time() -> None:
    assert within(0.05, Event().wait) is None
    assert within(5, lambda: 3) == 3


def test_the_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert offline_switch() == "HF_HUB_OFFLINE"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert offline_switch() is None
    monkeypatch.setenv("NANOCHAT_OFFLINE", "yes")
    assert offline_switch() == "NANOCHAT_OFFLINE"
