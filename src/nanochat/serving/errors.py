"""Refusals in the form that OpenAI's clients read: {"error": {"message", "type", "param", "code"}}."""

from collections.abc import Mapping
from typing import Any

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "overloaded_error",
}
_MAX_CHARS = 600  # of a message: what a client sent is not sent back to it at full length


class ApiError(Exception):
    """An answer other than 200: `status` and what the body says; `retry_after` in seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        """`param` names the key of the request that is at fault, `code` is for programs."""
        super().__init__(message)
        self.status = status
        self.message = clipped(message, _MAX_CHARS)
        self.param = param and clipped(param, _MAX_CHARS)
        self.code = code
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers that belong to the status."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def clipped(text: str, length: int) -> str:
    """At most `length` characters of it; that there were more is shown."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that cannot be answered as it is."""
    return ApiError(400, message, param=param, code=code)


def engine_failed() -> ApiError:
    """What all requests of a replica get when its engine has failed. The reason is in the server's log alone."""
    return ApiError(500, "the engine failed while this was being answered; the server's log says why", code="engine")


def shutting_down() -> ApiError:
    """For requests that come, or are not done, when the server ends."""
    return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)
