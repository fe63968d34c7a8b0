"""The Source of the training loop: for each optimizer step, its total weight and this rank's micro-batches.

Notable: the rows of a step are one ordered list, the same for every number of ranks (data/lanes.py). The weight
of a step is the number of its targets over all ranks, known without communication: when every token is
a target it is rows*T; else every rank makes all rows and keeps its own, which costs little, since masked data
are conversations, and small. State is JSON of a few numbers a lane, taken between steps; `merge_states` joins
what the ranks hold, so that any number of ranks can continue.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from nanochat.config.data import Packing
from nanochat.data.batches import MicroBatch, StepBatch, collate, split_evenly
from nanochat.data.lanes import LaneStream
from nanochat.data.manifest import known_parts, merge_fingerprints, refuse_changed
from nanochat.data.packing import Row
from nanochat.data.tokenized import TokenDocs
from nanochat.errors import ConfigError, MismatchError

VALIDATION_LANES = 8


class Source:
    """Endless steps of `rows_per_step` rows of `seq_len` targets, for rank `rank` of `world`."""

    def __init__(
        self,
        docs: TokenDocs,
        packing: Packing,
        seq_len: int,
        rows_per_step: int,
        lanes: int,
        device_batch: int,
        pad_id: int,
        rank: int = 0,
        world: int = 1,
        trim_to: int | None = None,
    ) -> None:
        """`device_batch` is the most rows of a micro-batch; `trim_to` see batches.collate."""
        self._docs = docs
        self._seq_len = seq_len
        self._shape: dict[str, Any] = {"packing": str(packing), "seq_len": seq_len, "lanes": lanes}
        self._rows_per_step = rows_per_step
        self._device_batch = device_batch
        self._pad_id = pad_id
        self._rank = rank
        self._world = world
        self._trim_to = trim_to
        full_rows = docs.all_supervised and packing not in (Packing.pad, Packing.bestfit_pad)
        self._known_weight = float(rows_per_step * seq_len) if full_rows else None
        owned = (rank, world) if full_rows else (0, 1)
        self._stream = LaneStream(docs, packing, seq_len, lanes, pad_id, *owned)
        self._row = 0  # global number of the next row

    def next_step(self) -> StepBatch:
        """The next optimizer step. Raises ConfigError if no document has a token to train on."""
        self._stream.read_ahead()
        own: list[tuple[int, Row]] = []
        weight = 0
        for number in range(self._row, self._row + self._rows_per_step):
            lane = number % self._stream.lanes
            if not self._stream.has(lane):
                continue
            row = self._stream.next_row(lane)
            assert row is not None, "an endless lane has ended"
            weight += row.targets
            if lane % self._world == self._rank:
                own.append((number, row))
        size = self._largest_share()
        self._row += self._rows_per_step
        self._stream.set_pace()
        return StepBatch(
            weight=float(weight) if self._known_weight is None else self._known_weight,
            micro_batches=self._collate([row for _, row in own], size),
            epoch=self._stream.epoch,
            row_ids=[number for number, _ in own],
            rows=self._row,
            documents=round(self._stream.documents),
        )

    def _largest_share(self) -> int:
        """Rows of the step that the busiest rank has: all ranks run that many, so none waits for ever."""
        shares = [0] * self._world
        for number in range(self._row, self._row + self._rows_per_step):
            shares[number % self._stream.lanes % self._world] += 1
        return max(shares)

    def _collate(self, rows: Sequence[Row], most: int) -> list[MicroBatch]:
        count, size = split_evenly(most, self._device_batch)
        shares = [rows[i * size : (i + 1) * size] for i in range(count)]
        return [collate(share, size, self._seq_len, self._pad_id, self._trim_to) for share in shares]

    def position(self) -> dict[str, Any]:
        """Where the source stands, of our lanes: what `state_of` completes. Nothing in it changes later."""
        return {"row": self._row, "lanes": self._stream.state_dict()}

    def state_of(self, position: dict[str, Any]) -> dict[str, Any]:
        """The state at a position that the source stood at."""
        return {"shape": dict(self._shape), "fingerprint": self._docs.fingerprint(), **position}

    def state_dict(self) -> dict[str, Any]:
        """JSON from which exactly the same rows follow; of our lanes only (see merge_states)."""
        return self.state_of(self.position())

    def go_to(self, position: dict[str, Any]) -> None:
        """Continue from a position of this source, or of one that has all its lanes."""
        self._stream.load_state_dict(position["lanes"])
        self._row = position["row"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a state of any number of ranks.

        MismatchError names the packing key, or the file or task, that is not what it was. `rows_per_step` may
        differ: the position is a row.
        """
        for key, value in self._shape.items():
            if state["shape"].get(key) != value:
                raise MismatchError(
                    f"the checkpoint's data position is of {key}={state['shape'].get(key)}, this run has "
                    f"{key}={value}; set it back, or begin another run with run=NAME"
                )
        saved = state["fingerprint"]
        refuse_changed(saved, self._docs.fingerprint(known_parts(saved)))
        self.go_to(state)


def merge_states(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One state of all lanes from the state_dict() of every rank, taken at the same step."""
    lanes: dict[str, Any] = {}
    for state in states:
        assert state["row"] == states[0]["row"], "states of different steps"
        lanes.update(state["lanes"])
    ordered = {lane: lanes[lane] for lane in sorted(lanes, key=int)}
    fingerprint = merge_fingerprints([state["fingerprint"] for state in states])
    return {**states[0], "fingerprint": fingerprint, "lanes": ordered}


def validation_batches(
    docs: TokenDocs,
    packing: Packing,
    seq_len: int,
    device_batch: int,
    max_tokens: int,
    pad_id: int,
    rank: int = 0,
    world: int = 1,
    trim_to: int | None = None,
) -> Iterator[MicroBatch]:
    """The same rows at every call: from the start, at most one pass, about `max_tokens` targets over all ranks.

    The rows do not depend on `world`; ranks may get different numbers of batches, so sum over them at the end.
    The last rows of the pass are padded. ConfigError if there is nothing to validate on.
    """
    rows = _validation_rows(docs, packing, seq_len, max_tokens, pad_id, rank, world)
    held: list[Row] = []
    batches = 0
    for row in rows:
        held.append(row)
        if len(held) == device_batch:
            yield collate(held, device_batch, seq_len, pad_id, trim_to)
            held, batches = [], batches + 1
    if held:
        yield collate(held, len(held), seq_len, pad_id, trim_to)
    elif not batches and world == 1:
        raise ConfigError(f"validation: {docs.why_empty()}")


def _validation_rows(
    docs: TokenDocs, packing: Packing, seq_len: int, max_tokens: int, pad_id: int, rank: int, world: int
) -> Iterator[Row]:
    """Round after round over the lanes of this rank, each lane up to its share of the tokens."""
    most = max(1, -(-max_tokens // seq_len))
    lanes = max(1, min(VALIDATION_LANES, len(docs), most))  # so that every lane has a share
    stream = LaneStream(docs, packing, seq_len, lanes, pad_id, rank, world, endless=False)
    live = list(range(rank, lanes, world))
    for first in range(0, most, lanes):
        for lane in list(live):
            row = stream.next_row(lane) if first + lane < most else None
            if row is None:
                live.remove(lane)
            else:
                yield row
        if not live:
            return
