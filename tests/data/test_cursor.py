"""Lanes cover the corpus, each document once an epoch, and never search for ever."""

from collections import Counter

import pytest
from data_stand_ins import MadeUpDocs

from nanochat.data.cursor import LaneCursor
from nanochat.errors import ConfigError


@pytest.mark.parametrize(("count", "lanes"), [(1, 1), (1, 4), (3, 8), (4, 8), (8, 4), (12, 8), (7, 3), (100, 8)])
def test_epochs_are_passes_and_every_lane_sees_everything(count: int, lanes: int) -> None:
    docs = MadeUpDocs([2] * count)
    cursors = [LaneCursor(docs, lane, lanes) for lane in range(lanes)]
    positions = [cursors[p % lanes].indices_of([p // lanes])[0] for p in range(count * lanes * 3)]
    assert positions[:count] == list(range(count))
    for epoch in range(3 * lanes):
        assert Counter(positions[epoch * count : (epoch + 1) * count]) == Counter(range(count))
    for cursor in cursors:
        assert {cursor.indices_of([k])[0] for k in range(2 * count)} == set(range(count))


def test_next_passes_over_empty_documents() -> None:
    cursor = LaneCursor(MadeUpDocs([0, 3, 0, 0, 2]), 0, 1)
    found = [cursor.next() for _ in range(4)]
    assert [(doc.source, doc.number) for doc in found if doc] == [(1, 1), (4, 4), (1, 6), (4, 9)]


def test_lane_whose_own_documents_are_all_empty_goes_on() -> None:
    """With n = lanes = 4 lane 2 would read document 2 for ever, if the sequence were not turned."""
    cursor = LaneCursor(MadeUpDocs([2, 2, 0, 2]), 2, 4)
    assert cursor.next() is not None


@pytest.mark.parametrize("endless", [True, False])
def test_nothing_but_empty_documents(endless: bool) -> None:
    cursor = LaneCursor(MadeUpDocs([0] * 50), 1, 3, endless)
    if endless:
        with pytest.raises(ConfigError, match="all are empty"):
            cursor.next()
    else:
        assert cursor.next() is None


def test_no_documents_at_all() -> None:
    with pytest.raises(ConfigError, match="all are empty"):
        LaneCursor(MadeUpDocs([]), 0, 1)


def test_one_pass_reads_each_document_once_over_the_lanes() -> None:
    docs = MadeUpDocs([2] * 21)
    seen = []
    for lane in range(8):
        cursor = LaneCursor(docs, lane, 8, endless=False)
        while (doc := cursor.next()) is not None:
            seen.append(doc.source)
        assert cursor.next() is None
    assert sorted(seen) == list(range(21))
    assert sorted(docs.requests) == list(range(21))


def test_seek_continues_as_if_never_stopped() -> None:
    docs = MadeUpDocs([i % 4 for i in range(30)])
    through = LaneCursor(docs, 1, 4)
    for stop in range(20):
        again = LaneCursor(docs, 1, 4)
        again.seek(through.number)
        assert again.next() == through.next(), stop


def test_seek_forgets_what_was_read_ahead() -> None:
    cursor = LaneCursor(MadeUpDocs([2] * 9), 0, 1)
    first = [cursor.next() for _ in range(3)]
    cursor.seek(0)
    assert [cursor.next() for _ in range(3)] == first
