"""The sequences that are being written together: their cache, their settings, and one step for all of them.

B live rows, R rows with memory, V vocabulary. Notable: live rows stand at 0..B-1 of everything; one that leaves is
replaced by the last. Memory grows with what is asked for, up to a budget, and is kept.
"""

import torch
from torch import Tensor

from nanochat.engine.prefill import Prefill
from nanochat.engine.sampling import Mode, Settings, draw
from nanochat.engine.sequence import Sequence
from nanochat.model.gpt import GPT
from nanochat.model.kernels import fast_on
from nanochat.model.kv_cache import KVCache

GRANULE = 256  # positions: capacities are multiples of it, so that memory is not moved for every longer request


class Batch:
    """Live sequences of one model, at most `max_rows`."""

    def __init__(self, model: GPT, device: torch.device, max_rows: int, budget: int, plain: bool) -> None:
        """Empty, without memory. `budget`: bytes of the cache at most, though one row may always enter."""
        self.model, self.device, self.max_rows, self.budget = model, device, max_rows, budget
        self.live: list[Sequence] = []
        self._fast = None
        if fast_on(device) and not plain:
            from nanochat.engine.fast import FastStep

            self._fast = FastStep(model, device, max_rows)
        self._next_ids_R = torch.zeros(0, dtype=torch.int64, device=device)
        self._seen_RV: Tensor | None = None
        self._cache = KVCache(model.dims, 0, 0, device, model.compute_dtype)
        self._bytes_of_position = 2 * self._cache.k.element_size() * _numbers_of_position(model)
        self._remake(0, 0)

    def room(self, arrivals: list[Sequence]) -> int:
        """How many of these can enter now, from the first on."""
        rows, capacity = len(self.live), self._cache.capacity if self.live else 0
        for sequence in arrivals:
            capacity = max(capacity, self._capacity_for(sequence))
            needed = (rows + 1) * capacity * self._bytes_of_position
            if rows == self.max_rows or (rows and needed > self.budget):
                break
            rows += 1
        return rows - len(self.live)

    def enter(self, prefill: Prefill, arrivals: list[tuple[int, Sequence]]) -> Tensor:
        """Sequences whose prompts are rows of `prefill` become live; returns their first tokens.

        `arrivals`: (row of the prefill, sequence), all samples of one prompt sharing a row.
        """
        assert prefill.logits_PV is not None
        sequences = [sequence for _, sequence in arrivals]
        first, rows = len(self.live), len(self.live) + len(arrivals)
        self._make_room(rows, max(self._capacity_for(sequence) for sequence in sequences))
        for slot, (row, _) in enumerate(arrivals, first):
            self._cache.copy_row(slot, prefill.cache, row)
        self._note_prompts(first, sequences)
        logits_BV = prefill.logits_PV[torch.tensor([row for row, _ in arrivals], device=self.device)]
        positions_B = torch.tensor([sequence.prompt_length for sequence in sequences], device=self.device)
        seen_BV = None if self._seen_RV is None else self._seen_RV[first:rows]
        settings = Settings.of([s.params for s in sequences], [s.key for s in sequences], self.device)
        ids_B = draw(logits_BV, settings, positions_B, seen_BV, self._mode(sequences))
        self._next_ids_R[first:rows] = ids_B
        self.live += sequences  # not before all that can fail, so that nobody enters twice
        for sequence in sequences:
            sequence.drawn += 1
        self._note_rows()
        return ids_B

    def leave(self) -> None:
        """Takes out those that have nothing left to compute."""
        before, slot = len(self.live), 0
        while slot < len(self.live):
            if self.live[-1].leaving:
                self.live.pop()
            elif self.live[slot].leaving:
                self._move(slot, len(self.live) - 1)
                self.live[slot] = self.live.pop()
            else:
                slot += 1
        if len(self.live) != before:
            self._note_rows()

    def force(self, forced: list[tuple[int, int]]) -> None:
        """(slot, id): the next step reads these tokens instead of those that were sampled."""
        if forced:
            slots, ids = torch.tensor(forced).T.to(self.device)
            self._next_ids_R[slots] = ids

    def step(self) -> Tensor:
        """One token more for every live row, (B,)."""
        cache, rows, mode = self._cache, len(self.live), self._mode(self.live)
        ids_B = self._next_ids_R[:rows]
        if self._fast is not None:
            self._fast.step(rows, mode, self._seen_RV)
            cache.note_step()
        else:
            seen_BV = None if self._seen_RV is None else self._seen_RV[:rows]
            if seen_BV is not None:
                seen_BV.scatter_(1, ids_B[:, None], True)
            logits_BV = self.model.logits(self.model.hidden(ids_B[:, None], cache)[:, -1])
            ids_B.copy_(draw(logits_BV, self._settings.head(rows), cache.lengths_B, seen_BV, mode))
        for sequence in self.live:
            sequence.drawn += 1
        return ids_B

    def _mode(self, sequences: list[Sequence]) -> Mode:
        return Mode.of([s.params for s in sequences], self.model.dims.vocab_size)

    def _capacity_for(self, sequence: Sequence) -> int:
        return min(self.model.max_positions, -(-sequence.positions // GRANULE) * GRANULE)

    def _make_room(self, rows: int, capacity: int) -> None:
        """Memory for so many rows. Rows are powers of two, which the graphs need; an empty batch drops what it had."""
        old = self._cache
        if rows <= old.room and capacity <= old.capacity:
            return
        capacity = max(capacity, old.capacity if self.live else 0)
        rows = 1 << (rows - 1).bit_length()
        if old.room * capacity * self._bytes_of_position <= self.budget:
            rows = max(rows, old.room)
        self._remake(rows, capacity)

    def _remake(self, rows: int, capacity: int) -> None:
        if self.live:
            cache = self._cache.resized(rows, capacity)
        else:
            self._cache = self._new_cache(0, 0)  # first, so that the memory of the old one can be used again
            cache = self._new_cache(rows, capacity)
        next_ids_R = torch.zeros(rows, dtype=torch.int64, device=self.device)
        seen_RV = self._seen_table(rows) if self.live and self._seen_RV is not None else None
        if self.live:
            kept = len(self.live)
            next_ids_R[:kept] = self._next_ids_R[:kept]
            if seen_RV is not None and self._seen_RV is not None:
                seen_RV[:kept] = self._seen_RV[:kept]
        settings = Settings.room_for(rows, self.device)
        self._cache, self._next_ids_R, self._seen_RV, self._settings = cache, next_ids_R, seen_RV, settings
        if self._fast is not None:
            self._fast.use(self._cache, self._settings, self._next_ids_R)

    def _new_cache(self, rows: int, capacity: int) -> KVCache:
        cache = KVCache(self.model.dims, rows, capacity, self.device, self.model.compute_dtype)
        cache.set_lengths([])
        return cache

    def _note_rows(self) -> None:
        """Who is live has changed."""
        rows = len(self.live)
        self._cache.set_lengths([sequence.prompt_length + sequence.drawn - 1 for sequence in self.live])
        if rows:
            chosen = Settings.of([s.params for s in self.live], [s.key for s in self.live], self.device)
            self._settings.head(rows).copy_(chosen)
        if self._fast is not None:
            self._fast.use_rows(rows)

    def _note_prompts(self, first: int, sequences: list[Sequence]) -> None:
        """What occurred in the prompts of those that go to the rows from `first` on, if a penalty asks for it."""
        for slot, sequence in enumerate(sequences, first):
            if sequence.params.repetition_penalty == 1:
                continue
            if self._seen_RV is None:
                self._seen_RV = self._seen_table(self._cache.room)
            self._seen_RV[slot] = False
            self._seen_RV[slot, torch.tensor(sequence.prompt_ids, device=self.device)] = True

    def _seen_table(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.model.dims.vocab_size, dtype=torch.bool, device=self.device)

    def _move(self, to: int, slot: int) -> None:
        self._cache.copy_row(to, self._cache, slot)
        self._next_ids_R[to] = self._next_ids_R[slot]
        if self._seen_RV is not None:
            self._seen_RV[to] = self._seen_RV[slot]


def _numbers_of_position(model: GPT) -> int:
    dims = model.dims
    return dims.n_layer * dims.n_kv_head * dims.head_dim
