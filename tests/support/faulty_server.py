"""An HTTP server with the faults of real ones, each played once: the next request for the file is served well.

It counts requests and bytes of bodies. Files have an ETag and can be asked for by Range, unless it is told otherwise.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

Fault = Callable[["Answer"], None]


@dataclass
class Answer:
    """What is going to be sent; a fault changes it. `length` is the announced one, `events` are waited for."""

    name: str
    body: bytes
    start: int
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    stop_after: int | None = None  # bytes of body, then the connection is closed
    stall: tuple[int, float] = (0, 0.0)  # after so many bytes, so many seconds of nothing
    slow: float = 0.0  # seconds after each kilobyte
    ranges: bool = True
    before: Callable[[], None] | None = None


@dataclass(frozen=True)
class Request:
    """One that was answered."""

    name: str
    range: str | None
    if_range: str | None
    token: str | None
    status: int


class FaultyServer:
    """`files` can be changed while it runs; `faults[name]` are played one a request."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[Request] = []
        self.sent: dict[str, int] = {}
        self.marks = True  # whether there are ETags
        self.linked = False  # whether sha256 is sent as the hub does
        self.url = ""
        self._lock = threading.Lock()

    def asked(self, name: str) -> list[Request]:
        return [request for request in self.requests if request.name == name]

    def answer(self, name: str, range_header: str | None, if_range: str | None) -> Answer:
        with self._lock:
            fault = self.faults[name].pop(0) if self.faults.get(name) else None
            body = self.files.get(name)
        if body is None:
            return Answer(name, b"nothing here", 0, 404)
        start = int(range_header.removeprefix("bytes=").removesuffix("-")) if range_header else 0
        answer = Answer(name, body, start)
        if fault is not None:
            fault(answer)
        etag = f'"{hashlib.md5(answer.body).hexdigest()}"'
        if self.marks:
            answer.headers.setdefault("ETag", etag)
        if self.linked:
            answer.headers.setdefault("X-Linked-ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        stale = not answer.ranges or not self.marks or if_range not in (None, etag)
        if start and answer.status == 200 and stale:
            answer.start = 0
        elif start >= len(answer.body) and answer.status == 200:
            answer.status = 416
        elif start and answer.status == 200:
            answer.status = 206
            answer.headers["Content-Range"] = f"bytes {start}-{len(answer.body) - 1}/{len(answer.body)}"
        return answer

    def count(self, name: str, sent: int) -> None:
        with self._lock:
            self.sent[name] = self.sent.get(name, 0) + sent

    @contextmanager
    def running(self) -> Iterator["FaultyServer"]:
        """Within the block it answers at `url`."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/data"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def _handler(owner: FaultyServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            asked, if_range = self.headers.get("Range"), self.headers.get("If-Range")
            answer = owner.answer(name, asked, if_range)
            owner.requests.append(Request(name, asked, if_range, self.headers.get("Authorization"), answer.status))
            if answer.before is not None:
                answer.before()
            body = answer.body[answer.start :] if answer.status in (200, 206) else b"an error page"
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(body) if answer.length is None else answer.length))
            self.send_header("Connection", "close")
            for header in answer.headers.items():
                self.send_header(*header)
            self.end_headers()
            try:
                self._send(answer, body)
            except OSError:
                return  # whoever asked has gone

        def _send(self, answer: Answer, body: bytes) -> None:
            self.close_connection = True
            for first in range(0, len(body), 1024):
                if answer.stop_after is not None and first >= answer.stop_after:
                    return
                if answer.stall[1] and first >= answer.stall[0]:
                    time.sleep(answer.stall[1])
                chunk = body[first : first + 1024]
                self.wfile.write(chunk)
                if answer.status in (200, 206):
                    owner.count(answer.name, len(chunk))
                time.sleep(answer.slow)

        def log_message(self, *arguments: object) -> None:
            return

    return Handler


def drops(after: int) -> Fault:
    """The connection ends in the middle; Content-Length was right."""
    return lambda answer: setattr(answer, "stop_after", after)


def truncates(to: int) -> Fault:
    """The server has, and announces, a part of the file only."""

    def fault(answer: Answer) -> None:
        answer.body = answer.body[:to]

    return fault


def overstates(by: int) -> Fault:
    """Content-Length is larger than the file."""

    def fault(answer: Answer) -> None:
        answer.length = len(answer.body) - answer.start + by

    return fault


def says(status: int, **headers: str) -> Fault:
    """An error; `Retry_After="1"` is a header."""

    def fault(answer: Answer) -> None:
        answer.status = status
        answer.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    return fault


def stalls(after: int, seconds: float) -> Fault:
    """Nothing more comes for a while."""
    return lambda answer: setattr(answer, "stall", (after, seconds))


def corrupts(start: int, length: int) -> Fault:
    """Some bytes are zero."""

    def fault(answer: Answer) -> None:
        answer.body = answer.body[:start] + bytes(length) + answer.body[start + length :]

    return fault


def ignores_range(answer: Answer) -> None:
    """All of it, whatever was asked for."""
    answer.ranges = False


def holds(event: threading.Event, most: float = 60.0) -> Fault:
    """No answer before the event."""

    def wait() -> None:
        event.wait(most)

    def fault(answer: Answer) -> None:
        answer.before = wait

    return fault


def shard_bytes(number: int, documents: int = 200, row_group: int = 50) -> bytes:
    """A small parquet shard; no two are alike."""
    draw = hashlib.sha256(str(number).encode())
    texts = []
    for index in range(documents):
        draw.update(b".")
        texts.append(f"Document {index} of shard {number}. {draw.hexdigest()} " * 3)
    return as_parquet(texts, row_group)


def as_parquet(texts: list[str], row_group: int = 50, compression: str = "zstd") -> bytes:
    buffer = BytesIO()
    pq.write_table(pa.table({"text": texts}), buffer, row_group_size=row_group, compression=compression)
    return buffer.getvalue()
