"""The web page's files and a scripted answer to whatever it asks, in a thread of the test.

Notable: it speaks the server-sent events of /v1/chat/completions word for word as the real server does, and can also
do what that one should never do: break off, be full, ask for a key, send events cut in the middle of a character.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from nanochat.serving.guard import CONTENT_SECURITY
from nanochat.serving.page_files import TYPES


@dataclass
class Said:
    """What comes back: `pieces` one after the other, `pause` seconds between them; or an error."""

    pieces: list[str] = field(default_factory=list)
    pause: float = 0.0
    finish: str | None = "stop"  # None: the connection breaks off
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)
    cut: int = 0  # bytes to a packet; 0: an event
    usage: bool = True


@dataclass
class PageServer:
    """`answer(body)` decides what is said; `asked` are the bodies so far, `broken` how many clients hung up."""

    url: str
    answer: Callable[[dict[str, Any]], Said]
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    broken: int = 0
    api_key: str | None = None
    models: list[str] = field(default_factory=lambda: ["sft/quickstart"])


def words(text: str, pause: float = 0.0, **rest: Any) -> Said:
    """The text a word at a time, about as a model's tokens come."""
    return Said([w + " " for w in text.split(" ")[:-1]] + [text.split(" ")[-1]], pause, **rest)


def events(said: Said) -> Iterator[bytes]:
    """The events of a streamed answer in OpenAI's form."""

    def event(delta: dict[str, str], finish: str | None = None, **rest: Any) -> bytes:
        chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        return f"data: {json.dumps({**chunk, **rest}, ensure_ascii=False)}\n\n".encode()

    yield event({"role": "assistant", "content": ""})
    for piece in said.pieces:
        yield event({"content": piece})
    if said.finish is None:
        return
    yield event({}, said.finish)
    if said.usage:
        yield f"data: {json.dumps({'choices': [], 'usage': usage_of(said)})}\n\n".encode()
    yield b"data: [DONE]\n\n"


def usage_of(said: Said) -> dict[str, int]:
    """Counts as if each piece were a token."""
    return {"prompt_tokens": 9, "completion_tokens": len(said.pieces), "total_tokens": 9 + len(said.pieces)}


@contextmanager
def page_server(answer: Callable[[dict[str, Any]], Said]) -> Iterator[PageServer]:
    """The server on a free port of this machine."""

    class Handler(_Handler):
        server_state: PageServer

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        Handler.server_state = PageServer(f"http://127.0.0.1:{http.server_address[1]}/", answer)
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield Handler.server_state
        finally:
            http.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server_state: PageServer

    def do_GET(self) -> None:
        name = self.path.split("?")[0].strip("/") or "index.html"
        if name == "v1/models":
            data = [{"id": model, "object": "model"} for model in self.server_state.models]
            self._json(200, {"object": "list", "data": data}) if self._allowed() else self._refuse_key()
            return
        file = files("nanochat.serving") / "page" / name
        if "/" in name or not file.is_file():
            self._json(404, {"error": {"message": "not found"}})
            return
        self._send(200, file.read_bytes(), TYPES["." + name.rsplit(".", 1)[1]])

    def do_POST(self) -> None:
        state = self.server_state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._allowed():
            self._refuse_key()
            return
        state.asked.append(body)
        said = state.answer(body)
        if said.status != 200:
            self._json(said.status, {"error": said.error}, said.headers)
            return
        try:
            self._stream(said)
        except OSError:
            state.broken += 1

    def _stream(self, said: Said) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for event in events(said):
            size = said.cut or len(event)
            for start in range(0, len(event), size):
                self.wfile.write(event[start : start + size])
                self.wfile.flush()
            time.sleep(said.pause)

    def _allowed(self) -> bool:
        self.server_state.keys.append(self.headers.get("Authorization", ""))
        return self.server_state.api_key is None or self.server_state.keys[-1] == f"Bearer {self.server_state.api_key}"

    def _refuse_key(self) -> None:
        self._json(401, {"error": {"message": "the API key is missing or wrong", "code": "invalid_api_key"}})

    def _json(self, status: int, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", headers)

    def _send(self, status: int, content: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        sent = {"Content-Type": kind, "Content-Length": str(len(content)), "Content-Security-Policy": CONTENT_SECURITY}
        for name, value in {**sent, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Silent."""
