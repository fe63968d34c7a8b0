"""Chat completions of an OpenAI-compatible endpoint over HTTP.

Notable: the key goes into one header and nowhere else: no redirect is followed, and what the endpoint says in an
error is cleared of the key before it is shown.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from nanochat.errors import NanochatError
from nanochat.runtime.retry_after import retry_after
from nanochat.synthesis.limits import Pace, backoff
from nanochat.synthesis.prompt import FORMATS

_BUSY = (408, 409, 425, 429)  # worth another attempt, like all 5xx
_LARGEST = 4 * 2**20  # bytes of an answer
_SHOWN = 200  # characters of what an endpoint says in an error
_HINTS = {
    400: "see identity.model and identity.endpoint",
    401: "the key is wrong, or for another endpoint",
    402: "the account has no credit",
    403: "the key may not use this model",
    404: "there is no such model or path; see identity.model and identity.endpoint",
    422: "see identity.model and identity.endpoint",
}


@dataclass(frozen=True)
class Answer:
    """What came back: the text (empty if there was none) and the tokens as the endpoint counts them."""

    text: str
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True)
class Target:
    """Where and how to ask. `key_name` is the variable that the key came from, for messages."""

    url: str
    model: str
    temperature: float | None
    timeout: float
    retries: int
    key: str | None = None
    key_name: str | None = None

    def __repr__(self) -> str:
        """Without the key."""
        return f"Target({self.url}, {self.model})"


class _Again(Exception):
    """Worth another attempt, after `wait` seconds if the endpoint said so."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Endpoint:
    """Asks one endpoint, from many threads."""

    def __init__(
        self,
        target: Target,
        pace: Pace,
        told: Callable[[str], None] = print,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`told` gets a line where something is done that was not asked for; `transport` is for tests."""
        self._target = target
        self._pace = pace
        self._told = told
        headers = {"Authorization": f"Bearer {target.key}"} if target.key else {}
        limits = httpx.Limits(max_connections=None)
        self._client = httpx.Client(headers=headers, timeout=target.timeout, limits=limits, transport=transport)
        self._form = 0  # index into FORMATS
        self._lock = threading.Lock()

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def ask(self, messages: list[dict[str, str]]) -> Answer:
        """One answer, after as many attempts as it takes and `retries` allows. Raises NanochatError, Stopped."""
        for attempt in count():
            self._pace.wait_turn()
            try:
                return self._once(messages)
            except _Again as error:
                if attempt == self._target.retries:
                    raise self._gave_up(error) from error
                if error.wait is not None:
                    self._pace.hold_all(error.wait)
                else:
                    self._pace.pause(backoff(attempt))
        raise AssertionError("unreachable")

    def _gave_up(self, error: Exception) -> NanochatError:
        return NanochatError(
            f"identity.endpoint={self._target.url} failed {self._target.retries + 1} times in a row: {error}; what was "
            f"made is kept: try later, with fewer identity.workers, or set identity.requests_per_minute"
        )

    def _once(self, messages: list[dict[str, str]]) -> Answer:
        form = self._form
        try:
            status, headers, body = self._post(messages, form)
        except httpx.TimeoutException as error:
            raise _Again(f"no answer within identity.timeout={self._target.timeout:g} seconds") from error
        except httpx.TransportError as error:
            raise _Again(self._clean(f"{type(error).__name__}: {error}")) from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise NanochatError(f"identity.endpoint={self._target.url} is no URL: {error}") from error
        if status in (400, 422) and form + 1 < len(FORMATS) and b"response_format" in body:
            self._loosen(form)
            return self._once(messages)
        if status in _BUSY or status >= 500:
            raise _Again(f"HTTP {status}{self._said(body)}", retry_after(headers.get("retry-after")))
        if status != 200:
            self._fail(status, body)
        return _answer(body)

    def _post(self, messages: list[dict[str, str]], form: int) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body; the whole answer has to be there in time, not only a next piece of it."""
        body: dict[str, Any] = {"model": self._target.model, "messages": messages}
        if self._target.temperature is not None:
            body["temperature"] = self._target.temperature
        if FORMATS[form] is not None:
            body["response_format"] = FORMATS[form]
        end = time.monotonic() + self._target.timeout
        with self._client.stream("POST", f"{self._target.url.rstrip('/')}/chat/completions", json=body) as response:
            held = bytearray()
            for piece in response.iter_bytes():
                held += piece
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("slow")
                if len(held) > _LARGEST:
                    break
        return response.status_code, response.headers, bytes(held)

    def _loosen(self, form: int) -> None:
        """From now on the next form is asked for; several workers may come here for the same one."""
        with self._lock:
            if self._form == form:
                self._form = form + 1
                self._told("the endpoint does not know this response_format; asking in a looser one")

    def _fail(self, status: int, body: bytes) -> None:
        hint = _HINTS.get(status, "see identity.endpoint")
        key = f" (its key is in ${self._target.key_name})" if self._target.key_name else ""
        raise NanochatError(
            f"identity.endpoint={self._target.url}{key} answered HTTP {status}{self._said(body)}; {hint}"
        )

    def _said(self, body: bytes) -> str:
        """The endpoint's own words, shortened."""
        text = body.decode("utf-8", "replace")
        try:
            error = json.loads(text)["error"]
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, KeyError, TypeError):
            pass
        text = " ".join(self._clean(text).split())
        return f": {text[:_SHOWN]}" if text else ""

    def _clean(self, text: str) -> str:
        return text.replace(self._target.key, "(the key)") if self._target.key else text


def _answer(body: bytes) -> Answer:
    """The first choice's text; whatever is not as it should be is an empty text, which is refused later."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        data = None
    usage = _at(data, "usage")
    text = _at(data, "choices", 0, "message", "content")
    return Answer(
        text if isinstance(text, str) else "",
        _count(_at(usage, "prompt_tokens")),
        _count(_at(usage, "completion_tokens")),
    )


def _at(value: Any, *path: str | int) -> Any:
    """What lies at a path of keys and indices; None where the path breaks off."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
