"""Parameter names as the plain model has them, whatever wrapped it when it was saved."""

from collections.abc import Mapping
from typing import TypeVar

from nanochat.errors import MismatchError

Value = TypeVar("Value")

WRAPPERS = ("_orig_mod.", "module.")  # torch.compile; DistributedDataParallel


def plain_name(name: str) -> str:
    """`module._orig_mod.wte.weight` -> `wte.weight`. Prefixes are removed whole, never letter by letter."""
    while (shorter := name.removeprefix(WRAPPERS[0]).removeprefix(WRAPPERS[1])) != name:
        name = shorter
    return name


def plain_names(tensors: Mapping[str, Value]) -> dict[str, Value]:
    """The same values under their plain names. Raises MismatchError if two names become one."""
    plain = {plain_name(name): value for name, value in tensors.items()}
    if len(plain) != len(tensors):
        raise MismatchError(f"two of the names {', '.join(sorted(tensors))} are one without {' and '.join(WRAPPERS)}")
    return plain


def check_names(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise MismatchError, naming the tensors, unless `found` has exactly the names and shapes `expected`."""
    missing = sorted(expected.keys() - found.keys())
    foreign = sorted(found.keys() - expected.keys())
    other = sorted(name for name in expected.keys() & found.keys() if tuple(found[name]) != tuple(expected[name]))
    shapes = [f"{name} {tuple(found[name])} instead of {tuple(expected[name])}" for name in other]
    parts = (("lacks", missing), ("has unknown", foreign), ("has", shapes))
    told = [f"{verb} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}" for verb, names in parts if names]
    if told:
        raise MismatchError(f"{where} is not a checkpoint of this model: it {'; it '.join(told)}")
