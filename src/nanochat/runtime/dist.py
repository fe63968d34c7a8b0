"""Ranks of a run. One process is rank 0 of 1 and takes every path that many take."""

import os
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as torch_dist

from nanochat.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


def current_ranks() -> Ranks:
    """From the variables that torchrun and SLURM wrappers set."""
    return Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


def check_ranks() -> None:
    """Raises ConfigError where a launcher started several processes that do not know of each other.

    Each would take its share of the rows and none the gradients of the others.
    """
    world = current_ranks().world
    if world > 1 and not (torch_dist.is_available() and torch_dist.is_initialized()):
        raise ConfigError(
            f"WORLD_SIZE={world}: this version trains in one process; start `nanochat` itself, without torchrun, or "
            f"unset WORLD_SIZE and RANK"
        )


def all_reduce_sum(value: torch.Tensor) -> torch.Tensor:
    """The sum over ranks, in place; `value` itself with one process."""
    if torch_dist.is_available() and torch_dist.is_initialized():
        torch_dist.all_reduce(value)
    return value


def gather(items: list[Item]) -> list[Item]:
    """The items of all ranks, in the order of the ranks. Every rank calls it and gets them all."""
    if not (torch_dist.is_available() and torch_dist.is_initialized()):
        return items
    lists: list[list[Item]] = [[] for _ in range(torch_dist.get_world_size())]
    torch_dist.all_gather_object(lists, items)
    return [item for items in lists for item in items]
