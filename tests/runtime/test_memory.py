import pytest
import torch

from nanochat.errors import NanochatError
from nanochat.runtime.memory import explain_out_of_memory, is_out_of_memory


def test_the_real_error_of_the_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_the_message_names_what_to_try(error: Exception) -> None:
    with pytest.raises(NanochatError) as caught, explain_out_of_memory(32, 2048, "H100", False):
        raise error
    text = str(caught.value)
    assert "on H100: train.device_batch_size=32 rows of 2,048 tokens do not fit" in text
    assert "train.device_batch_size=16 or 8 or 4" in text and "runtime.activation_checkpointing=true" in text


def test_one_row_has_no_half() -> None:
    with pytest.raises(NanochatError) as caught, explain_out_of_memory(1, 2048, "cpu", True):
        raise MemoryError
    text = str(caught.value)
    assert "train.device_batch_size=0" not in text and "activation_checkpointing" not in text
    assert "smaller model.max_seq_len or model.depth" in text


def test_what_is_cheap_to_try_comes_first() -> None:
    said = "try runtime.recompute_cheap=true, or train.device_batch_size=16"
    with pytest.raises(NanochatError, match=said), explain_out_of_memory(32, 2048, "H100", False, cheap=False):
        raise MemoryError


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"), explain_out_of_memory(1, 1, "cpu", False):
        raise RuntimeError("size mismatch")
    with pytest.raises(KeyError), explain_out_of_memory(1, 1, "cpu", False):
        raise KeyError("x")
