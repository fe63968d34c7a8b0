"""A request's answers under way: what the engine's thread delivers and the request's coroutine takes.

Notable: everything here runs in the event loop's thread. A client that reads slowly lets its tokens pile up here (no
more than it asked for) and is handed all of them at once when it comes back; the engine never waits for it.
"""

import asyncio
from dataclasses import dataclass, field

from nanochat.engine.sampling import SamplingParams
from nanochat.serving.errors import ApiError


@dataclass
class Piece:
    """What one answer (`index`) has got since it was last looked at; `finish` is the engine's word when it ended."""

    index: int
    ids: list[int]
    finish: str | None


@dataclass(eq=False)
class Ticket:
    """`rows` answers to one prompt. `pending` counts those that the engine still works on, or will."""

    prompt_ids: list[int]
    params: SamplingParams
    rows: int
    pending: int = field(init=False)
    accepted: bool = False  # the engine has taken it
    started: bool = False  # its first token has come

    def __post_init__(self) -> None:
        """All rows are pending."""
        self.pending = self.rows
        self._pieces: dict[int, Piece] = {}
        self._error: ApiError | None = None
        self._news = asyncio.Event()

    def accept(self) -> None:
        """The engine has taken it."""
        self.accepted = True
        self._news.set()

    def deliver(self, index: int, ids: list[int], finish: str | None) -> None:
        """New tokens of an answer, or its end."""
        piece = self._pieces.setdefault(index, Piece(index, [], None))
        piece.ids += ids
        piece.finish = finish
        self.started = self.started or bool(ids)
        self.pending -= finish is not None
        self._news.set()

    def fail(self, error: ApiError) -> None:
        """Nothing more will come."""
        self._error = self._error or error
        self.pending = 0
        self._news.set()

    async def until_accepted(self) -> None:
        """Waits for the engine to take it. Raises the ApiError if it did not."""
        while not self.accepted:
            await self._wait()

    async def take(self) -> list[Piece]:
        """What has come since the last call; waits for something. Raises the ApiError that ended it."""
        while not self._pieces:
            await self._wait()
        pieces, self._pieces = list(self._pieces.values()), {}
        return pieces

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        await self._news.wait()
        self._news.clear()
