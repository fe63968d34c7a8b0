"""The decode step on a GPU, and reading its tokens without waiting for it.

R rows with memory. Notable: weights are copied when the engine is made and again, before sequences enter an empty
batch, if they have been written to since: an engine on a model in training sees its current weights.
"""

import torch
from torch import Tensor

from nanochat.engine.graphs import Graphs
from nanochat.engine.sampling import Mode, Settings
from nanochat.model.decode import DecodeModel
from nanochat.model.gpt import GPT
from nanochat.model.kv_cache import KVCache


class FastStep:
    """Captured steps of one model over the tensors of a batch."""

    def __init__(self, model: GPT, device: torch.device, max_rows: int) -> None:
        """Copies the weights."""
        self._model = DecodeModel(model, 1 << (max_rows - 1).bit_length())
        self._device = device
        self._rows = 0
        self._graphs: Graphs | None = None
        self._cache: KVCache | None = None
        self._active_R = torch.zeros(0, dtype=torch.int64, device=device)

    def use(self, cache: KVCache, settings: Settings, next_ids_R: Tensor) -> None:
        """From now on the tensors are these."""
        self._cache = cache
        self._active_R = torch.zeros(cache.room, dtype=torch.int64, device=self._device)
        self._active_R[: cache.rows] = 1
        self._graphs = Graphs(self._model, cache, settings, next_ids_R, self._active_R)

    def use_rows(self, rows: int) -> None:
        """From now on the first `rows` rows are live; the others stand at length 0."""
        assert self._cache is not None
        if self._rows == 0:
            self._model.refresh()
        self._rows = rows
        self._active_R[:rows] = 1
        self._active_R[rows:] = 0
        self._cache.all_lengths_R[rows:] = 0

    def step(self, rows: int, mode: Mode, seen_RV: Tensor | None) -> None:
        """One token more for the first `rows` rows."""
        assert self._graphs is not None
        self._graphs.step(rows, mode, seen_RV)
