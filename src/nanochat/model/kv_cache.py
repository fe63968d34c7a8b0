"""Keys and values of the positions already seen, so that a new token costs one position instead of all.

L layers, B rows, K key/value heads, S capacity in positions, E head width. Notable: rows may have different
lengths. A row of length n owns positions 0..n-1; what lies behind them (the padding of a shorter prompt, say)
is masked until it is overwritten. Lengths are also known on the host, so that nothing here waits for the device.
"""

import torch
from torch import Tensor

from nanochat.plan.dims import ModelDims


class KVCache:
    """Preallocated keys and values, (L, B, K, S, E) each, and the lengths of the B rows."""

    def __init__(self, dims: ModelDims, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        """Room for `rows` rows of `capacity` positions; all rows start empty."""
        shape = (dims.n_layer, rows, dims.n_kv_head, capacity, dims.head_dim)
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self.set_lengths([0] * rows)

    @property
    def rows(self) -> int:
        """Number of rows B."""
        return self.k.shape[1]

    @property
    def capacity(self) -> int:
        """Number of positions S that a row has room for."""
        return self.k.shape[3]

    def set_lengths(self, lengths: list[int]) -> None:
        """Declare how many leading positions of each row are valid, after a padded prefill for example."""
        assert len(lengths) == self.rows, f"{len(lengths)} lengths for {self.rows} rows"
        self.lengths = list(lengths)
        self.longest = max(lengths)
        self.uniform = min(lengths) == self.longest
        self.lengths_B = torch.tensor(lengths, dtype=torch.int64, device=self.k.device)

    def positions(self, new: int) -> slice | Tensor:
        """Where the next `new` tokens of each row stand: a slice if all rows agree, else indices (B, new)."""
        if self.uniform:
            return slice(self.longest, self.longest + new)
        return self.lengths_B[:, None] + torch.arange(new, device=self.k.device)

    def attention_mask(self, new: int) -> tuple[Tensor | None, bool]:
        """(mask, is_causal) for `new` queries a row against the `longest + new` keys that `append` returns.

        The mask, True where a query may look, is (B or 1, 1, new, longest + new); None where none is needed.
        """
        if self.uniform and (new == 1 or self.longest == 0):
            return None, new > 1
        keys = torch.arange(self.longest + new, device=self.k.device)
        start_B = self.lengths_B[:1] if self.uniform else self.lengths_B
        positions = start_B[:, None] + torch.arange(new, device=self.k.device)
        return (keys <= positions[..., None])[:, None], False

    def append(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer; returns that layer's keys and values, (B, K, longest + T, E)."""
        new = k_BKTE.shape[2]
        end = self.longest + new
        assert end <= self.capacity, f"cache of {self.capacity} positions cannot hold {end}"
        at = self.positions(new)
        if isinstance(at, slice):
            self.k[layer, :, :, at] = k_BKTE
            self.v[layer, :, :, at] = v_BKTE
        else:
            rows = torch.arange(self.rows, device=at.device)[:, None]
            self.k[layer][rows, :, at] = k_BKTE.transpose(1, 2)
            self.v[layer][rows, :, at] = v_BKTE.transpose(1, 2)
        return self.k[layer, :, :, :end], self.v[layer, :, :, :end]

    def advance(self, new: int) -> None:
        """All rows have grown by `new` positions; called once a forward pass, after the last layer."""
        self.lengths = [n + new for n in self.lengths]
        self.longest += new
        self.lengths_B += new

    def select(self, rows: list[int]) -> "KVCache":
        """A new cache made of copies of the given rows, in that order; a row may be taken several times."""
        chosen = object.__new__(KVCache)
        index = torch.tensor(rows, dtype=torch.int64, device=self.k.device)
        chosen.k, chosen.v = self.k.index_select(1, index), self.v.index_select(1, index)
        chosen.set_lengths([self.lengths[row] for row in rows])
        return chosen
