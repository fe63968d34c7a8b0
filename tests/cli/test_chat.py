"""`nanochat chat`: in a pipe, in a terminal of its own, and with what users get wrong."""

import fcntl
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workshop import Workshop

from nanochat.cli.chat_commands import Commands
from nanochat.cli.main import run_command
from nanochat.engine.chat import ChatSession
from nanochat.engine.sampling import SamplingParams
from nanochat.errors import ConfigError
from nanochat.tasks.custom_json import CustomJSON

# the real command with a pause before each token: the small model would have answered before anyone could interrupt it
SLOW = """
import sys, time
from nanochat.engine.engine import Engine
step = Engine.step
Engine.step = lambda self: (time.sleep(0.08), step(self))[1]
from nanochat.cli.main import main
main()
"""


def chat(workshop: Workshop, *words: str) -> list[str]:
    return ["chat", "base/ref", "--base-dir", str(workshop.base_dir), "--device", "cpu", *words]


def test_p_prints_the_answer_alone(workshop: Workshop, base_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(chat(workshop, "-p", "Say 3", "-n", "5", "-t", "0")) == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n") and out.strip() and "you:" not in out and "base/ref" not in out
    assert "Traceback" not in err
    run_command(chat(workshop, "-p", "Say 3", "-n", "5", "-t", "1", "--seed", "3", "--dtype", "float32"))
    drawn = capsys.readouterr().out
    every = ["--top-p", "0.9", "--min-p", "0.01", "--repetition-penalty", "1.3", "-k", "0", "--system", "be brief"]
    assert run_command(chat(workshop, "-p", "Say 3", "-n", "5", "-t", "1", "--seed", "3", *every)) == 0
    assert capsys.readouterr().out != drawn


def test_the_prompt_comes_from_stdin(
    workshop: Workshop, base_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_command(chat(workshop, "-p", "Say 3", "-n", "5", "-t", "0"))
    said = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Say 3\n")))
    assert run_command(chat(workshop, "-p", "-", "-n", "5", "-t", "0")) == 0
    assert capsys.readouterr().out == said
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert run_command(chat(workshop, "-p", "-")) == 2
    assert "the prompt is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-t", "warm"], "argument -t/--temperature: invalid float value: 'warm'"),
        (["-t", "-1"], "temperature=-1.0 must be"),
        (["-t", "nan"], "temperature=nan must be"),
        (["--top-p", "0"], "top_p=0.0 must be"),
        (["--min-p", "2"], "min_p=2.0 must be"),
        (["-k", "-3"], "top_k=-3 must be"),
        (["--repetition-penalty", "0"], "repetition_penalty=0.0 must be"),
        (["-n", "-1"], "max_new_tokens=-1 must be"),
        (["--dtype", "int8"], "invalid choice: 'int8'"),
        (["--temprature=1"], "'--temprature=1' is not known; did you mean --temperature"),
        (["-p", " "], "the prompt is empty"),
    ],
)
def test_wrong_values_are_one_paragraph(
    words: list[str], said: str, workshop: Workshop, base_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(chat(workshop, "-p", "hi", *words)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and said in err


def test_a_reader_that_leaves_ends_it_quietly(workshop: Workshop, base_run: Path) -> None:
    command = [sys.executable, "-c", SLOW, *chat(workshop, "-p", "Say 3", "-t", "0")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stderr
    first = process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert (first != b"", process.wait(20), said) == (True, 141, "")


class Terminal:
    """A command in a pseudo-terminal of its own, whose Ctrl-C is a real one."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.master, slave = pty.openpty()

        def own_the_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=own_the_terminal,
            env={**os.environ, "TERM": "dumb"},
        )
        os.close(slave)
        self.text = ""
        self.reads: list[float] = []

    def send(self, text: str) -> None:
        self.text = ""
        self.reads = []
        os.write(self.master, text.encode())

    def insist(self, key: str, pattern: str) -> str:
        """`until` for a Ctrl-C at the prompt. A signal between readline's prompt and its select() wakes nobody before
        the next key: one in 600 on a busy machine (CPython 3.11), so a second one may be needed.
        """
        self.send(key)
        try:
            return self.until(pattern, 5)
        except AssertionError:
            os.write(self.master, key.encode())
            return self.until(pattern)

    def until(self, pattern: str, seconds: float = 30) -> str:
        """What was shown since the last `send`, once `pattern` is part of it."""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text, re.DOTALL):
            ready = select.select([self.master], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"no {pattern!r} in {self.text!r}"
            try:
                self.text += os.read(self.master, 4096).decode(errors="replace")
            except OSError:  # the other side has closed
                raise AssertionError(f"it ended without {pattern!r}: {self.text!r}") from None
            self.reads.append(time.monotonic())
        return self.text


@pytest.fixture
def terminal(workshop: Workshop, base_run: Path, tmp_path: Path) -> Any:
    made = Terminal([sys.executable, "-c", SLOW, *chat(workshop, "-t", "0", "-n", "30")], tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.send_signal(signal.SIGKILL)
    made.process.wait()
    os.close(made.master)


def test_a_conversation_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    terminal.until("you: ")
    terminal.send("Say 3\n")
    terminal.until(r"nanochat: [^\r\n]{4,}")
    assert len(terminal.reads) >= 3 and terminal.reads[-1] - terminal.reads[0] > 0.1, "it does not stream"

    terminal.send("\x03")
    shown = terminal.until("you: ")
    assert "cut off" not in shown, "Ctrl-C did not stop the answer"

    terminal.insist("\x03", "Ctrl-D ends.*you: ")
    terminal.send("/sav\n")
    terminal.until("error: /sav is no command; did you mean /save.*you: ")
    terminal.send("/params max_new_tokens=4 top_k=9\n")
    assert "top_k=9" in terminal.until("max_new_tokens=4.*you: ")
    terminal.send("/params top_k=few\n")
    terminal.until("top_k must be a whole number.*you: ")
    terminal.send("Say 4\n")
    terminal.until("cut off after 4 tokens.*you: ")
    terminal.send("/save said.jsonl\n")
    terminal.until("2 turns.*you: ")
    terminal.send("\x04")
    assert terminal.process.wait(10) == 0
    task = CustomJSON((tmp_path / "said.jsonl").read_bytes(), "said.jsonl")
    assert [m["content"] for m in task[0]["messages"][::2]] == ["Say 3", "Say 4"]


class Answering:
    """A Talk whose model says `answer`."""

    def __init__(self, answer: list[dict[str, str]]) -> None:
        self.params = SamplingParams(max_new_tokens=9, top_k=5)
        engine: Any = SimpleNamespace(model=SimpleNamespace(dims=Namespace(seq_len=64)))
        self.session = ChatSession(engine, None, notify=print)  # type: ignore[arg-type]
        self.parts = answer

    def answer(self, text: str) -> bool:
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": self.parts}]
        self.session.messages += turns
        return True


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    monkeypatch.chdir(tmp_path)
    return Answering([{"type": "text", "text": "yes\u2028né"}])


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_saving_again_replaces_the_own_line_only(talk: Any, tmp_path: Path) -> None:
    commands, path = Commands(talk), tmp_path / "conversations.jsonl"
    with pytest.raises(ConfigError, match="no answer to save"):
        commands.run("/save")
    talk.answer("one")
    commands.run("/save")
    talk.answer("two")
    commands.run("/save")
    assert [len(line["messages"]) for line in lines(path)] == [4]
    commands.run("/clear")
    talk.answer("three")
    commands.run("/save")
    assert [len(line["messages"]) for line in lines(path)] == [4, 2]
    with path.open("ab") as other:  # somebody else's line comes behind, without its end
        other.write(json.dumps(lines(path)[0]).encode())
    commands.run("/save")
    assert len(CustomJSON(path.read_bytes(), "x")) == 4


def test_save_spoils_no_other_file(talk: Any, tmp_path: Path) -> None:
    commands = Commands(talk)
    talk.answer("one")
    (tmp_path / "notes.txt").write_text("buy milk\n")
    with pytest.raises(ConfigError, match="files of conversations only.*notes.txt:1: not JSON"):
        commands.run("/save notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "buy milk\n"
    for target in ("none/here.jsonl", "."):
        with pytest.raises(ConfigError, match="give another file"):
            commands.run(f"/save {target}")


def test_commands(talk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    commands = Commands(talk)
    commands.run("/help")
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("/clear", "/save", "/params", "/retry", "/system", "/quit", "Ctrl-C"))
    with pytest.raises(ConfigError, match="nothing was said"):
        commands.run("/retry")
    talk.answer("one")
    commands.run("/retry")
    assert [m["role"] for m in talk.session.messages] == ["user", "assistant"]
    commands.run("/system be kind")
    assert talk.session.messages == [{"role": "system", "content": "be kind"}]
    commands.run("/exit")
    assert commands.done


def test_a_retry_that_fails_loses_nothing(talk: Any) -> None:
    talk.answer("one")
    before = list(talk.session.messages)

    def fail(text: str) -> bool:
        raise ConfigError("too long")

    talk.answer = fail
    with pytest.raises(ConfigError, match="too long"):
        Commands(talk).run("/retry")
    assert talk.session.messages == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("temprature=1", "temprature is no parameter; did you mean temperature"),
        ("temperature 1", "write name=value"),
        ("temperature=-1", "temperature=-1.0 must be"),
        ("seed=1.5", "seed must be a whole number"),
        ("top_p=0 temperature=0.1", "top_p=0.0 must be"),
    ],
)
def test_parameters_that_mean_nothing_change_nothing(talk: Any, words: str, said: str) -> None:
    before = talk.params
    with pytest.raises(ConfigError, match=re.escape(said)):
        Commands(talk).run(f"/params {words}")
    assert talk.params == before


def test_parameters_are_shown_and_set(talk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    Commands(talk).run("/params temperature=0.25 top_k=0 seed=7")
    assert (talk.params.temperature, talk.params.top_k, talk.params.seed) == (0.25, None, 7)
    assert {"temperature=0.25", "top_k=0", "seed=7", "max_new_tokens=9"} <= set(capsys.readouterr().out.split())


def test_a_model_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], talk: Any
) -> None:
    from nanochat.cli.chat import Talk

    def reply(text: str, params: SamplingParams, stopped: Callable[[], bool]) -> list[str]:
        return ["a\tb\n", "\x1b[2J", "\x7f", "\x9b"]

    monkeypatch.setattr(talk.session, "reply", reply)
    Talk.answer(talk, "hi")
    assert "\x1b[2J" in capsys.readouterr().out, "a pipe gets the text as it is"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    Talk.answer(talk, "hi")
    assert capsys.readouterr().out == "a\tb\n␛[2J␡\ufffd\n"
