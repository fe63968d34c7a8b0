"""The rows of a run in one global order, dealt from lanes.

Global row g is the next row of lane g % L, whatever the number of ranks W; rank r owns the lanes l with
l % W == r. So the rows of a step are the same ordered list for 1, 2, 3 or 5 ranks, and a run can be resumed by
another number of ranks. Notable: the bestfit buffer of 1000 documents is divided among the lanes, not shared:
lanes must not depend on each other, or a rank would have to tokenise the share of all. Each gets at least
MIN_LANE_BUFFER, so at most max(1000, 32*L) documents of at most T+1 tokens are held, over all ranks: 17 MB at
L = 64, T = 2048. It costs little: on documents like those of the web (log-normal, median 365 tokens) at T = 2048,
11.4 % of the tokens are cropped with 1000 a lane, 11.9 % with 64, 12.2 % with 16.
"""

from typing import Any

from nanochat.config.data import Packing
from nanochat.data.cursor import Doc, LaneCursor
from nanochat.data.packing import Packer, Row, make_packer
from nanochat.data.tokenized import TokenDocs
from nanochat.errors import ConfigError, MismatchError

BUFFER_DOCS = 1000  # of all lanes together
FIRST_PACE = 4  # documents a lane has ready for a step: of web text, about 700 tokens each, more than a row
MIN_LANE_BUFFER = 32  # with 64 lanes, 2048 documents to tokenise before the first step: two seconds


class LaneStream:
    """The lanes of one rank (or all of them, with `world` 1), each with its cursor and packing buffer."""

    def __init__(
        self,
        docs: TokenDocs,
        packing: Packing,
        seq_len: int,
        lanes: int,
        pad_id: int,
        rank: int = 0,
        world: int = 1,
        endless: bool = True,
    ) -> None:
        """`seq_len` T: rows hold T+1 tokens. `endless` false: one pass over the documents."""
        assert 0 <= rank < world, (rank, world)
        if not docs.has(0):
            raise ConfigError(docs.why_empty())
        self.lanes = lanes
        self._docs = docs
        self._pace = FIRST_PACE
        self._filled: dict[int, int] = {}  # lane -> where its cursor stands when its buffer is full
        buffer_size = max(MIN_LANE_BUFFER, -(-BUFFER_DOCS // lanes))
        self._cursors = {lane: LaneCursor(docs, lane, lanes, endless) for lane in range(rank, lanes, world)}
        self._packers: dict[int, Packer] = {
            lane: make_packer(packing, cursor, seq_len + 1, pad_id, buffer_size)
            for lane, cursor in self._cursors.items()
        }

    def has(self, lane: int) -> bool:
        """Is the lane one of ours?"""
        return lane in self._packers

    def next_row(self, lane: int) -> Row | None:
        """The next row of one of our lanes; None at the end of the pass."""
        return self._packers[lane].next_row()

    def read_ahead(self) -> None:
        """Have the documents of the next step tokenised, those of all our lanes in one call.

        Lane after lane would keep many threads waiting for one. How many are needed is what the greediest lane took
        of late; more are read when it comes to it.
        """
        rooms = {lane: packer.room() for lane, packer in self._packers.items()}
        self._filled = {lane: cursor.number + rooms[lane] for lane, cursor in self._cursors.items()}
        asked = [(cursor, cursor.missing(rooms[lane] + self._pace)) for lane, cursor in self._cursors.items()]
        indices = [cursor.indices_of(numbers) for cursor, numbers in asked]
        tokens = self._docs.get_many([index for some in indices for index in some])
        end = 0
        for (cursor, numbers), some in zip(asked, indices, strict=True):
            start, end = end, end + len(some)
            own = zip(numbers, some, tokens[start:end], strict=True)
            cursor.supply([Doc(number, index, ids, mask) for number, index, (ids, mask) in own])

    def set_pace(self) -> None:
        """Learn from what the lanes took since `read_ahead`, beyond what filled their buffers."""
        taken = max((cursor.number - self._filled[lane] for lane, cursor in self._cursors.items()), default=0)
        self._pace = max(FIRST_PACE, taken + 1)

    @property
    def documents(self) -> float:
        """Documents read so far by all lanes, judged by ours."""
        read = sum(cursor.number for cursor in self._cursors.values())
        return read / max(1, len(self._cursors)) * self.lanes

    @property
    def epoch(self) -> float:
        """Passes over the documents so far, judged by our lanes."""
        return self._docs.progress(self.documents) if self._cursors else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Lane -> its packer's state."""
        return {str(lane): packer.state_dict() for lane, packer in self._packers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue every lane of ours; `state` may hold the lanes of other ranks too."""
        missing = [lane for lane in self._packers if str(lane) not in state]
        if missing:
            raise MismatchError(
                f"the checkpoint's data position lacks lanes {', '.join(map(str, missing[:8]))} of {self.lanes}; "
                "it was not gathered from all ranks of the run that wrote it, and cannot be continued"
            )
        for lane, packer in self._packers.items():
            packer.load_state_dict(state[str(lane)])
