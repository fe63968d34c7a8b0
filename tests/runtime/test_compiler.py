"""What is prepared of torch.compile: that torch still has the names, which are not its public ones."""

import sys
from collections.abc import Callable

import pytest
import torch._functorch.config as functorch_config
import torch._inductor.async_compile as async_compile

from nanochat.runtime.compiler import prepare_compiler


def test_torch_has_what_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[bool] = []
    monkeypatch.setattr(async_compile, "maybe_warm_pool", lambda: warmed.append(True))
    monkeypatch.setattr(functorch_config, "autograd_cache_allow_custom_autograd_functions", False)
    prepare_compiler()
    assert warmed and functorch_config.autograd_cache_allow_custom_autograd_functions
    assert {"torch._dynamo", "torch._inductor.compile_fx"} <= set(sys.modules)


@pytest.mark.parametrize("error", [ImportError, AttributeError])
def test_a_torch_without_them_prepares_later(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def refuse(name: str) -> Callable[..., None]:
        raise error(name)

    monkeypatch.setattr("nanochat.runtime.compiler.import_module", refuse)
    prepare_compiler()
