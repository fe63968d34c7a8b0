"""One run's conversations, in its folder: may they be continued, may the file be written, make what is missing."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nanochat.config.identity import IdentityConfig, IdentityMode
from nanochat.config.persona import PersonaConfig
from nanochat.config.root import Resume
from nanochat.errors import ConfigError, Interrupted, MismatchError, MissingError
from nanochat.runtime.interrupt import watch_signals
from nanochat.synthesis import output
from nanochat.synthesis.generate import Generation
from nanochat.synthesis.makers import choose_mode, endpoint_maker, template_maker
from nanochat.synthesis.starters import load_starters
from nanochat.synthesis.tally import Tally, status_line
from nanochat.synthesis.wishes import Wish, make_wish
from nanochat.synthesis.workfile import WORK_FILE, WorkFile
from nanochat.tasks.base import Conversation
from nanochat.tasks.custom_json import parse_jsonl
from nanochat.tracking.atomic import write_bytes
from nanochat.tracking.console import Console

_LINES = 20  # progress lines off a terminal


@dataclass(frozen=True)
class Made:
    """The conversations in order of their numbers and the contents of the file; `new` if anything had to be done."""

    conversations: list[Conversation]
    content: bytes
    tally: Tally
    new: bool


class Project:
    """The conversations of one persona. `environment` holds the key; nothing here writes or shows it."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        persona: PersonaConfig,
        config: IdentityConfig,
        seed: int,
        environment: Mapping[str, str],
    ) -> None:
        """Raises MissingError or ConfigError for starters, keys and endpoints that are not as they must be."""
        self.folder, self.out = folder, out
        self.mode = choose_mode(config, environment)
        self.starters = load_starters(config.starters)
        self._persona, self._config, self._seed, self._environment = persona, config, seed, environment
        self._record = output.Record(output.signature(persona, config, self.starters, seed), str(self.mode))

    def open(self, resume: Resume, overwrite: bool) -> None:
        """Checks folder and file and notes in the folder what it is of. Raises MismatchError, MissingError."""
        there = (self.folder / WORK_FILE).is_file()
        if resume == Resume.never and there:
            raise MismatchError(
                f"resume=never, but {self.folder} has conversations; take another run=, or overwrite=true"
            )
        if resume == Resume.must and not there:
            raise MissingError(
                f"resume=must, but {self.folder} has no conversations; resume=auto begins where none are"
            )
        saved = output.read_record(self.folder)
        if saved is not None:
            output.check_same(self.folder, saved, self._record.of, self._record.mode)
            self._record = saved
        if not overwrite:
            self._check_out()
        output.write_record(self.folder, self._record)

    def _check_out(self) -> None:
        """Whether the file may be written. With `append` what it holds is set aside, to be put in front."""
        if self.out.is_dir():
            raise ConfigError(f"identity.out={self.out} is a folder; give a file, {self.out}/identity.jsonl")
        problem = output.owner_problem(self.out, self._record, self.folder.parent)
        if problem is None:
            return
        if not self._config.append:
            raise MismatchError(
                f"identity.out={self.out} exists and {problem}. Write another file by identity.out=, keep its lines in "
                f"front by identity.append=true, or replace it by overwrite=true"
            )
        content = self.out.read_bytes()
        parse_jsonl(content, str(self.out))
        self.folder.mkdir(parents=True, exist_ok=True)
        write_bytes(self.folder / output.BEFORE_FILE, content)

    def make(self, console: Console, again: str) -> Made:
        """Makes what is missing. Raises Interrupted on a signal, saying what to repeat; all that was made is kept."""
        work = WorkFile(self.folder / WORK_FILE, durable=self.mode == IdentityMode.endpoint)
        tally = Tally(self._config.count, self._config.price_in, self._config.price_out)
        try:
            signal = self._generate(work, tally, console)
        finally:
            work.close()
        if signal is not None and tally.accepted < tally.wanted:
            raise Interrupted(
                f"stopped by {signal}; {tally.accepted:,} of {tally.wanted:,} conversations are kept in {work.path}, "
                f"{again} makes the rest"
            )
        made = [e.conversation for e in work.accepted[: tally.wanted] if e.conversation is not None]
        before = self.folder / output.BEFORE_FILE
        content = output.render(made, before.read_bytes() if before.is_file() else b"")
        new = tally.asked > 0 or not self.out.is_file() or self.out.read_bytes() != content
        return Made(made, content, tally, new)

    def publish(self, made: Made) -> None:
        """Puts the file in place."""
        output.publish(self.out, made.content, self.folder, self._record)

    def _generate(self, work: WorkFile, tally: Tally, console: Console) -> str | None:
        """Returns the name of the signal that ended it."""
        config, stop, endpoint = self._config, threading.Event(), None
        if self.mode == IdentityMode.endpoint:
            maker, endpoint = endpoint_maker(self._persona, config, self._environment, stop, console.say)
        else:
            maker = template_maker(self._persona, config, self.starters)
        every, began = max(1, config.count // _LINES), time.monotonic()

        def show(tally: Tally) -> None:
            due = tally.since == 0 and tally.accepted % every == 0
            console.status(status_line(tally, time.monotonic() - began), due)

        try:
            generation = Generation(maker, self.wish, self._persona, work, tally, show)
            with watch_signals("taking in the answers that are under way") as flag:
                generation.run(stop, lambda: flag.name is not None)
            return flag.name
        finally:
            stop.set()
            console.end_progress()
            if endpoint is not None:
                endpoint.close()

    def wish(self, number: int) -> Wish:
        """What conversation `number` is to be like."""
        return make_wish(number, self._config, self.starters, self._seed)
