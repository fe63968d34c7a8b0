from dataclasses import replace

import pytest
import torch

from nanochat.config.runtime import ComputeDtype, Device, RuntimeConfig
from nanochat.errors import ConfigError
from nanochat.runtime.device import detect, set_threads

AUTO = RuntimeConfig(
    device=Device.auto, dtype=ComputeDtype.auto, compile=None, activation_checkpointing=False, num_threads=None
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


def test_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name = "NVIDIA H100 80GB HBM3"
        total_memory = 85 * 10**9

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties())
    machine = detect(AUTO)
    assert (machine.device, machine.dtype, machine.compile) == ("cuda", "bfloat16", True)
    assert machine.peak_flops == 989e12 and machine.memory == 85 * 10**9
    assert detect(replace(AUTO, device=Device.cpu)).device == "cpu"


def test_threads() -> None:
    before = torch.get_num_threads()
    set_threads(replace(AUTO, num_threads=before + 1))
    assert torch.get_num_threads() == before + 1
    set_threads(AUTO)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)
