"""Large buffers keep their pages: using one again costs no page faults."""

import subprocess
import sys

import pytest

_COUNT_FAULTS = """
import resource, sys
import torch
from nanochat.runtime.malloc import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
def use():
    x = torch.ones(16 << 20)  # 64 MB, above every default threshold
    del x
for _ in range(10):  # until the heap has found its shape
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", _COUNT_FAULTS, mode], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("no glibc here")
    return int(done.stdout)


def test_freed_buffers_are_used_again() -> None:
    assert page_faults("keep") * 10 < page_faults("as it is")
