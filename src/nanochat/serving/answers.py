"""How an answer is sent: in one piece, or as server-sent events while it is written.

Notable: a stream's status is sent once the engine has taken the request, so that everything that can be refused is
refused with a status of its own; what goes wrong later is an event with an `error`. Whoever hangs up ends the
coroutine, and with it the rows.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from nanochat.serving.errors import ApiError
from nanochat.serving.forms import DONE, Form, event
from nanochat.serving.generation import Generation

_CLIENT_GONE = 499  # nobody reads it; the name that nginx gave it


async def whole(generation: Generation, form: Form, request: Request) -> Response:
    """The answer in one piece. If the client hangs up first, the rows end at once."""
    answer = asyncio.ensure_future(_collect(generation, form))
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        return await answer if answer.done() else Response(status_code=_CLIENT_GONE)
    finally:
        gone.cancel()
        answer.cancel()


async def _collect(generation: Generation, form: Form) -> Response:
    texts = [""] * len(generation.choices)
    async with generation, aclosing(generation.pieces()) as pieces:
        async for index, text in pieces:
            texts[index] += text
    finishes = [choice.finish_reason for choice in generation.choices]
    return JSONResponse(form.whole(texts, finishes, generation.usage()))


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def stream(generation: Generation, form: Form, *, usage: bool) -> Response:
    """The answer as events, beginning as soon as the engine has taken the request."""
    await generation.__aenter__()
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies: do not collect
    return _Events(generation, _events(generation, form, usage), headers)


class _Events(StreamingResponse):
    """Leaves the generation however its stream ends: a generator that waits for `send` is not closed by itself."""

    def __init__(self, generation: Generation, events: AsyncIterator[bytes], headers: dict[str, str]) -> None:
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._generation.__aexit__(None, None, None)


async def _events(generation: Generation, form: Form, usage: bool) -> AsyncIterator[bytes]:
    try:
        for index in range(len(generation.choices)):
            if (opening := form.opening(index)) is not None:
                yield event(opening)
        async with aclosing(generation.pieces()) as pieces:
            async for index, text in pieces:
                if text:
                    yield event(form.text(index, text))
                if (finish := generation.choices[index].finish_reason) is not None:
                    yield event(form.end(index, finish))
        if usage:
            yield event(form.counts(generation.usage()))
        yield DONE
    except ApiError as error:
        yield event(error.body())
