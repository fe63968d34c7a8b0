"""pass@k: the chance that at least one of k answers is right, estimated from n >= k answers of which c are right.

    1 - C(n-c, k) / C(n, k)          (2107.03374, equation 1)

Notable: this is unbiased; 1 - (1 - c/n)^k is not. Taken as a product, since the binomials themselves are huge.
"""

from collections.abc import Sequence
from math import prod


def pass_at_k(samples: int, right: int, k: int) -> float:
    """For one problem. `k` is at most `samples`."""
    assert 0 <= right <= samples and 1 <= k <= samples, (samples, right, k)
    if samples - right < k:
        return 1.0
    return 1.0 - prod(1.0 - k / i for i in range(samples - right + 1, samples + 1))


def mean_pass_at_k(samples: int, rights: Sequence[int], k: int) -> float:
    """Over problems, each with `samples` answers."""
    return sum(pass_at_k(samples, right, k) for right in rights) / len(rights)


def powers_up_to(samples: int) -> list[int]:
    """The k that are reported: 1, 2, 4, ... <= samples."""
    return [1 << i for i in range(samples.bit_length())]
