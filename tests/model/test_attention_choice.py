"""Which kernel is taken where, what is said of it, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from nanochat.config.runtime import AttentionBackend
from nanochat.errors import ConfigError
from nanochat.model.attention_backends import _BACKENDS
from nanochat.model.attention_choice import _PROBLEMS, AttentionFacts, attention_for, choose_attention
from nanochat.plan.dims import ModelDims

CPU = AttentionFacts("cpu", "float32", 128, compiled=False)
H100 = AttentionFacts("cuda", "bfloat16", 128, compiled=True, capability=(9, 0), flash4=lambda: None)
BARE = replace(H100, flash4=lambda: "the package flash-attn-4 is not installed")
A100 = replace(BARE, capability=(8, 0))
T4 = replace(BARE, capability=(7, 5), dtype="float16")
B200 = replace(H100, capability=(10, 0))
RTX5090 = replace(H100, capability=(12, 0))


@pytest.mark.parametrize(
    ("facts", "plain", "window", "documents"),
    [
        (H100, "flash4", "flash4", "flex"),
        (B200, "flash4", "flash4", "flex"),
        (BARE, "cudnn", "flex", "flex"),
        (RTX5090, "cudnn", "flex", "flex"),
        (A100, "flash", "flex", "flex"),
        (replace(H100, compiled=False), "flash4", "flash4", "sdpa"),
        (replace(BARE, compiled=False), "cudnn", "sdpa", "sdpa"),
        (replace(H100, head_dim=256), "flash", "flex", "flex"),
        (replace(H100, head_dim=12), "sdpa", "sdpa", "sdpa"),
        (replace(H100, dtype="float32"), "sdpa", "sdpa", "sdpa"),
        (T4, "sdpa", "sdpa", "sdpa"),
        (CPU, "sdpa", "sdpa", "sdpa"),
        (replace(CPU, device="mps"), "sdpa", "sdpa", "sdpa"),
    ],
)
def test_auto(facts: AttentionFacts, plain: str, window: str, documents: str) -> None:
    cases = {(False, False): plain, (True, False): window, (False, True): documents, (True, True): documents}
    for (short, masked), wanted in cases.items():
        name, reason = choose_attention("auto", facts, short, masked)
        assert name == wanted and reason
        assert choose_attention(name, facts, short, masked) == (name, "asked for")  # what auto takes can be asked for


def test_the_reason_says_what_was_passed_over() -> None:
    assert choose_attention("auto", CPU, False, False)[1] == "torch's own, on cpu"
    assert choose_attention("auto", replace(H100, dtype="float32"), True, False)[1] == "torch's own, in float32"
    assert choose_attention("auto", H100, True, False)[1] == "the fastest that can be used"
    reason = choose_attention("auto", BARE, True, False)[1]
    assert reason.startswith("the fastest that can be used; flash4 cannot: the package flash-attn-4 is not installed")
    assert (
        "flex cannot: it needs a GPU of compute capability 8.0, and this one has 7.5"
        in (choose_attention("auto", T4, True, False)[1])
    )


@pytest.mark.parametrize(
    ("asked", "facts", "window", "documents", "said"),
    [
        ("flash4", H100, False, True, "it has no document mask (model.document_mask=true)"),
        ("flash4", BARE, True, False, "flash-attn-4 is not installed (pip install 'nanochat[flash]')"),
        ("flash4", A100, False, False, "compute capability 9.0, and this one has 8.0"),
        ("flash4", RTX5090, False, False, "for Hopper and Blackwell GPUs, 9.x and 10.x, and this one has 12.x"),
        ("flash4", replace(H100, dtype="float32"), False, False, "in bfloat16 or float16, and this run in float32"),
        ("flash4", replace(H100, head_dim=160), False, False, "128 at most, and these are 160"),
        ("flex", replace(H100, compiled=False), True, False, "only in a compiled run (runtime.compile=true)"),
        ("flex", replace(H100, head_dim=8), True, False, "16 wide at least, and these are 8"),
        ("flash", H100, True, False, "it has no window"),
        ("flash", H100, True, True, "it has no document mask"),
        ("flash", replace(H100, head_dim=20), False, False, "a multiple of 8 wide, 256 at most, and these are 20"),
        ("cudnn", T4, False, False, "compute capability 8.0, and this one has 7.5"),
        *((name, CPU, False, False, "it needs device cuda, and this run is on cpu") for name in list(_PROBLEMS)[:5]),
    ],
)
def test_what_cannot_be_is_refused(asked: str, facts: AttentionFacts, window: bool, documents: bool, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_attention(asked, facts, window, documents)
    message = str(caught.value)
    assert message.startswith(f"runtime.attention={asked} cannot be used here: ") and said in message
    able = message.rpartition("or one of ")[2].split(", ")
    assert able[-2:] == ["sdpa", "plain"] and asked not in able
    for name in able:
        choose_attention(name, facts, window, documents)


def test_every_word_has_a_kernel() -> None:
    assert set(_BACKENDS) == set(_PROBLEMS) == {str(word) for word in AttentionBackend} - {"auto"}


def test_layers_are_decided_apart(make_dims: Callable[..., ModelDims], monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel is best at both kinds; what is asked for must do both."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setitem(__import__("sys").modules, "flash_attn", None)
    wide = {"head_dim": 64, "n_embd": 256}
    windows = make_dims(window_pattern="SSSL", n_layer=5, **wide)
    chosen = attention_for("auto", windows, "cuda", "bfloat16", compiled=True)
    assert (chosen.full, chosen.short, chosen.compiled) == ("cudnn", "flex", True)
    assert chosen.reason.startswith("cudnn where a layer sees everything (the fastest that can be used; flash4 cannot:")
    assert ", flex for short windows (" in chosen.reason
    plain = attention_for("auto", make_dims(**wide), "cuda", "bfloat16", compiled=True)
    assert (plain.full, plain.short) == ("cudnn", "cudnn") and plain.reason.startswith("cudnn (the fastest")
    with pytest.raises(ConfigError, match="it has no window"):
        attention_for("flash", windows, "cuda", "bfloat16", compiled=True)
    assert attention_for("flash", make_dims(**wide), "cuda", "bfloat16", compiled=True).full == "flash"
    assert attention_for("plain", windows, "cpu", "float32", compiled=False).reason == "plain (asked for)"
