"""What can be typed instead of a message in the terminal chat: /help, /clear, /save, /params, /retry, /system, /quit.

Notable: /save writes a line that the task custom_json reads, so a conversation can be trained on. A conversation that
is saved again to the same file replaces its own line there as long as that is the last one.
"""

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nanochat.engine.sampling import SamplingParams, check_params
from nanochat.errors import ConfigError, NanochatError, nearest
from nanochat.tasks.custom_json import parse_jsonl

if TYPE_CHECKING:
    from nanochat.cli.chat import Talk

_SAVE_TO = "conversations.jsonl"
_HELP = """\
/clear              forget the conversation
/retry              answer the last message once more
/save [FILE]        add the conversation to a JSONL file that training reads (custom_json); default conversations.jsonl
/params [K=V ...]   show or set temperature, top_k, top_p, min_p, repetition_penalty, max_new_tokens, seed
/system [TEXT]      set the system message and start anew; without a text there is none
/help               this list
/quit               end; Ctrl-D too. Ctrl-C stops an answer"""
_WHOLE = ("top_k", "max_new_tokens", "seed")


class Commands:
    """The commands of one conversation. `done` once the user wants to end."""

    def __init__(self, talk: "Talk") -> None:
        """Acts on `talk`: its session and its parameters."""
        self.talk = talk
        self.done = False
        self._saved: tuple[Path, int, int] | None = None  # where this conversation's line begins and ends
        self._known: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/clear": self._clear,
            "/retry": self._retry,
            "/save": self._save,
            "/params": self._params,
            "/system": self._system,
            "/quit": self._quit,
            "/exit": self._quit,
        }

    def run(self, line: str) -> None:
        """Does what the line says. ConfigError for an unknown command, naming the nearest."""
        name, _, rest = line.partition(" ")
        if name not in self._known:
            raise ConfigError(f"{name} is no command; {nearest(name, self._known)}")
        self._known[name](rest.strip())

    def _help(self, rest: str) -> None:
        print(_HELP)

    def _quit(self, rest: str) -> None:
        self.done = True

    def _clear(self, rest: str) -> None:
        self.talk.session.clear()
        self._saved = None
        print("(forgotten)")

    def _retry(self, rest: str) -> None:
        session = self.talk.session
        before = list(session.messages)
        question = session.undo()
        if question is None:
            raise ConfigError("/retry: nothing was said yet")
        print(f"you: {question}\nnanochat: ", end="", flush=True)
        try:
            self.talk.answer(question)
        except NanochatError:
            session.messages = before
            raise

    def _system(self, rest: str) -> None:
        self._clear("")
        self.talk.session.set_system(rest or None)
        print(f"(system message: {rest or 'none'})")

    def _params(self, rest: str) -> None:
        params = self.talk.params
        for word in rest.split():
            params = _changed(params, word)
        check_params(params)
        self.talk.params = params
        print("  ".join(f"{name}={getattr(params, name) or 0}" for name in _names()))

    def _save(self, rest: str) -> None:
        messages = self.talk.session.transcript()
        if not messages:
            raise ConfigError("/save: there is no answer to save yet")
        path = Path(rest or _SAVE_TO).expanduser().absolute()
        line = json.dumps({"messages": messages}, ensure_ascii=False).encode() + b"\n"
        try:
            self._saved = _append(path, line, self._saved)
        except OSError as error:
            raise ConfigError(f"/save {path}: {error.strerror}; give another file") from error
        print(f"(saved to {path}: {sum(m['role'] == 'user' for m in messages)} turns)")


def _append(path: Path, line: bytes, former: tuple[Path, int, int] | None) -> tuple[Path, int, int]:
    """Adds the line, in place of `former` if that is the end of this file. ConfigError for a file of another kind."""
    content = path.read_bytes() if path.exists() else b""
    start = len(content)
    if former is not None and former[0] == path and former[2] == start:
        start = former[1]
    kept = content[:start]
    if kept.strip():
        try:
            parse_jsonl(kept, str(path))
        except ConfigError as error:
            raise ConfigError(f"/save adds to files of conversations only. {error}") from None
    gap = b"" if not kept or kept.endswith(b"\n") else b"\n"
    with path.open("r+b" if path.exists() else "xb") as file:
        file.seek(start)
        file.write(gap + line)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())
    return path, start, start + len(gap + line)


def _names() -> list[str]:
    return [field.name for field in fields(SamplingParams)]


def _changed(params: SamplingParams, word: str) -> SamplingParams:
    """The parameters with `name=value` set. ConfigError for an unknown name or a value that is no number."""
    name, equals, text = word.partition("=")
    if not equals:
        raise ConfigError(f"/params {word}: write name=value, as in /params temperature=0.8")
    if name not in _names():
        raise ConfigError(f"/params: {name} is no parameter; {nearest(name, _names())}")
    kind = int if name in _WHOLE else float
    try:
        value = kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise ConfigError(f"/params {word}: {name} must be {wanted}") from None
    changes: dict[str, Any] = {name: value or None if name == "top_k" else value}
    return replace(params, **changes)
