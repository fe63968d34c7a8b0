"""Each packing against a plain reference, and its state."""

import json

import numpy as np
import pytest
from data_stand_ins import BOS, PAD, MadeUpDocs
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.data import Packing
from nanochat.data.cursor import LaneCursor
from nanochat.data.packing import BestFitPacker, Packer, Row, make_packer

SIZE = 9
LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=30).filter(any)


def packer(docs: MadeUpDocs, packing: Packing, endless: bool = True, buffer_size: int = 5) -> Packer:
    return make_packer(packing, LaneCursor(docs, 0, 1, endless), SIZE, PAD, buffer_size)


def rows_of_pass(docs: MadeUpDocs, packing: Packing) -> list[Row]:
    made = packer(docs, packing, endless=False)
    rows = []
    while (row := made.next_row()) is not None:
        rows.append(row)
    return rows


@given(LENGTHS)
def test_stream_is_the_documents_cut(lengths: list[int]) -> None:
    docs = MadeUpDocs(lengths)
    text = np.concatenate([tokens.ids for tokens in docs.docs])
    rows = rows_of_pass(docs, Packing.stream)
    assert len(rows) == -(-len(text) // SIZE)
    assert np.concatenate([row.ids[: row.length] for row in rows]).tolist() == text.tolist()
    assert all(row.length == SIZE for row in rows[:-1])
    assert rows[-1].ids[rows[-1].length :].tolist() == [PAD] * (SIZE - rows[-1].length)
    assert all(row.mask.tolist() == [1] * row.length + [0] * (SIZE - row.length) for row in rows)


@given(LENGTHS)
def test_stream_does_not_break_at_the_end_of_an_epoch(lengths: list[int]) -> None:
    docs = MadeUpDocs(lengths)
    text = np.concatenate([tokens.ids for tokens in docs.docs])
    made = packer(docs, Packing.stream)
    count = 3 * len(text) // SIZE + 1
    rows = [made.next_row() for _ in range(count)]
    endless = np.resize(text, count * SIZE)
    assert np.concatenate([row.ids for row in rows if row]).tolist() == endless.tolist()


def best_fit_reference(
    lengths: list[int], size: int, buffer_size: int, crop: bool = True
) -> list[list[tuple[int, int]]]:
    """Rows of one pass as (document, tokens taken), by looking through the whole buffer each time."""
    waiting = [(i, min(n, size)) for i, n in enumerate(lengths) if n]
    buffer: list[tuple[int, int]] = []
    rows = []
    while waiting or buffer:
        row, space = [], size
        while space:
            while waiting and len(buffer) < buffer_size:
                buffer.append(waiting.pop(0))
            if not buffer:
                break
            fitting = [doc for doc in buffer if doc[1] <= space]
            if not fitting and not crop:
                break
            wanted = max(n for _, n in fitting) if fitting else min(n for _, n in buffer)
            chosen = min(doc for doc in buffer if doc[1] == wanted)
            buffer.remove(chosen)
            taken = min(chosen[1], space)
            row.append((chosen[0], taken))
            space -= taken
        rows.append(row)
    return rows


@given(LENGTHS)
def test_bestfit_against_reference(lengths: list[int]) -> None:
    docs = MadeUpDocs(lengths)
    expected = best_fit_reference(lengths, SIZE, 5)
    rows = rows_of_pass(docs, Packing.bestfit)
    assert [row.doc_ids for row in rows] == [tuple(i for i, _ in row) for row in expected]
    for row, parts in zip(rows, expected, strict=True):
        assert row.ids[: row.length].tolist() == [t for i, n in parts for t in docs.docs[i].ids[:n].tolist()]
        assert row.ids[0] == BOS


@given(LENGTHS, st.integers(1, 6))
def test_bestfit_pad_against_reference(lengths: list[int], buffer_size: int) -> None:
    docs = MadeUpDocs(lengths)
    expected = best_fit_reference(lengths, SIZE, buffer_size, crop=False)
    made = packer(docs, Packing.bestfit_pad, endless=False, buffer_size=buffer_size)
    for parts in expected:
        row = made.next_row()
        assert row is not None and row.doc_ids == tuple(i for i, _ in parts)
        text = [t for i, n in parts for t in docs.docs[i].ids[:n].tolist()]
        assert row.ids.tolist() == text + [PAD] * (SIZE - len(text))
        assert row.mask.tolist() == [1] * len(text) + [0] * (SIZE - len(text))
        assert row.targets == len(text) - 1
    assert made.next_row() is None


@given(st.lists(st.integers(1, SIZE), min_size=1, max_size=30))
def test_bestfit_pad_cuts_nothing_and_leaves_nothing_out(lengths: list[int]) -> None:
    docs = MadeUpDocs(lengths)
    rows = rows_of_pass(docs, Packing.bestfit_pad)
    assert sorted(i for row in rows for i in row.doc_ids) == list(range(len(lengths)))
    assert sum(row.length for row in rows) == sum(lengths)
    assert len(rows) <= 1 + 2 * sum(lengths) // SIZE  # two rows of which neither is half full would be one


def test_bestfit_counts_what_is_cropped() -> None:
    lengths = [4, 30, 7, 12, 3, 3, 8, 9, 1] * 3
    docs = MadeUpDocs(lengths)
    made = BestFitPacker(LaneCursor(docs, 0, 1, endless=False), SIZE, PAD, buffer_size=4)
    kept = 0
    while (row := made.next_row()) is not None:
        kept += row.length
    assert made.cropped == sum(lengths) - kept > 0


@pytest.mark.parametrize("packing", [Packing.bestfit, Packing.bestfit_pad])
def test_long_documents_do_not_clog_the_buffer(packing: Packing) -> None:
    """A document longer than a row leaves the buffer like any other; else short ones would pass it by for ever."""
    docs = MadeUpDocs([100, 100, 100, 3, 2, 3])
    made = packer(docs, packing, buffer_size=4)
    seen = [source for _ in range(60) for source in made.next_row().doc_ids]  # type: ignore[union-attr]
    assert min(seen.count(source) for source in (0, 1, 2)) >= 10


@given(LENGTHS)
def test_pad_is_one_document_a_row(lengths: list[int]) -> None:
    docs = MadeUpDocs(lengths)
    rows = rows_of_pass(docs, Packing.pad)
    assert [row.doc_ids for row in rows] == [(i,) for i, n in enumerate(lengths) if n]
    for row in rows:
        whole = docs.docs[row.doc_ids[0]].ids[:SIZE].tolist()
        assert row.ids.tolist() == whole + [PAD] * (SIZE - len(whole))
        assert row.mask.tolist() == [1] * len(whole) + [0] * (SIZE - len(whole))


@pytest.mark.parametrize("packing", list(Packing))
def test_mask_travels_with_its_tokens(packing: Packing) -> None:
    lengths = [5, 14, 2, 9, 30, 1, 6]
    rng = np.random.default_rng(0)
    docs = MadeUpDocs(lengths, [rng.integers(0, 2, n).tolist() for n in lengths])
    mask_of = {
        (BOS if j == 0 else int(token)): mask
        for tokens in docs.docs
        for j, (token, mask) in enumerate(zip(tokens.ids, tokens.mask, strict=True))  # type: ignore[arg-type]
        if j
    }
    for row in rows_of_pass(docs, packing):
        for token, mask in zip(row.ids[: row.length].tolist(), row.mask[: row.length].tolist(), strict=True):
            assert token == BOS or mask == mask_of[token]
        assert not row.mask[row.length :].any()


@given(LENGTHS, st.integers(0, 40), st.sampled_from(list(Packing)))
def test_state_gives_the_same_rows(lengths: list[int], before: int, packing: Packing) -> None:
    docs = MadeUpDocs(lengths)
    through = packer(docs, packing)
    for _ in range(before):
        through.next_row()
    again = packer(docs, packing)
    again.load_state_dict(json.loads(json.dumps(through.state_dict())))
    assert again.state_dict() == through.state_dict()
    for _ in range(20):
        expected, found = through.next_row(), again.next_row()
        assert expected is not None
        assert found is not None
        assert found.ids.tolist() == expected.ids.tolist()
        assert found.doc_ids == expected.doc_ids


def test_state_is_small() -> None:
    """Numbers of documents, not their tokens."""
    docs = MadeUpDocs([400] * 300)
    made = packer(docs, Packing.bestfit, buffer_size=128)
    made.next_row()
    assert len(json.dumps(made.state_dict())) < 128 * 6 + 60
