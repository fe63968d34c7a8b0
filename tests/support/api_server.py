"""`nanochat serve`'s app on a free port, in a thread of the test."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nanochat.engine.engine import Engine
from nanochat.serving.app import create_app
from nanochat.serving.guard import Access
from nanochat.serving.limits import Defaults, Limits
from nanochat.serving.server import Server, listen, url_of
from nanochat.serving.service import Service
from nanochat.tokenizer.bpe import Tokenizer


@dataclass
class Api:
    """A server that runs. `url` has no path."""

    url: str
    service: Service
    server: Server

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


def make_service(tokenizer: Tokenizer, engines: Sequence[Callable[[], Engine]], context: int, **limits: Any) -> Service:
    """A service called `sft/tiny@7`, with the likeliest token by default."""
    return Service(
        model="sft/tiny@7",
        aliases=("sft/tiny", "nanochat"),
        tokenizer=tokenizer,
        context=context,
        engines=engines,
        limits=Limits(**limits),
        defaults=Defaults(temperature=0.0, top_k=None),
        created=1,
    )


@contextmanager
def api_server(service: Service, access: Access | None = None, wait: bool = True) -> Iterator[Api]:
    """Serves until the block ends; with `wait` it begins when the model is loaded."""
    listener = listen("127.0.0.1", 0)
    url, ready = url_of(listener), threading.Event()
    server = Server(create_app(service, access), service, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        if wait:
            assert ready.wait(30), f"not ready: {server.failure!r}"
        else:
            until(lambda: server.started)
        yield Api(url, service, server)
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until it holds; an assertion error if it never does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
