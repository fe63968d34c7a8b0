"""Training under supervision: progress, the end on Ctrl-C and before memory is used up; the report by domain."""

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workshop import Workshop

from nanochat.errors import ConfigError, Interrupted, NanochatError
from nanochat.runtime import host_memory
from nanochat.stages.learning import learn
from nanochat.stages.tokenizer_report import domains, read_report
from nanochat.tracking.console import Console

TEXTS = ["the band rests, the band plays"] * 50


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def endless() -> Iterator[str]:
    while True:
        time.sleep(0.001)
        yield "the band plays on"


def test_what_was_learnt_and_from_what() -> None:
    stream = Terminal()

    def slowly() -> Iterator[str]:
        for text in TEXTS:
            time.sleep(0.01)
            yield text

    learned = learn(slowly(), 275, 10_000, Console(None, True, stream=stream))
    assert learned.tokenizer.vocab_size == 275
    assert learned.chars == sum(map(len, TEXTS))
    assert 4 <= learned.words <= 8
    assert learned.peak > 10**7
    assert "of at most 10k characters" in stream.getvalue()


def test_an_error_of_the_learner_or_the_text_comes_through() -> None:
    with pytest.raises(ConfigError, match="cannot be reached"):
        learn(TEXTS, 5000, 10_000, Console(None, False))

    def broken() -> Iterator[str]:
        yield "a"
        raise NanochatError("shard 3 is gone")

    with pytest.raises(NanochatError, match="shard 3 is gone"):
        learn(broken(), 300, 10_000, Console(None, False))


def test_ctrl_c_ends_it_at_once() -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(Interrupted, match=r"stopped after [\d,]+ characters; of a tokenizer nothing is kept"):
        learn(endless(), 300, 10**9, Console(None, False))
    assert time.monotonic() - began < 3


def test_it_ends_before_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.stages.learning.available_memory", lambda: 2_000_000)
    words = (" ".join(f"{chr(97 + i % 26) * (3 + i % 7)}{chr(97 + i // 26 % 26)}{i:x}x" for i in range(n, n + 50)) for n in range(0, 10**7, 50))  # fmt: skip  # noqa: E501
    with pytest.raises(NanochatError, match=r"tokenizer.max_chars: .* GB are free; set tokenizer.max_chars=\d+"):
        learn(words, 300, 10**9, Console(None, False))


def test_memory_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(host_memory, "_CGROUP", tmp_path)
    assert host_memory.available_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    2000 kB\n")
    assert host_memory.available_memory() == 2_048_000
    (tmp_path / "memory.current").write_text("500\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert host_memory.available_memory() == 2_048_000
    (tmp_path / "memory.max").write_text("1500\n")
    assert host_memory.available_memory() == 1000


def test_every_domain_has_text_of_its_kind() -> None:
    texts = domains("prose " * 100_000)
    prose, code, digits, foreign = texts.values()
    assert len(prose) == 200_000
    assert len(code) > 150_000 and "def " in code and "import " in code
    assert sum(c.isdigit() for c in digits) > len(digits) / 2
    assert len(foreign.splitlines()) == 12
    for letter in "ßéñãęığыा的の는ا":
        assert letter in foreign, letter


def test_the_report_is_kept_and_shown_again(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> None:
    workshop.train("tokenizer", "tokenizer.name=reported")
    first = capsys.readouterr().out
    folder = workshop.base_dir / "tokenizer" / "reported"
    report = json.loads((folder / "report.json").read_text())
    assert [row["domain"].split()[0] for row in report["bytes_per_token"]] == ["prose", "code", "digits", "12"]
    assert all(row["ours"] > 0.9 for row in report["bytes_per_token"])
    assert report["vocab_size"] == 300 and report["characters"] > 1000
    assert "| code (Python) |" in (folder / "report.md").read_text()
    workshop.train("tokenizer", "tokenizer.name=reported")
    again = capsys.readouterr().out
    table = [line for line in first.splitlines() if line.startswith(("prose", "code", "digits", "learnt"))]
    assert len(table) == 4 and all(line in again for line in table)
    (folder / "report.json").write_text("{")
    assert read_report(folder) is None
    workshop.train("tokenizer", "tokenizer.name=reported")
