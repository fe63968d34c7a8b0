"""`nanochat serve` as a process, and what its words mean."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from api_server import until

from nanochat.checkpoint.find import resolve_ref
from nanochat.cli import serve
from nanochat.cli.replicas import count_replicas, engine_makers
from nanochat.config.runtime import Device
from nanochat.errors import ConfigError, MissingError
from nanochat.runtime.device import Machine
from nanochat.tokenizer.bpe import Tokenizer


@contextmanager
def process(base: Path, *words: str, **environment: str) -> Iterator[Any]:
    """(process, its URL) of a server that is ready."""
    command = [sys.executable, "-m", "nanochat.cli.main", "serve", "--port", "0", f"base_dir={base}", *words]
    command[1:3] = ["-c", "from nanochat.cli.main import main; main()"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert started.stdout is not None
        loading, ready = started.stdout.readline(), started.stdout.readline()
        assert loading.startswith("loading sft/ref@"), loading
        yield started, ready.split(" is at ")[1].split()[0]
    finally:
        started.kill()
        started.communicate()


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_it_serves_until_a_signal_and_ends_with_0(sft_run: Path, how: signal.Signals) -> None:
    base = sft_run.parents[1]
    with process(base, "sft/ref", NANOCHAT_API_KEY="k") as (server, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"Authorization": "Bearer k"}
        [model] = httpx.get(f"{url}/v1/models", headers=headers).json()["data"]
        assert model["id"].startswith("sft/ref@") and model["max_model_len"] == 64
        body = {"model": "sft/ref", "messages": [{"role": "user", "content": "Say 3"}], "stream": True}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers) as stream:
            pieces = stream.iter_text()
            assert next(pieces).startswith("data: ")
            server.send_signal(how)
            assert "".join(pieces).endswith("\n\n")
        assert server.wait(10) == 0
        assert server.stdout.read() == "ended\n" and server.stderr.read() == ""


def test_a_port_in_use_is_one_line_with_the_way_out(sft_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port} is in use on 127.0.0.1; take another"):
            serve.main(["sft/ref", f"--port={port}", f"base_dir={sft_run.parents[1]}"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port=70000"], "out of range"),
        (["--host=198.51.100.1"], "no address of this machine"),
        (["--api-key="], "--api-key is empty"),
        (["--allow-origin=*"], "lets every web page ask"),
        (["--max-rows=0"], "at least 1"),
        (["--temperature=9"], "from 0 to 2"),
        (["--replicas=0"], "whole number from 1"),
        (["--replicas=999"], "CPU threads to divide"),
    ],
)
def test_words_that_cannot_be(sft_run: Path, words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        serve.main(["sft/ref", "--port=0", *words, "--device=cpu", f"base_dir={sft_run.parents[1]}"])


def test_a_reference_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no complete checkpoint"):
        serve.main(["sft/none", f"base_dir={tmp_path}"])


def test_without_the_extra_the_command_that_adds_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(MissingError, match=r"needs uvicorn: pip install 'nanochat\[serve\]'"):
        serve.main([])


def test_other_hosts_without_a_key_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    serve._warn(serve._access(serve._parse(["--host", "0.0.0.0"])))
    assert "anybody may ask" in capsys.readouterr().err
    serve._warn(serve._access(serve._parse(["--host", "0.0.0.0", "--api-key", "k"])))
    serve._warn(serve._access(serve._parse([])))
    assert capsys.readouterr().err == ""


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOCHAT_API_KEY", "secret\n")
    assert serve._access(serve._parse([])).api_key == "secret"
    assert serve._access(serve._parse(["--api-key", "other"])).api_key == "other"


def test_replicas_on_the_cpu_share_their_weights(sft_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    ref = resolve_ref(sft_run.parents[1], "sft/ref")
    machine = Machine("cpu", "float32", False, "cpu", None, None)
    makers = engine_makers(ref, machine, Tokenizer.load(sft_run / "tokenizer"), "2", 4)
    engines: list[Any] = []
    threads = [threading.Thread(target=lambda make=make: engines.append(make())) for make in makers]
    for thread in threads:
        thread.start()
    until(lambda: len(engines) == 2)
    assert engines[0] is not engines[1] and engines[0].model is engines[1].model


def test_one_replica_for_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert count_replicas("auto", "cuda") == 4 and count_replicas("3", "cuda") == 3
    assert count_replicas("auto", str(Device.cpu)) == count_replicas("auto", "mps") == 1
    for asked, device in (("5", "cuda"), ("2", "mps"), ("-1", "cpu"), ("many", "cpu")):
        with pytest.raises(ConfigError, match=f"--replicas {asked}"):
            count_replicas(asked, device)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--prot=5"], "nanochat serve: '--prot=5' is not known; did you mean --port"),
        (["--port", "abc"], "nanochat serve: argument --port: invalid int value: 'abc'; nanochat serve --help shows"),
        (["sft", "more"], "nanochat serve: 'more' is not known"),
    ],
)
def test_mistaken_flags_are_a_paragraph(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=said):
        serve.main(words)
    assert capsys.readouterr().err == ""
