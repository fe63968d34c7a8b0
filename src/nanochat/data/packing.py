"""Documents to rows of T+1 tokens: one packer per lane, four ways.

    stream       concatenates the documents and cuts; nothing is lost, a row may begin inside a document
    bestfit      every row begins with bos; it is filled from a buffer with the largest document that fits, and
                 the end with the start of the shortest
    bestfit_pad  the same, but the end is padded: no document is cut to fill a row
    pad          one document a row, padded on the right

Notable: a packer's state is where its cursor stands and which documents it holds (numbers, no text), so it
stays small and is exact: the same rows follow after `load_state_dict`. In bestfit a document longer than a row
enters the buffer cut to a full row. It could never fit otherwise, would be passed over for shorter ones for
ever, and such documents would fill the buffer until nothing is left to choose from. What is cut off there
and at row ends is counted in `cropped`. (Conversations are cut or dropped before, by `data.too_long`.)
"""

from bisect import bisect_right, insort
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np

from nanochat.config.data import Packing
from nanochat.data.cursor import Doc, LaneCursor
from nanochat.data.encoding import Ids
from nanochat.data.tokenized import Mask


@dataclass(frozen=True, slots=True)
class Row:
    """ids (T+1,), mask (T+1,) with 1 where the token is a target, and the corpus indices of its documents.

    `length` tokens are text; the rest is padding, which is never a target. `plain`: all of the text is.
    """

    ids: Ids
    mask: Mask
    length: int
    doc_ids: tuple[int, ...]
    plain: bool = False

    @property
    def targets(self) -> int:
        """Number of targets; the first token of a row is none."""
        return max(0, self.length - 1) if self.plain else int(self.mask[1:].sum())


class Packer(Protocol):
    """Makes the rows of one lane."""

    def next_row(self) -> Row | None:
        """The next row; None when the cursor's documents are used up. The last row of a pass may be padded."""

    def room(self) -> int:
        """Documents that it would take into its buffer now."""

    def state_dict(self) -> dict[str, Any]:
        """JSON from which the same rows follow."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""


@cache
def _plain_mask(length: int, size: int) -> Mask:
    """Ones, then zeros; shared by all rows of that shape, so nobody may write to it."""
    mask = (np.arange(size) < length).astype(np.uint8)
    mask.flags.writeable = False
    return mask


def _join(pieces: list[Doc], size: int, pad_id: int) -> Row:
    """Pieces of at most `size` tokens together, one after the other, then padding."""
    arrays = [piece.ids for piece in pieces]
    end = sum(map(len, arrays))
    if end < size:
        arrays.append(np.full(size - end, pad_id, arrays[0].dtype))
    plain = all(piece.mask is None for piece in pieces)
    mask = _plain_mask(end, size) if plain else _masks(pieces, end, size)
    return Row(np.concatenate(arrays), mask, end, tuple(piece.source for piece in pieces), plain)


def _masks(pieces: list[Doc], end: int, size: int) -> Mask:
    """The masks of the pieces, one after the other, then zeros."""
    masks = [np.ones(len(piece.ids), np.uint8) if piece.mask is None else piece.mask for piece in pieces]
    return np.concatenate([*masks, np.zeros(size - end, np.uint8)])


def _part(doc: Doc, start: int, end: int) -> Doc:
    """Tokens start..end of a document."""
    if start == 0 and end >= len(doc.ids):
        return doc
    return Doc(doc.number, doc.source, doc.ids[start:end], None if doc.mask is None else doc.mask[start:end])


class StreamPacker:
    """Rows are consecutive stretches of T+1 tokens that share none."""

    def __init__(self, cursor: LaneCursor, size: int, pad_id: int) -> None:
        """Rows of `size` = T+1 tokens from `cursor`."""
        self._cursor = cursor
        self._size = size
        self._pad_id = pad_id
        self._doc: Doc | None = None
        self._offset = 0

    def next_row(self) -> Row | None:
        """The next T+1 tokens of the lane."""
        pieces: list[Doc] = []
        missing = self._size
        while missing:
            if self._doc is None:
                self._doc, self._offset = self._cursor.next(), 0
                if self._doc is None:
                    break
            end = min(self._offset + missing, len(self._doc.ids))
            pieces.append(_part(self._doc, self._offset, end))
            missing -= end - self._offset
            self._offset = end
            if end == len(self._doc.ids):
                self._doc = None
        return _join(pieces, self._size, self._pad_id) if pieces else None

    def room(self) -> int:
        """It holds one document at a time."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """The lane's document that the next token comes from, and the token's place in it."""
        if self._doc is None:
            return {"next": self._cursor.number, "offset": 0}
        return {"next": self._doc.number, "offset": self._offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the document that was begun."""
        self._cursor.seek(state["next"])
        self._offset = state["offset"]
        self._doc = self._cursor.next() if self._offset else None


class BestFitPacker:
    """Rows that begin with bos, filled from a buffer of `buffer_size` documents."""

    def __init__(self, cursor: LaneCursor, size: int, pad_id: int, buffer_size: int, crop: bool = True) -> None:
        """Rows of `size` = T+1 tokens; the buffer is filled when the first is asked for. `crop` false: bestfit_pad."""
        self._crop = crop
        self._cursor = cursor
        self._size = size
        self._pad_id = pad_id
        self._buffer_size = buffer_size
        self._docs: dict[int, Doc] = {}
        self._by_length: list[tuple[int, int]] = []  # (length, -number): of one length the oldest is last
        self.cropped = 0

    def next_row(self) -> Row | None:
        """The largest that fits, again and again; the rest of the row with the start of the shortest, or padding."""
        pieces: list[Doc] = []
        space = self._size
        while space:
            self._fill()
            if not self._docs:
                break
            place = bisect_right(self._by_length, (space, 1)) - 1
            if place < 0 and not self._crop:
                break
            if place < 0:
                place = bisect_right(self._by_length, (self._by_length[0][0], 1)) - 1
            doc = self._docs.pop(-self._by_length.pop(place)[1])
            pieces.append(_part(doc, 0, space))
            self.cropped += len(doc.ids) - len(pieces[-1].ids)
            space -= len(pieces[-1].ids)
        return _join(pieces, self._size, self._pad_id) if pieces else None

    def room(self) -> int:
        """What the buffer lacks."""
        return self._buffer_size - len(self._docs)

    def _fill(self) -> None:
        while len(self._docs) < self._buffer_size:
            doc = self._cursor.next()
            if doc is None:
                return
            self.cropped += max(0, len(doc.ids) - self._size)
            self._hold(doc)

    def _hold(self, doc: Doc) -> None:
        """Put a document, cut to a full row, into the buffer."""
        held = doc
        if len(doc.ids) > self._size:
            held = _part(doc, 0, self._size)
            held = held._replace(ids=held.ids.copy())  # a view would keep the whole document in memory
        self._docs[held.number] = held
        insort(self._by_length, (len(held.ids), -held.number))

    def state_dict(self) -> dict[str, Any]:
        """Where the cursor stands, and the numbers of the documents in the buffer."""
        return {"next": self._cursor.number, "buffer": sorted(self._docs), "cropped": self.cropped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read the documents of the buffer again."""
        self._cursor.seek(state["next"])
        self._docs.clear()
        self._by_length.clear()
        for doc in self._cursor.read(state["buffer"]):
            self._hold(doc)
        self.cropped = state["cropped"]


class PadPacker:
    """One document a row; what does not fit is cut off."""

    def __init__(self, cursor: LaneCursor, size: int, pad_id: int) -> None:
        """Rows of `size` = T+1 tokens."""
        self._cursor = cursor
        self._size = size
        self._pad_id = pad_id

    def next_row(self) -> Row | None:
        """The next document."""
        doc = self._cursor.next()
        return None if doc is None else _join([_part(doc, 0, self._size)], self._size, self._pad_id)

    def room(self) -> int:
        """It holds none."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """The number of the next document."""
        return {"next": self._cursor.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to that document."""
        self._cursor.seek(state["next"])


def make_packer(packing: Packing, cursor: LaneCursor, size: int, pad_id: int, buffer_size: int) -> Packer:
    """The packer of that name for rows of `size` = T+1 tokens; `buffer_size` is for the two bestfit ones."""
    if packing in (Packing.bestfit, Packing.bestfit_pad):
        return BestFitPacker(cursor, size, pad_id, buffer_size, crop=packing is Packing.bestfit)
    return (StreamPacker if packing is Packing.stream else PadPacker)(cursor, size, pad_id)
