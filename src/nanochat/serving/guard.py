"""What every request passes before anything else looks at it: who asks, from which page, how much it sends.

Notable:
* On this machine without a key, the danger is a web page of somebody else's that makes the user's browser ask. Such
  a request carries the page's Origin, which is refused unless it is this server's own or was allowed. A page that
  got its name to point here (DNS rebinding) has an Origin that fits, but then the Host is that name, which is no name
  of this machine.
* The body is read here, up to its limit, before a byte of it is parsed.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanochat.errors import ConfigError
from nanochat.serving.errors import ApiError
from nanochat.serving.limits import Limits
from nanochat.serving.metrics import Metrics

OPEN_PATHS = ("/v1", "/metrics")  # what lies below needs the key; the page and /health hold no secret
_DEFAULT_PORTS = {"http": 80, "https": 443}
_DISCARDED = 8  # times the limit of a body is read and thrown away, so that the client gets to read the refusal

CONTENT_SECURITY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": CONTENT_SECURITY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may ask. `origins` are web pages of other hosts, as `https://name[:port]`, or `*`."""

    host: str = "127.0.0.1"  # where the server is bound
    api_key: str | None = None
    origins: tuple[str, ...] = ()

    @property
    def local(self) -> bool:
        """Bound where only this machine can ask."""
        return is_loopback(self.host)

    def check(self, path: str, headers: Headers) -> None:
        """Raises ApiError for a request that is not to be answered."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.local and self.api_key is None and not self._names_us(host):
            raise ApiError(
                403, f"host {host!r} is no name of this machine; allow it by --allow-origin http://{host}", code="host"
            )
        if origin is not None and not self._welcome(origin, host):
            raise ApiError(403, f"pages of {origin} may not ask; allow them by --allow-origin {origin}", code="origin")
        if self.api_key is not None and path.startswith(OPEN_PATHS) and not self._has_key(headers):
            raise ApiError(401, "this server needs its key: Authorization: Bearer KEY", code="invalid_api_key")

    def _names_us(self, host: str) -> bool:
        place = _place(f"http://{host}")
        allowed = {urlsplit(origin).hostname for origin in self.origins}
        return place is not None and (is_loopback(place[0]) or place[0] in allowed)

    def _welcome(self, origin: str, host: str) -> bool:
        if "*" in self.origins or origin in self.origins:
            return True
        place = _place(origin)
        return place is not None and place == _place(f"{urlsplit(origin).scheme}://{host}")

    def _has_key(self, headers: Headers) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(
            _digest(given.strip().encode("latin-1")),  # the bytes as they came
            _digest((self.api_key or "").encode()),
        )


def check_origin(origin: str, api_key: str | None) -> None:
    """Raises ConfigError for an `--allow-origin` that no browser would send, or that would let every page in."""
    if origin == "*":
        if api_key is None:
            raise ConfigError("--allow-origin '*' without a key lets every web page ask; name the page, or set a key")
        return
    parts = urlsplit(origin)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or origin != f"{parts.scheme}://{parts.netloc}".lower():
        raise ConfigError(f"--allow-origin {origin} must be as browsers send it: https://name or https://name:port")


def is_loopback(host: str) -> bool:
    """Whether the name is `localhost` or an address that only this machine reaches."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _digest(key: bytes) -> bytes:
    """Of one length for every key, so that comparing takes the same time for all."""
    return hashlib.sha256(key).digest()


def _place(url: str) -> tuple[str, int] | None:
    """(name, port); None if it is no address of a web server, as the Origin `null` is not."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    return (parts.hostname, port) if parts.hostname else None


class Guard:
    """The outermost layer of the app: checks, reads the body, adds headers, counts."""

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics, known: frozenset[str]) -> None:
        """`known` are the endpoints that metrics name; all others count as one."""
        self._app = app
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Anything but HTTP is not for us."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, seen = time.perf_counter(), Seen(send)
        try:
            headers = Headers(scope=scope)
            self._access.check(scope["path"], headers)
            body = await self._body(scope["method"], headers, receive)
            await self._app(scope, _replay(body, receive), seen.send)
        except ApiError as error:
            if not seen.status:
                await refusal(error)(scope, receive, seen.send)
        finally:
            self._count(scope["path"], seen.status, time.perf_counter() - began)

    def _count(self, path: str, status: int, seconds: float) -> None:
        endpoint = path if path in self._known else "other"
        self._metrics.requests.labels(endpoint, str(status or 499)).inc()
        self._metrics.seconds.labels(endpoint).observe(seconds)

    async def _body(self, method: str, headers: Headers, receive: Receive) -> bytes:
        """Raises ApiError: 413 too long, 408 too slow, 415 not JSON."""
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                body = await read_body(receive, self._limits.max_body_bytes)
        except TimeoutError:
            raise ApiError(408, f"the body did not come within {self._limits.body_seconds:g} seconds") from None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if method == "POST" and kind != "application/json":
            # also keeps out what a browser sends to any host without asking it first
            raise ApiError(415, f"Content-Type is {kind or 'missing'!r}; it must be application/json")
        return body


async def read_body(receive: Receive, limit: int) -> bytes:
    """All of a request's body. One that is longer is read on for a while, thrown away, and refused with 413."""
    body, length, more = bytearray(), 0, True
    while more and length <= _DISCARDED * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ApiError(400, "the client hung up before its body was complete")
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
        if length <= limit:
            body += message.get("body", b"")
    if length > limit:
        raise ApiError(413, f"the body is longer than {limit} bytes", code="request_too_large")
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that hands out the body that was read, and then whatever comes."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


class Seen:
    """A `send` that adds the headers of all answers, and remembers the status (0: none was sent)."""

    def __init__(self, send: Send) -> None:
        """In front of `send`."""
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        """Passes it on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-Id"] = f"req-{secrets.token_hex(8)}"
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def refusal(error: ApiError) -> JSONResponse:
    """The error as an answer."""
    return JSONResponse(error.body(), error.status, headers=dict(error.headers))
