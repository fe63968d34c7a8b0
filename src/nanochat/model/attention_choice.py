"""Which kernel computes attention: the one asked for by runtime.attention, or the fastest that can do it here.

Notable: layers that see everything and layers with a short window are decided apart, since no kernel is best at both.
The order of `auto` is that of public reports for Hopper (docs/performance.md). What is chosen for a compiled run counts
in its compiled graph; evaluations that call the bare model, at many lengths, take torch's own attention there, which
neither compiles a kernel nor plans one for each length.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from nanochat.errors import ConfigError
from nanochat.model.attention_flash4 import flash4_problem
from nanochat.plan.dims import ModelDims

_HALF = ("bfloat16", "float16")


@dataclass(frozen=True)
class AttentionFacts:
    """What decides. `capability` is that of the GPU, None without one; `flash4` says why it cannot be had, or None."""

    device: str
    dtype: str
    head_dim: int
    compiled: bool
    capability: tuple[int, int] | None = None
    flash4: Callable[[], str | None] = flash4_problem


@dataclass(frozen=True)
class AttentionChoice:
    """Kernels by name for layers that see everything and for short windows; `reason` is for the run's log."""

    full: str = "sdpa"
    short: str = "sdpa"
    compiled: bool = False
    reason: str = ""

    def backend(self, short: bool) -> str:
        """The kernel of a layer, here and now."""
        if self.compiled and not torch.compiler.is_compiling():
            return "sdpa"
        return self.short if short else self.full


def attention_for(asked: str, dims: ModelDims, device: str, dtype: str, compiled: bool) -> AttentionChoice:
    """What runtime.attention means for this network on this machine. Raises ConfigError for what cannot be."""
    capability = torch.cuda.get_device_capability() if device == "cuda" else None
    facts = AttentionFacts(device, dtype, dims.head_dim, compiled, capability)
    documents, windows = dims.document_mask, {window is not None for window in dims.windows}
    chosen = {short: choose_attention(asked, facts, short, documents) for short in windows}
    full, why = chosen[False]
    if True not in chosen or chosen[True] == chosen[False]:
        return AttentionChoice(full, full, compiled, f"{full} ({why})")
    short, short_why = chosen[True]
    reason = f"{full} where a layer sees everything ({why}), {short} for short windows ({short_why})"
    return AttentionChoice(full, short, compiled, reason)


def choose_attention(asked: str, facts: AttentionFacts, window: bool, documents: bool) -> tuple[str, str]:
    """(name, reason) for layers with or without a short window. Raises ConfigError if `asked` cannot do it here."""
    if asked != "auto":
        if (problem := _problem(asked, facts, window, documents)) is None:
            return asked, "asked for"
        able = [name for name in _PROBLEMS if _problem(name, facts, window, documents) is None]
        raise ConfigError(
            f"runtime.attention={asked} cannot be used here: {problem}; take runtime.attention=auto, or one of "
            f"{', '.join(able)}"
        )
    if facts.device != "cuda":
        return "sdpa", f"torch's own, on {facts.device}"
    if facts.dtype not in _HALF:
        return "sdpa", f"torch's own, in {facts.dtype}"
    passed: list[str] = []
    for name in _order(facts, window, documents):
        if (problem := _problem(name, facts, window, documents)) is None:
            return name, "; ".join(["the fastest that can be used", *passed])
        passed.append(f"{name} cannot: {problem}")
    return "sdpa", "; ".join(["torch's own", *passed])


def _order(facts: AttentionFacts, window: bool, documents: bool) -> tuple[str, ...]:
    """Fastest first. Kernels that would have to read a T x T mask are not worth their name."""
    if documents:
        return ("flex",)
    if window:
        return ("flash4", "flex")
    assert facts.capability is not None
    return ("flash4", "cudnn", "flash") if facts.capability >= (9, 0) else ("flash",)


def _problem(name: str, facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    """Why a kernel cannot be used, in words; None if it can."""
    return _PROBLEMS[name](facts, window, documents)


def _half_on_gpu(facts: AttentionFacts, oldest: tuple[int, int], widest: int) -> str | None:
    if (problem := _on_gpu(facts, oldest)) is not None:
        return problem
    if facts.dtype not in _HALF:
        return f"it computes in bfloat16 or float16, and this run in {facts.dtype}"
    if facts.head_dim % 8 or facts.head_dim > widest:
        return f"heads must be a multiple of 8 wide, {widest} at most, and these are {facts.head_dim}"
    return None


def _on_gpu(facts: AttentionFacts, oldest: tuple[int, int] = (0, 0)) -> str | None:
    if facts.device != "cuda" or facts.capability is None:
        return f"it needs device cuda, and this run is on {facts.device}"
    if facts.capability < oldest:
        have, need = (".".join(map(str, version)) for version in (facts.capability, oldest))
        return f"it needs a GPU of compute capability {need}, and this one has {have}"
    return None


def _flash4(facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    if documents:
        return "it has no document mask (model.document_mask=true)"
    if (problem := _half_on_gpu(facts, (9, 0), 128)) is not None:
        return problem
    if facts.capability is not None and facts.capability[0] > 10:
        return f"it is for Hopper and Blackwell GPUs, 9.x and 10.x, and this one has {facts.capability[0]}.x"
    if (problem := facts.flash4()) is not None:
        return f"{problem} (pip install 'nanochat[flash]')"
    return None


def _flex(facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    if (problem := _on_gpu(facts, (8, 0))) is not None:
        return problem
    if facts.head_dim < 16:
        return f"heads must be 16 wide at least, and these are {facts.head_dim}"
    return None if facts.compiled else "it is a kernel only in a compiled run (runtime.compile=true)"


def _cudnn(facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    return _half_on_gpu(facts, (8, 0), 128)


def _flash(facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    if window or documents:
        return f"it has no {'document mask' if documents else 'window'}"
    return _half_on_gpu(facts, (8, 0), 256)


def _efficient(facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    return _on_gpu(facts)


def _always(facts: AttentionFacts, window: bool, documents: bool) -> str | None:
    return None


_PROBLEMS: dict[str, Callable[[AttentionFacts, bool, bool], str | None]] = {
    "flash4": _flash4,
    "flex": _flex,
    "cudnn": _cudnn,
    "flash": _flash,
    "efficient": _efficient,
    "sdpa": _always,
    "plain": _always,
}
