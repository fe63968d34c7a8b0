from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from nanochat.checkpoint.load import load_model
from nanochat.checkpoint.names import check_names, plain_name, plain_names
from nanochat.checkpoint.save import save_checkpoint
from nanochat.errors import MismatchError

# Names that begin with letters of the wrappers' prefixes: lstrip would eat them.
TRAPS = ["odd", "module_list", "_mod", "modulo", "wte"]


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def trap_model() -> nn.Module:
    return nn.Sequential(OrderedDict((name, nn.Linear(2, 2)) for name in TRAPS))


@pytest.mark.parametrize("name", [*TRAPS, "blocks.0.module.weight", "module", "a._orig_mod.b"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_go_whole_and_nothing_else(prefix: str, name: str) -> None:
    assert plain_name(prefix + name) == name


@pytest.mark.parametrize("wrap", ["none", "compile", "ddp", "compile(ddp)", "ddp(compile)"])
def test_a_checkpoint_of_a_wrapped_model_loads_into_a_plain_one(tmp_path: Path, one_rank: None, wrap: str) -> None:
    plain, ddp = trap_model(), nn.parallel.DistributedDataParallel
    wrapped = {
        "none": lambda: plain,
        "compile": lambda: torch.compile(plain),
        "ddp": lambda: ddp(plain),
        "compile(ddp)": lambda: torch.compile(ddp(plain)),
        "ddp(compile)": lambda: ddp(torch.compile(plain)),
    }[wrap]()
    folder = tmp_path / "step_000001"
    save_checkpoint(folder, model=wrapped.state_dict(), model_yaml={}, optimizer={}, state={})
    fresh = trap_model()
    fresh.load_state_dict(load_model(folder), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), fresh.parameters(), strict=True))


def test_two_names_that_become_one_are_refused() -> None:
    with pytest.raises(MismatchError, match=r"module\.w"):
        plain_names({"w": 1, "module.w": 2})


def test_a_checkpoint_of_another_model_is_refused_by_name() -> None:
    expected = {"a": (2, 2), "b": (3,)}
    check_names({"a": (2, 2), "b": (3,)}, expected, "base/d4@1")
    with pytest.raises(MismatchError, match=r"base/d4@1.*lacks b.*unknown c.*has a \(2, 4\) instead of \(2, 2\)"):
        check_names({"a": (2, 4), "c": (1,)}, expected, "base/d4@1")
