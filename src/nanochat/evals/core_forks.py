"""A cache for prompts that several answers follow: each prompt is read once, its answers beside each other.

B prompts, N answers of all of them, K key/value heads, P positions of the longest prompt, T new positions, E head
width. Notable: keys and values of a prompt are kept once and copied to its answers for one layer at a time, so an
answer more costs no memory that stays.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nanochat.model.kv_cache import KVCache


class ForkedCache(KVCache):
    """First a forward pass of prompts, padded on the right; after `fork`, one of their answers."""

    def __init__(self, lengths: list[int], device: torch.device) -> None:
        """`lengths` of the B prompts."""
        self.longest = 0
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._lengths_B = torch.tensor(lengths, device=device)
        self._prompt_N: Tensor | None = None
        self._before_N1 = torch.full((len(lengths), 1), -1, device=device)

    def fork(self, prompts: list[int], ids_BP: Tensor) -> None:
        """The next rows are answers: `prompts[n]` is the prompt that answer n follows. `ids_BP` are those read."""
        self._prompt_N = torch.tensor(prompts, device=ids_BP.device)
        self._lengths_N = self._lengths_B[self._prompt_N]
        self._before_N1 = ids_BP[self._prompt_N, self._lengths_N - 1][:, None]
        self.longest = int(self._lengths_B.max())

    def positions(self, new: int) -> slice | Tensor:
        """Where the next `new` tokens stand: (N, new) behind the prompts."""
        if self._prompt_N is None:
            return slice(0, new)
        return self._lengths_N[:, None] + torch.arange(new, device=self._lengths_N.device)

    def previous_ids(self, idx_BT: Tensor) -> Tensor:
        """The token before each; -1 where there is none."""
        return torch.cat([self._before_N1, idx_BT[:, :-1]], dim=1)

    def attend(self, layer: int, q_BHTE: Tensor, k_BKTE: Tensor, v_BKTE: Tensor, window: int | None = None) -> Tensor:
        """Prompts look at themselves; answers at their prompt and at themselves, by at most `window` positions back."""
        grouped = q_BHTE.shape[1] != k_BKTE.shape[1]
        if self._prompt_N is None:
            self._kept[layer] = (k_BKTE, v_BKTE)
            keys, values = k_BKTE, v_BKTE
        else:
            kept_k, kept_v = (each.index_select(0, self._prompt_N) for each in self._kept.pop(layer))
            keys, values = torch.cat([kept_k, k_BKTE], dim=2), torch.cat([kept_v, v_BKTE], dim=2)
        mask = self._mask(k_BKTE.shape[2], window)
        return F.scaled_dot_product_attention(
            q_BHTE, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
        )

    def _mask(self, new: int, window: int | None) -> Tensor | None:  # type: ignore[override]
        """True where a query may look, (N or 1, 1, new, keys); None for plain causal attention."""
        device = self._lengths_B.device
        if self._prompt_N is None:
            if window is None or window >= new - 1:
                return None
            positions = torch.arange(new, device=device)
            back = positions[:, None] - positions
            return ((back >= 0) & (back <= window))[None, None]
        end_N1, old = self._lengths_N[:, None], torch.arange(self.longest, device=device)
        new_N = end_N1 + torch.arange(new, device=device)
        # where each key stands; what pads a shorter prompt stands behind everything, so that nothing looks at it
        keys_NS = torch.cat([torch.where(old < end_N1, old, self.longest + new), new_N], dim=1)
        back = new_N[:, :, None] - keys_NS[:, None]
        seen = back >= 0 if window is None else (back >= 0) & (back <= window)
        return seen[:, None]

    def advance(self, idx_BT: Tensor) -> None:
        """Nothing grows: there is one pass of prompts and one of answers."""
