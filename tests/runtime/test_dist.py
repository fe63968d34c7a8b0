import pytest
import torch

from nanochat.errors import ConfigError
from nanochat.runtime.dist import Ranks, all_reduce_sum, check_ranks, current_ranks, gather


def test_one_process() -> None:
    assert current_ranks() == Ranks(0, 1) and current_ranks().is_main
    check_ranks()
    value = torch.tensor([1.0, 2.0])
    assert all_reduce_sum(value) is value
    assert gather([1, 2]) == [1, 2]


def test_several_that_do_not_know_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert current_ranks() == Ranks(1, 4) and not current_ranks().is_main
    with pytest.raises(ConfigError, match="WORLD_SIZE=4"):
        check_ranks()
