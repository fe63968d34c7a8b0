"""How many copies of a model serve, and how each is made.

Notable: on GPUs each copy has one of its own. On the CPU copies share the weights' memory, and the threads are
divided among them; one copy that writes many answers together is the faster choice there.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch

from nanochat.checkpoint.find import ResolvedRef
from nanochat.engine.engine import Engine
from nanochat.errors import ConfigError
from nanochat.model.gpt import GPT
from nanochat.runtime.device import Machine
from nanochat.stages.inference import load_for_inference
from nanochat.tokenizer.bpe import Tokenizer


def count_replicas(asked: str, device: str) -> int:
    """What `--replicas` means on this device. Raises ConfigError for what cannot be."""
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    if asked == "auto":
        return max(gpus, 1)
    if not asked.isdecimal() or int(asked) < 1:
        raise ConfigError(f"--replicas {asked} is a whole number from 1 on, or auto")
    count = int(asked)
    if device == "cuda" and count > gpus:
        raise ConfigError(f"--replicas {count}: this machine has {gpus} GPUs, and each replica needs one; take auto")
    if device == "mps" and count > 1:
        raise ConfigError(
            f"--replicas {count}: there is one GPU here; take 1, which writes --max-rows answers together"
        )
    if device == "cpu" and count > torch.get_num_threads():
        raise ConfigError(f"--replicas {count}: there are {torch.get_num_threads()} CPU threads to divide; take fewer")
    return count


def engine_makers(
    ref: ResolvedRef, machine: Machine, tokenizer: Tokenizer, replicas: str, max_rows: int
) -> list[Callable[[], Engine]]:
    """A function a replica that makes its engine, to be called in the thread that will own it."""
    count = count_replicas(replicas, machine.device)
    lock = threading.Lock()  # one copy is loaded at a time

    @cache
    def model_on(device: str) -> GPT:
        return load_for_inference(ref, replace(machine, device=device))

    def maker(number: int) -> Callable[[], Engine]:
        device = f"cuda:{number}" if machine.device == "cuda" else machine.device

        def make() -> Engine:
            with lock:
                _settle(device, count)
                return Engine(model_on(device), tokenizer, device, max_rows=max_rows)

        return make

    return [maker(number) for number in range(count)]


def _settle(device: str, count: int) -> None:
    """What belongs to the calling thread: its GPU, or its share of the CPU's threads."""
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    elif device == "cpu" and count > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
