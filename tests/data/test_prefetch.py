"""Steps made ahead are the steps, the state is that of the last one taken, and the thread ends when it should."""

import json
import multiprocessing
import threading
import time
from typing import Any

import pytest
from data_stand_ins import MadeUpDocs, make_source
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.config.data import Packing
from nanochat.data.batches import StepBatch
from nanochat.data.prefetch import Prefetch
from nanochat.data.source import Source
from nanochat.errors import ConfigError


def rows_of(step: StepBatch) -> list[Any]:
    return [step.weight, step.row_ids, [batch.targets_BT.tolist() for batch in step.micro_batches]]


def lengths() -> list[int]:
    return [(i * 7) % 23 for i in range(40)]


def prefetch_threads() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(list(Packing)),
    st.integers(0, 4),
    st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_steps_and_states_are_those_of_the_source(packing: Packing, depth: int, attempts: list[int]) -> None:
    plain = make_source(MadeUpDocs(lengths()), packing)
    state: dict[str, Any] | None = None
    for steps in attempts:
        ahead = Prefetch(make_source(MadeUpDocs(lengths()), packing), depth)
        if state is not None:
            ahead.load_state_dict(state)
        with ahead:
            for _ in range(steps):
                assert rows_of(ahead.next_step()) == rows_of(plain.next_step())
                assert ahead.state_dict() == plain.state_dict()
            state = json.loads(json.dumps(ahead.state_dict()))
        assert ahead.state_dict() == plain.state_dict()
    assert prefetch_threads() == 0


def test_the_step_is_ready_before_it_is_asked_for() -> None:
    source = make_source(MadeUpDocs(lengths()))
    made = threading.Semaphore(0)
    real = source.next_step

    def next_step() -> StepBatch:
        step = real()
        made.release()
        return step

    source.next_step = next_step  # type: ignore[method-assign]
    with Prefetch(source, 2) as ahead:
        for _ in range(3):  # two that are ready, and one in hand
            assert made.acquire(timeout=10)
        assert not made.acquire(timeout=0.2)
        ahead.next_step()
        assert made.acquire(timeout=10)


def test_waiting_can_be_given_up_and_the_step_is_not_lost() -> None:
    plain, source = make_source(MadeUpDocs(lengths())), make_source(MadeUpDocs(lengths()))
    arrived = threading.Event()
    real = source.next_step

    def next_step() -> StepBatch:
        assert arrived.wait(30)
        return real()

    source.next_step = next_step  # type: ignore[method-assign]
    with Prefetch(source, 2) as ahead:
        asked: list[int] = []
        assert ahead.next_step(unless=lambda: asked.append(1) or len(asked) > 1) is None
        assert ahead.state_dict() == plain.state_dict()
        arrived.set()
        assert rows_of(ahead.next_step(unless=lambda: False)) == rows_of(plain.next_step())
        assert ahead.state_dict() == plain.state_dict()


def test_after_stopping_it_goes_on_from_the_step_taken() -> None:
    plain, ahead = make_source(MadeUpDocs(lengths())), Prefetch(make_source(MadeUpDocs(lengths())), 3)
    for _ in range(2):
        with ahead:
            assert rows_of(ahead.next_step()) == rows_of(plain.next_step())
        assert rows_of(ahead.next_step()) == rows_of(plain.next_step())  # without the thread


def test_loading_a_state_forgets_what_was_ready() -> None:
    plain = make_source(MadeUpDocs(lengths()))
    begin = plain.state_dict()
    first = rows_of(plain.next_step())
    with Prefetch(make_source(MadeUpDocs(lengths())), 3) as ahead:
        for _ in range(4):
            ahead.next_step()
        ahead.load_state_dict(begin)
        assert rows_of(ahead.next_step()) == first


class Failing:
    """A Source that cannot make its third step."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def next_step(self) -> StepBatch:
        self.steps += 1
        if self.steps == 3:
            raise ConfigError("no text")
        return self.source.next_step()


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_an_error_comes_with_its_own_step(depth: int) -> None:
    with Prefetch(Failing(make_source(MadeUpDocs(lengths()))), depth) as ahead:  # type: ignore[arg-type]
        ahead.next_step()
        ahead.next_step()
        state = ahead.state_dict()
        for _ in range(2 if depth else 1):
            with pytest.raises(ConfigError, match="no text"):
                ahead.next_step()
        assert ahead.state_dict() == state
    assert prefetch_threads() == 0


def test_an_interrupted_block_ends_the_thread() -> None:
    with pytest.raises(KeyboardInterrupt), Prefetch(make_source(MadeUpDocs(lengths())), 2) as ahead:
        ahead.next_step()
        raise KeyboardInterrupt
    assert prefetch_threads() == 0


def test_a_thread_that_hangs_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.data.prefetch._STOPPING", 0.2)
    release = threading.Event()
    source = Failing(make_source(MadeUpDocs(lengths())))
    source.next_step = release.wait  # type: ignore[method-assign, assignment]
    began = time.monotonic()
    with Prefetch(source, 1):  # type: ignore[arg-type]
        pass
    assert time.monotonic() - began < 5
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "prefetch")
    release.set()


def _in_child(ahead: Prefetch, answers: Any) -> None:
    answers.put(rows_of(ahead.next_step()))


def test_a_forked_process_begins_its_own_thread() -> None:
    plain = make_source(MadeUpDocs(lengths()))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    with Prefetch(make_source(MadeUpDocs(lengths())), 2) as ahead:
        assert rows_of(ahead.next_step()) == rows_of(plain.next_step())
        child = context.Process(target=_in_child, args=(ahead, answers))
        child.start()
        second = rows_of(plain.next_step())
        child.join(20)
        assert child.exitcode == 0
        assert answers.get() == second == rows_of(ahead.next_step())
