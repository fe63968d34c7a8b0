"""Drawn tokens on their way to the host."""

import torch
from torch import Tensor

from nanochat.engine.sequence import Sequence


class Reading:
    """One token for each of some sequences. On a GPU the copy runs behind the step, and only `ids` waits for it."""

    def __init__(self, sequences: list[Sequence], ids_B: Tensor) -> None:
        """Starts the copy; `ids_B` may be overwritten by what is launched later."""
        self.sequences = sequences
        self._event: torch.cuda.Event | None = None
        if ids_B.is_cuda:
            self._ids_B = torch.empty(ids_B.shape, dtype=ids_B.dtype, pin_memory=True)
            self._ids_B.copy_(ids_B, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        else:
            self._ids_B = ids_B.clone()

    def ids(self) -> list[int]:
        """The tokens."""
        if self._event is not None:
            self._event.synchronize()
        ids: list[int] = self._ids_B.tolist()
        return ids
