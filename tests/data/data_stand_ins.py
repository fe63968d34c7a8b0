"""Small stand-ins for tokenizers and data, and the rows of a Source as plain lists."""

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.config.data import Packing, Supervise, TooLong
from nanochat.data.source import Source, merge_states
from nanochat.data.tokenized import MixtureTokens, Tokens
from nanochat.tokenizer.bpe import Tokenizer

BOS = 7
PAD = 9


class ByteTokenizer:
    """Ids are UTF-8 bytes; bos is 256. `calls` counts texts encoded."""

    bos = 256
    vocab_size = 257

    def __init__(self, name: str = "bytes") -> None:
        self.name = name
        self.calls = 0

    def encode_array(self, text: str) -> npt.NDArray[np.uint32]:
        self.calls += 1
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)

    def fingerprint(self) -> str:
        return self.name


class MadeUpDocs:
    """Document i: bos, then lengths[i] - 1 ids that occur nowhere else; length 0 is an empty document."""

    def __init__(self, lengths: Sequence[int], masks: Sequence[Sequence[int]] | None = None) -> None:
        starts = np.cumsum([1000, *lengths])
        self.docs = []
        for i, length in enumerate(lengths):
            ids = np.arange(starts[i], starts[i] + length, dtype=np.uint32)
            ids[:1] = BOS
            self.docs.append(Tokens(ids, None if masks is None else np.array(masks[i], np.uint8)))
        self.all_supervised = masks is None
        self.requests: list[int] = []
        self.parts: dict[str, Any] = {"a.txt": {"size": sum(lengths), "sha256": "x"}}

    def __len__(self) -> int:
        return len(self.docs)

    def has(self, index: int) -> bool:
        return index < len(self.docs)

    def progress(self, position: float) -> float:
        return position / len(self.docs)

    def get(self, index: int) -> Tokens:
        return self.get_many([index])[0]

    def get_many(self, indices: Sequence[int]) -> list[Tokens]:
        self.requests += indices
        return [self.docs[index] for index in indices]

    def fingerprint(self, known: Collection[str] = ()) -> dict[str, Any]:
        return {"tokenizer": "t", "documents": len(self), "parts": self.parts}

    def why_empty(self) -> str:
        return "made-up documents: all are empty"


def make_source(docs: MadeUpDocs, packing: Packing = Packing.stream, **changes: Any) -> Source:
    """A small Source; `changes` of its arguments."""
    arguments = {"seq_len": 8, "rows_per_step": 6, "lanes": 4, "device_batch": 2, "pad_id": PAD, **changes}
    return Source(docs, packing, **arguments)


def read_step(sources: Sequence[Source]) -> tuple[float, dict[int, tuple[list[int], list[int]]]]:
    """One step of all ranks: its weight, and global row number -> (inputs, targets). Checks what must hold of any."""
    steps = [source.next_step() for source in sources]
    assert len({step.weight for step in steps}) == 1, "ranks disagree about the weight"
    assert len({len(step.micro_batches) for step in steps}) == 1, "a rank would wait for ever"
    rows: dict[int, tuple[list[int], list[int]]] = {}
    for step in steps:
        inputs = [row for batch in step.micro_batches for row in batch.inputs_BT.tolist()]
        targets = [row for batch in step.micro_batches for row in batch.targets_BT.tolist()]
        assert not set(step.row_ids) & rows.keys(), "two ranks have the same row"
        rows.update(zip(step.row_ids, zip(inputs, targets, strict=True), strict=False))
        assert all(target == -1 for row in targets[len(step.row_ids) :] for target in row), "a filler has targets"
    found = sum(target != -1 for _, row in rows.values() for target in row)
    assert found == steps[0].weight
    return steps[0].weight, dict(sorted(rows.items()))


def gather(sources: Sequence[Source]) -> dict[str, Any]:
    """The state of all ranks, through JSON as in a checkpoint."""
    merged: dict[str, Any] = json.loads(json.dumps(merge_states([source.state_dict() for source in sources])))
    return merged


class Conversations:
    """`conversations` as a mixture of one task."""

    def __init__(self, conversations: list[dict[str, Any]]) -> None:
        self.conversations = conversations

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.conversations[index]

    def origin(self, index: int) -> tuple[str, int]:
        return "mine", index


def chat(user: str, assistant: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]}


def bytes_tokenizer() -> Tokenizer:
    """The real tokenizer without merges: ids 0..255 are bytes, 256.. the specials."""
    return Tokenizer({bytes([i]): i for i in range(256)})


def mixture(
    conversations: list[dict[str, Any]], supervise: Supervise, too_long: TooLong, max_len: int | None
) -> MixtureTokens:
    return MixtureTokens(Conversations(conversations), bytes_tokenizer(), supervise, too_long, max_len)


LONG = [chat("hi", "yo"), chat("hi", "y" * 30), chat("h" * 30, "yo")]  # 9, 37 and 37 tokens
