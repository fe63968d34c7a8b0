import gc
import weakref
from collections.abc import Iterator

import pytest

from nanochat.training.garbage import EVERY, FIRST, HeldGarbage


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """On, and nothing frozen, before and after."""
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


class Knot:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.own = self


def dropped_knot() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


def test_nothing_is_collected_within_the_steps() -> None:
    with HeldGarbage() as garbage:
        assert not gc.isenabled()
        lost = dropped_knot()
        for _ in range(FIRST - 1):
            garbage.after_step()
        assert lost() is not None
        garbage.after_step()
        assert lost() is None and gc.get_freeze_count() > 0
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_it_is_collected_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    with HeldGarbage() as garbage:
        for step in range(1, 3 * EVERY):
            monkeypatch.setattr(gc, "collect", lambda step=step: steps.append(step))
            garbage.after_step()
    assert steps == [FIRST, EVERY + FIRST, 2 * EVERY + FIRST]


def test_hooks_may_collect() -> None:
    with HeldGarbage() as garbage:
        with garbage.released():
            assert gc.isenabled()
        assert not gc.isenabled()


def test_who_switched_it_off_keeps_it_off() -> None:
    gc.disable()
    with HeldGarbage() as garbage, garbage.released():
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_an_error_leaves_it_as_it_was() -> None:
    with pytest.raises(ValueError), HeldGarbage():
        raise ValueError
    assert gc.isenabled()
