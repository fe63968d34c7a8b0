"""The decode step of a batch as CUDA graphs: one launch a token instead of some hundred.

R rows with memory, B rows of a graph. Notable: there is a graph for each power of two of rows and each mode of drawing;
rows beyond the live ones are computed as well, with a length of 0 that does not grow. Recording a graph takes some
milliseconds, after the kernels have been compiled once (Triton keeps them on disk).
"""

from collections.abc import Callable
from threading import Lock

import torch
from torch import Tensor

from nanochat.engine.sampling import Mode, Settings, draw
from nanochat.model.decode import DecodeModel
from nanochat.model.kv_cache import KVCache

_RECORDING = Lock()
_MAX_GRAPHS = 64  # they are recorded again after that many; few programs ever use so many modes


class Graphs:
    """Recorded steps over the given tensors, which must stay where they are."""

    def __init__(
        self, model: DecodeModel, cache: KVCache, settings: Settings, next_ids_R: Tensor, active_R: Tensor
    ) -> None:
        """Nothing is recorded yet."""
        self._model, self._cache, self._settings = model, cache, settings
        self._next_ids_R, self._active_R = next_ids_R, active_R
        self._graphs: dict[tuple[int, Mode], torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def step(self, rows: int, mode: Mode, seen_RV: Tensor | None) -> None:
        """One token more in the first `rows` rows: `next_ids_R` is read and written, the cache's device side grows."""
        key = (1 << (rows - 1).bit_length(), mode)
        if key not in self._graphs:
            if len(self._graphs) >= _MAX_GRAPHS:
                self._graphs.clear()
            self._graphs[key] = self._record(lambda: self._run(*key, seen_RV))
        self._graphs[key].replay()

    def _run(self, rows: int, mode: Mode, seen_RV: Tensor | None) -> None:
        ids_B = self._next_ids_R[:rows].clamp(min=0)  # -1 where the last logits were no numbers: the host will notice
        seen_BV = None
        if mode.penalised:
            assert seen_RV is not None
            seen_BV = seen_RV[:rows]
            seen_BV.scatter_(1, ids_B[:, None], True)
        logits_BV = self._model.step(ids_B, self._cache, self._active_R[:rows])
        positions_B = self._cache.all_lengths_R[:rows]
        self._next_ids_R[:rows] = draw(logits_BV, self._settings.head(rows), positions_B, seen_BV, mode)

    def _record(self, run: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """Runs once, so that kernels are compiled and libraries ready, undoes what that changed, and records.

        The keys and values written in passing lie where the true step will write its own.
        """
        changed = (self._next_ids_R, self._active_R, self._cache.all_lengths_R, self._cache.all_last_ids_R)
        before = [tensor.clone() for tensor in changed]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            run()
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        # other engines may compute in threads of their own meanwhile, but not record
        with _RECORDING, torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        return graph
