"""Makes the conversations that are missing: workers ask, this thread judges and keeps.

Notable: never more numbers are asked for than conversations are missing, so the last ones cost nothing extra. A
refused number is not asked for again; the next free one takes its place. What is under way when the run is to
end is waited for, since it is paid for.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue

from nanochat.config.persona import PersonaConfig
from nanochat.errors import NanochatError
from nanochat.synthesis.duplicates import Duplicates
from nanochat.synthesis.limits import Stopped
from nanochat.synthesis.parse import Refused
from nanochat.synthesis.rules import check_persona
from nanochat.synthesis.tally import Tally
from nanochat.synthesis.wishes import Wish
from nanochat.synthesis.workfile import Entry, WorkFile
from nanochat.tasks.base import Conversation

_LOOK = 0.1  # seconds between looks at whether to stop


@dataclass(frozen=True)
class Draft:
    """What a maker made of a wish: a conversation, or why there is none; and the tokens it took."""

    conversation: Conversation | None
    refused: str | None = None
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Maker:
    """Who makes drafts, how many side by side, and after how many refusals in a row there is no hope."""

    by: str
    make: Callable[[Wish], Draft]
    workers: int
    patience: int


class _Crew:
    """Threads that make drafts. They are daemons: an impatient user's second Ctrl-C does not wait for the network."""

    def __init__(self, maker: Maker) -> None:
        self._make = maker.make
        self._todo: SimpleQueue[Wish | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[Wish, Draft | Exception]] = SimpleQueue()
        self._workers = maker.workers
        self.busy = 0
        for _ in range(maker.workers):
            threading.Thread(target=self._work, daemon=True).start()

    def give(self, wish: Wish) -> None:
        self.busy += 1
        self._todo.put(wish)

    def next(self) -> tuple[Wish, Draft | Exception] | None:
        """What is done next, None if nothing was within a moment."""
        try:
            done = self._done.get(timeout=_LOOK)
        except Empty:
            return None
        self.busy -= 1
        return done

    def dismiss(self) -> None:
        for _ in range(self._workers):
            self._todo.put(None)

    def _work(self) -> None:
        while (wish := self._todo.get()) is not None:
            try:
                self._done.put((wish, self._make(wish)))
            except Exception as error:  # carried to the thread that waits for it
                self._done.put((wish, error))


class Generation:
    """One process's part of the work."""

    def __init__(
        self,
        maker: Maker,
        wish_of: Callable[[int], Wish],
        persona: PersonaConfig,
        work: WorkFile,
        tally: Tally,
        show: Callable[[Tally], None],
    ) -> None:
        """What former processes kept is taken over from `work`. `show` is called after every answer."""
        self._maker, self._wish_of, self._persona = maker, wish_of, persona
        self._work, self._tally, self._show = work, tally, show
        self._duplicates = Duplicates()
        tally.begin(work.entries)
        for entry in work.accepted:
            if entry.conversation is not None:
                self._duplicates.add(entry.conversation)
        self._most = 50 + 2 * max(0, tally.wanted - tally.accepted) + maker.patience

    def run(self, stop: threading.Event, stopped: Callable[[], bool]) -> None:
        """Until `wanted` conversations are there or `stopped()`. Raises NanochatError if that cannot be reached.

        `stop` is set to end the waits of the workers.
        """
        crew = _Crew(self._maker)
        failure: Exception | None = None
        numbers = self._free_numbers()
        while crew.busy or not (failure or stopped() or self._complete):
            if failure or stopped():
                stop.set()
            else:
                self._fill(crew, numbers)
            done = crew.next()
            if done is None:
                continue
            wish, result = done
            if isinstance(result, Draft):
                self._take(wish, result)
                failure = failure or self._hopeless()
            elif not isinstance(result, Stopped):
                failure = failure or result
        crew.dismiss()
        if failure and not self._complete:
            raise failure

    @property
    def _complete(self) -> bool:
        return self._tally.accepted >= self._tally.wanted

    def _free_numbers(self) -> Iterator[int]:
        known = {entry.number for entry in self._work.entries}
        return (number for number in count() if number not in known)

    def _fill(self, crew: _Crew, numbers: Iterator[int]) -> None:
        missing = self._tally.wanted - self._tally.accepted
        while crew.busy < min(self._maker.workers, missing):
            crew.give(self._wish_of(next(numbers)))

    def _take(self, wish: Wish, draft: Draft) -> None:
        """Judges a draft and keeps what became of it."""
        reason, conversation = draft.refused, draft.conversation
        if conversation is not None:
            try:
                check_persona(conversation, self._persona)
                self._duplicates.add(conversation)
            except Refused as error:
                reason = str(error)
        messages = conversation["messages"] if conversation is not None and reason is None else None
        entry = Entry(wish.number, self._maker.by, messages, reason, draft.tokens_in, draft.tokens_out)
        self._work.append(entry)
        self._tally.take(entry)
        self._show(self._tally)

    def _hopeless(self) -> NanochatError | None:
        """The error that ends a run which only gets what it must refuse."""
        tally = self._tally
        if tally.since < self._maker.patience and tally.refused_now < self._most:
            return None
        row = tally.since >= self._maker.patience
        which = f"the last {tally.since} answers in a row" if row else f"{tally.refused_now} of {tally.asked} answers"
        return NanochatError(
            f"identity: {which} of {self._maker.by} were refused ({tally.reasons}); {tally.accepted} of {tally.wanted} "
            f"conversations are kept. Take another identity.model, widen the lists of identity, or lower identity.count"
        )
