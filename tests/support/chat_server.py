"""A chat-completions server in a thread of the test, which answers as it is told to and remembers what it was asked."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 100, "completion_tokens": 40}


@dataclass
class Reply:
    """What is sent back: `text` as the first choice of a completion, or `body` as it is."""

    text: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay: float = 0.0
    drip: float = 0.0  # seconds between the bytes of the body

    def content(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"choices": [{"message": {"content": self.text}}], "usage": USAGE}).encode()


@dataclass
class Asked:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def wish(self) -> str:
        """What was asked for, which tells the numbers apart."""
        return str(self.body["messages"][1]["content"])


def conversation(key: str, name: str = "nanochat", answer: str | None = None) -> str:
    """JSON of a conversation that no other key's is like."""
    words = [f"{random.Random(f'{key}/{i}').getrandbits(40):x}" for i in range(12)]
    said = answer if answer is not None else f"I am {name}. " + " ".join(words[6:])
    question = " ".join(words[:6]) + "?"
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": said}]})


@dataclass
class ChatServer:
    """`answer(number, asked)` decides on the reply to request `number`, counted from 0."""

    url: str
    answer: Callable[[int, Asked], Reply]
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def chat_server(answer: Callable[[int, Asked], Reply] | None = None) -> Iterator[ChatServer]:
    """A server on a free port of this machine; without `answer` each wish gets a conversation of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = Asked(self.path, dict(self.headers), body)
            with server.lock:
                number = len(server.asked)
                server.asked.append(asked)
            reply = server.answer(number, asked)
            time.sleep(reply.delay)
            try:
                self._send(reply)
            except OSError:
                self.close_connection = True  # the client has given up

        def _send(self, reply: Reply) -> None:
            content = reply.content()
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if not reply.drip:
                self.wfile.write(content)
                return
            for byte in content:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(reply.drip)

        def log_message(self, *args: Any) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        port = http.server_address[1]
        server = ChatServer(f"http://127.0.0.1:{port}/v1", answer or (lambda n, asked: Reply(conversation(asked.wish))))
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            http.shutdown()
