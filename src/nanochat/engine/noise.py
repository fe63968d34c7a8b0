"""Random numbers without a state: what is drawn depends on (seed, sample, position, token) and on nothing else.

B rows, V vocabulary. Notable: an integer hash in int64 arithmetic that never overflows, so a CPU and a GPU make the
same bits; rows know nothing of each other, so a sequence is the same alone, in any batch, and in any order of arrival.
"""

from typing import TypeVar

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: successive counters land far apart


Word = TypeVar("Word", int, Tensor)


def mix(x: Word) -> Word:
    """A bijection of 32 bits in which every bit of the input decides every bit of the output.

    The constants are the best that the search https://github.com/skeeto/hash-prospector has found for this form; both
    are below 2^31, so that products stay below 2^63.
    """
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _WORD
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _WORD
    return x ^ (x >> 15)


def stream_key(seed: int, sample: int) -> int:
    """64 bits, below 2^63, that name the sequence of draws of one sample."""
    low, high = seed & _WORD, (seed >> 32) & _WORD
    a = mix(mix(low) ^ high)
    a = mix((a + sample * _GOLDEN) & _WORD)
    b = mix((mix(a ^ _GOLDEN) + low) & _WORD)
    return (a << 31) ^ b  # a keeps 32 bits; the top bit of b falls onto the lowest of a


def gumbel(keys_B: Tensor, positions_B: Tensor, vocab_size: int) -> Tensor:
    """Independent standard Gumbel numbers, (B, V) fp32: the argmax of logits + gumbel is a draw from their softmax.

    `keys_B` are from `stream_key`, `positions_B` the positions that the drawn tokens will stand at; both int64.
    """
    place_B = mix((positions_B * _GOLDEN) & _WORD)
    first_B = mix(((keys_B >> 31) & _WORD) ^ place_B)
    second_B = mix((keys_B + place_B) & _WORD)
    ids_V = torch.arange(vocab_size, device=keys_B.device)
    bits_BV = mix((mix(ids_V ^ first_B[:, None]) + second_B[:, None]) & _WORD)
    # an exponential number -log(1 - u); log1p keeps small u exact, and those make the large Gumbel numbers
    u_BV = ((bits_BV.float() + 0.5) * 2.0**-32).clamp_(max=1 - 2.0**-24)
    return -torch.log(-torch.log1p(-u_BV))
