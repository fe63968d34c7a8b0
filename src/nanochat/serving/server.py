"""The app on a port: listens, says when it is ready, ends on a signal.

Notable: the server listens while the model loads, so that /health can say so. uvicorn's own way to end on Ctrl-C is
to raise the signal again when all is done; ending as asked is no failure, so here it returns.
"""

import asyncio
import errno
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from nanochat.errors import ConfigError
from nanochat.serving.service import Service

_BACKLOG = 2048
_MARGIN = 2.0  # seconds for connections to close after the last answer has been ended


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes a free one. Raises ConfigError if that cannot be."""
    if not 0 <= port <= 65535:  # getaddrinfo would take it modulo 65536
        raise ConfigError(f"--port {port} is out of range; it is from 1 to 65535, or 0 for any that is free")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigError:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(f"--host {host} is no address of this machine; 127.0.0.1 is always one, 0.0.0.0 means all")
    if error.errno == errno.EADDRINUSE:
        return ConfigError(f"--port {port} is in use on {host}; take another, or --port 0 for any that is free")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(f"--port {port} may not be used by this user; take one above 1023, such as 8000")
    return ConfigError(f"--host {host} --port {port}: {error.strerror}")


def url_of(listener: socket.socket) -> str:
    """Where a browser finds it."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


class Connection(H11Protocol):
    """uvicorn's, but closed if it brings no whole request head for `patience` seconds: uvicorn would wait for ever."""

    patience = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody has called."""
        super().connection_made(transport)
        self._wait_for_more_than(None)

    def _wait_for_more_than(self, seen: object) -> None:
        self.loop.call_later(self.patience, self._look, seen)

    def _look(self, seen: object) -> None:
        """`seen` is the request that was under way, or the last one, a while ago."""
        if self.transport.is_closing():
            return
        if self.cycle is seen and (seen is None or self.cycle.response_complete):
            self.transport.close()
        else:
            self._wait_for_more_than(self.cycle)


class Server(uvicorn.Server):
    """uvicorn with our way to end. `ready` is called once the model is loaded; `failure` is why it never was."""

    def __init__(self, app: FastAPI, service: Service, ready: Callable[[], None]) -> None:
        """Nothing runs yet."""
        limit = int(service.limits.grace_seconds + _MARGIN)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=limit,
        )
        super().__init__(config)
        self._service = service
        self._ready = ready
        self.failure: BaseException | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Also watches the replicas load."""
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        try:
            await self._service.until_loaded()
        except Exception as error:
            self.failure, self.should_exit = error, True
        else:
            if not self.should_exit:
                self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the answers under way while the connections are waited for."""
        closing = asyncio.create_task(self._service.close())
        await super().shutdown(sockets)
        closing.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends in order, the second at once."""
        self.force_exit = self.should_exit
        self.should_exit = True


def run(app: FastAPI, service: Service, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serves until a signal. Raises what loading the model failed with."""
    server = Server(app, service, ready)
    server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure
