"""Keys and values of the positions already seen, so that a new token costs one position instead of all.

L layers, B rows in use, R rows with memory, K key/value heads, S capacity in positions, E head width. Notable: rows may
have different lengths. A row of length n owns positions 0..n-1; what lies behind them (the padding of a shorter prompt,
say) is masked until it is overwritten. The rows in use are the first of those that there is memory for, so that rows
can come and go. Lengths are also known on the host, so that nothing here waits for the device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.plan.dims import ModelDims


class KVCache:
    """Preallocated keys and values, (L, R, K, S, E) each, and the lengths of the B rows in use."""

    def __init__(self, dims: ModelDims, rows: int, capacity: int, device: torch.device, dtype: torch.dtype) -> None:
        """Room for `rows` rows of `capacity` positions; all are in use and start empty."""
        shape = (dims.n_layer, rows, dims.n_kv_head, capacity, dims.head_dim)
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)
        self.all_lengths_R = torch.zeros(rows, dtype=torch.int64, device=device)
        self.all_last_ids_R = torch.full((rows,), -1, dtype=torch.int64, device=device)
        self.set_lengths([0] * rows)
        self.expect(None)

    @property
    def rows(self) -> int:
        """Number of rows in use, B."""
        return len(self.lengths)

    @property
    def room(self) -> int:
        """Number of rows that there is memory for, R."""
        return self.k.shape[1]

    @property
    def capacity(self) -> int:
        """Number of positions S that a row has room for."""
        return self.k.shape[3]

    @property
    def lengths_B(self) -> Tensor:
        """The lengths of the rows in use, on the device."""
        return self.all_lengths_R[: self.rows]

    @property
    def last_ids_B(self) -> Tensor:
        """The last token of each row in use, -1 where there is none."""
        return self.all_last_ids_R[: self.rows]

    def expect(self, news: list[int] | None) -> None:
        """Declare that the next forward is padded on the right: row b brings news[b] tokens, the rest is padding."""
        self._news = news

    def set_lengths(self, lengths: list[int]) -> None:
        """Declare which rows are in use, the first ones, and how many leading positions of each are valid."""
        assert len(lengths) <= self.room, f"{len(lengths)} lengths for {self.room} rows"
        self._note_lengths(lengths)
        self.lengths_B.copy_(torch.tensor(lengths, dtype=torch.int64))

    def _note_lengths(self, lengths: list[int]) -> None:
        self.lengths = list(lengths)
        self.longest = max(lengths, default=0)
        self.uniform = min(lengths, default=0) == self.longest

    def positions(self, new: int) -> slice | Tensor:
        """Where the next `new` tokens of each row stand: a slice if all rows agree, else indices (B, new)."""
        if self.uniform:
            return slice(self.longest, self.longest + new)
        return self.lengths_B[:, None] + torch.arange(new, device=self.k.device)

    def previous_ids(self, idx_BT: Tensor) -> Tensor:
        """The token before each of the tokens about to be processed, (B, T); -1 where there is none."""
        return torch.cat([self.last_ids_B[:, None], idx_BT[:, :-1]], dim=1)

    def attend(self, layer: int, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, window: int | None = None) -> Tensor:
        """Keep the new keys and values of one layer, and let the new queries look at all of their row: (B, H, T, E).

        With a `window` the query at position i sees the keys i - window .. i.
        """
        new = k_BKTE.shape[2]
        keys, values = self._append(layer, k_BKTE, v_BKTE)
        mask, is_causal = self._mask(new, window)
        grouped = q_BHTE.shape[1] != k_BKTE.shape[1]
        return F.scaled_dot_product_attention(
            q_BHTE, keys, values, attn_mask=mask, is_causal=is_causal, enable_gqa=grouped
        )

    def _mask(self, new: int, window: int | None) -> tuple[Tensor | None, bool]:
        """(mask, is_causal) for `new` queries a row against the `longest + new` keys of `_append`.

        The mask, True where a query may look, is (B or 1, 1, new, longest + new); None where none is needed.
        """
        total = self.longest + new
        windowed = window is not None and window < total - 1
        if self.uniform and not windowed and (new == 1 or self.longest == 0):
            return None, new > 1
        keys = torch.arange(total, device=self.k.device)
        start_B = self.lengths_B[:1] if self.uniform else self.lengths_B
        positions = (start_B[:, None] + torch.arange(new, device=self.k.device))[..., None]
        seen = keys <= positions
        if window is not None:
            seen = seen & (keys >= positions - window)
        return seen[:, None], False

    def _append(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer; returns that layer's keys and values, (B, K, longest + T, E)."""
        new = k_BKTE.shape[2]
        end = self.longest + new
        assert end <= self.capacity, f"cache of {self.capacity} positions cannot hold {end}"
        at = self.positions(new)
        k, v = self.k[layer, : self.rows], self.v[layer, : self.rows]
        if isinstance(at, slice):
            k[:, :, at] = k_BKTE
            v[:, :, at] = v_BKTE
        else:
            rows = torch.arange(self.rows, device=at.device)[:, None]
            k[rows, :, at] = k_BKTE.transpose(1, 2)
            v[rows, :, at] = v_BKTE.transpose(1, 2)
        return k[:, :, :end], v[:, :, :end]

    def advance(self, idx_BT: Tensor) -> None:
        """All rows have grown by these tokens; called once a forward pass, after the last layer."""
        if self._news is None:
            news = [idx_BT.shape[1]] * self.rows
            self.last_ids_B.copy_(idx_BT[:, -1])
            self.lengths_B.add_(idx_BT.shape[1])
        else:
            news = self._news
            new_B = torch.tensor(news, dtype=torch.int64).to(idx_BT.device)
            self.last_ids_B.copy_(idx_BT.gather(1, new_B[:, None] - 1)[:, 0])
            self.lengths_B.add_(new_B)
        self._note_lengths([n + new for n, new in zip(self.lengths, news, strict=True)])
        self.expect(None)

    def note_step(self) -> None:
        """Tell the host that the device's lengths have all grown by one, in a step that it did not see."""
        self._note_lengths([n + 1 for n in self.lengths])

    def copy_row(self, to: int, source: "KVCache", row: int) -> None:
        """Row `to` of this memory becomes a copy of a row of `source`, which may be this cache itself.

        The caller says by `set_lengths` which rows are in use.
        """
        length = source.lengths[row]
        self.k[:, to, :, :length] = source.k[:, row, :, :length]
        self.v[:, to, :, :length] = source.v[:, row, :, :length]
        self.all_last_ids_R[to] = source.all_last_ids_R[row]

    def resized(self, rows: int, capacity: int) -> "KVCache":
        """A cache of other room with the same rows in use, all of which must fit."""
        other = object.__new__(KVCache)
        for name in ("k", "v"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros(old.shape[0], rows, old.shape[2], capacity, old.shape[4])
            new[:, : self.rows, :, : self.longest] = old[:, : self.rows, :, : self.longest]
            setattr(other, name, new)
        other.all_lengths_R = self.all_lengths_R.new_zeros(rows)
        other.all_last_ids_R = self.all_last_ids_R.new_full((rows,), -1)
        other.all_last_ids_R[: self.rows] = self.last_ids_B
        other.set_lengths(self.lengths)
        other.expect(None)
        return other

    def select(self, rows: list[int]) -> "KVCache":
        """A new cache made of copies of the given rows, in that order; a row may be taken several times."""
        chosen = object.__new__(KVCache)
        index = torch.tensor(rows, dtype=torch.int64, device=self.k.device)
        chosen.k, chosen.v = self.k.index_select(1, index), self.v.index_select(1, index)
        chosen.all_lengths_R = self.all_lengths_R[index]
        chosen.all_last_ids_R = self.all_last_ids_R[index]
        chosen.expect(None)
        chosen.set_lengths([self.lengths[row] for row in rows])
        return chosen
