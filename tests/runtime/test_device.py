from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch

from nanochat.config.runtime import AttentionBackend, ComputeDtype, Device, RuntimeConfig
from nanochat.errors import ConfigError
from nanochat.runtime.device import detect, set_threads

AUTO = RuntimeConfig(
    device=Device.auto,
    dtype=ComputeDtype.auto,
    compile=None,
    attention=AttentionBackend.auto,
    fp8=False,
    activation_checkpointing=False,
    recompute_cheap=None,
    fused_kernels=None,
    num_threads=None,
    gpu_memory=None,
)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("without_gpu")
def test_without_a_gpu() -> None:
    machine = detect(AUTO)
    assert (machine.device, machine.dtype, machine.compile, machine.peak_flops) == ("cpu", "float32", False, None)
    assert detect(replace(AUTO, dtype=ComputeDtype.bfloat16, compile=True)).compile
    with pytest.raises(ConfigError, match="runtime.device=cuda is not on this machine; it has cpu"):
        detect(replace(AUTO, device=Device.cuda))


@dataclass(frozen=True)
class Properties:
    """What torch says about a GPU."""

    name: str
    total_memory: int
    major: int
    minor: int


@pytest.fixture
def put_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a GPU into this machine."""

    def put(name: str, major: int, minor: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        properties = Properties(name, 85 * 10**9, major, minor)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)

    return put


def test_with_a_gpu(put_in: Callable[..., None]) -> None:
    put_in("NVIDIA H100 80GB HBM3", 9, 0)
    machine = detect(AUTO)
    assert (machine.device, machine.dtype, machine.compile) == ("cuda", "bfloat16", True)
    assert machine.peak_flops == 989e12 and machine.memory == 85 * 10**9
    assert detect(replace(AUTO, device=Device.cpu)).device == "cpu"


def test_an_old_gpu_computes_in_float16(put_in: Callable[..., None]) -> None:
    put_in("Tesla T4", 7, 5)
    assert detect(AUTO).dtype == "float16"
    assert detect(replace(AUTO, dtype=ComputeDtype.float32)).dtype == "float32"
    put_in("NVIDIA A100-SXM4-40GB", 8, 0)
    assert detect(AUTO).dtype == "bfloat16"


def test_fp8_where_it_is_there(put_in: Callable[..., None]) -> None:
    fp8 = replace(AUTO, fp8=True)
    put_in("NVIDIA GeForce RTX 4090", 8, 9)
    assert detect(fp8).dtype == "bfloat16"
    with pytest.raises(ConfigError, match="runtime.dtype is float16; take runtime.dtype=bfloat16"):
        detect(replace(fp8, dtype=ComputeDtype.float16))
    put_in("NVIDIA A100-SXM4-40GB", 8, 0)
    with pytest.raises(ConfigError, match="runtime.fp8=true needs .* 8.9 .* A100-SXM4-40GB; take runtime.fp8=false"):
        detect(fp8)
    with pytest.raises(ConfigError, match="this run is on cpu"):
        detect(replace(fp8, device=Device.cpu))


def test_mps_is_float32_and_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    machine = detect(AUTO)
    assert (machine.device, machine.dtype, machine.compile, machine.memory) == ("mps", "float32", False, None)


def test_threads() -> None:
    before = torch.get_num_threads()
    set_threads(replace(AUTO, num_threads=before + 1))
    assert torch.get_num_threads() == before + 1
    set_threads(AUTO)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)
