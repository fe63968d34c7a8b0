import itertools
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.evals.pass_at_k import mean_pass_at_k, pass_at_k, powers_up_to


@given(st.integers(1, 200), st.data())
def test_the_formula_of_the_paper(samples: int, data: st.DataObject) -> None:
    right, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    assert pass_at_k(samples, right, k) == pytest.approx(1 - comb(samples - right, k) / comb(samples, k), abs=1e-12)


def test_it_is_the_share_of_subsets_with_a_right_answer() -> None:
    """Of all ways to draw 3 of 6 answers; 1 - (1 - c/n)^k is something else."""
    answers = [True, False, False, True, False, False]
    drawn = [any(subset) for subset in itertools.combinations(answers, 3)]
    assert pass_at_k(6, 2, 3) == pytest.approx(sum(drawn) / len(drawn)) == pytest.approx(0.8)
    assert pass_at_k(6, 2, 3) > 1 - (1 - 2 / 6) ** 3 + 0.09


def test_the_ends() -> None:
    assert pass_at_k(1, 1, 1) == 1 and pass_at_k(1, 0, 1) == 0
    assert pass_at_k(4, 1, 4) == 1 and pass_at_k(4, 0, 4) == 0 and pass_at_k(1000, 500, 1) == pytest.approx(0.5)
    assert mean_pass_at_k(4, [0, 1, 4], 1) == pytest.approx((0 + 0.25 + 1) / 3)


@pytest.mark.parametrize(("samples", "ks"), [(1, [1]), (2, [1, 2]), (3, [1, 2]), (8, [1, 2, 4, 8]), (9, [1, 2, 4, 8])])
def test_which_k(samples: int, ks: list[int]) -> None:
    assert powers_up_to(samples) == ks
