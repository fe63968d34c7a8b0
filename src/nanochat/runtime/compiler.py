"""What torch.compile needs before it can begin: seconds of imports, and worker processes that import as much."""

from contextlib import suppress
from importlib import import_module
from typing import Any


def prepare_compiler() -> None:
    """Starts the workers and imports the rest now, while something else is computed.

    Else the first call would do it, and compile the first kernels itself, one by one, until its workers are there.
    """
    with suppress(ImportError, AttributeError):  # not torch's public names: another version may have others
        import_module("torch._inductor.async_compile").maybe_warm_pool()
    with suppress(ImportError, AttributeError):
        import_module("torch._dynamo")
        import_module("torch._inductor.compile_fx")
        # Or a network with an autograd function (model/head.py) would be traced anew by each process, although all that
        # follows from the trace is kept on disk. What it is asked to trust: that such functions have no side effects.
        config: Any = import_module("torch._functorch.config")
        config.autograd_cache_allow_custom_autograd_functions = True
