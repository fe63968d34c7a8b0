"""The rows of a plan about memory, and what is said where a run cannot fit.

Without a GPU in sight the prediction is for one: bfloat16 and compiled, whatever this machine would do.
"""

from dataclasses import replace
from typing import NamedTuple

from nanochat.config.optim import AdamWConfig
from nanochat.config.root import RunConfig
from nanochat.plan.dims import ModelDims
from nanochat.plan.facts import Facts
from nanochat.plan.memory import CONTEXT, GPUS, SPARE, WRONG, Training, fits, most_rows, predict
from nanochat.plan.rule import Rule

_RULES = {
    "weights": "tables in bfloat16 where that is computed in, all else in fp32",
    "optimizer": "momentum, and both moments where AdamW is",
    "gradients": "that outlast a micro-batch: none where a step is one",
    "kept": "of the forward pass for the backward pass",
    "work": "at the largest moment: head, a block's gradients, all new gradients, or the update",
}
_LEFT = f"{SPARE:.0%} and {CONTEXT / 1e9:.0f} GB are left to others"
_WHAT = {"nothing": "nothing", "cheap": "what is cheap", "blocks": "whole blocks"}


def how_trained(config: RunConfig, facts: Facts, rows: int, several: bool) -> Training:
    """What the prediction needs to know of the run; where nothing is asked for, with the least memory that may be.

    That is what the size of a micro-batch is chosen by; what is then recomputed, `choose_recompute` says.
    """
    on_gpu = facts.device == "cuda"
    compiled = facts.compile if on_gpu else True
    dtype = facts.dtype if on_gpu else "bfloat16"
    return Training(
        rows=rows,
        several=several,
        dtype=dtype,
        compile=compiled,
        recompute=_asked(config) or _usual(compiled),
        muon=not isinstance(config.optim, AdamWConfig),
        # By themselves small tensors are not for fused kernels; nor is their memory of interest.
        fused=compiled and dtype != "float16" and config.runtime.fused_kernels is not False,
        fp8=config.runtime.fp8,
    )


def _asked(config: RunConfig) -> str | None:
    """What the keys of runtime say is recomputed, None where they leave it to the plan."""
    runtime = config.runtime
    if runtime.activation_checkpointing:
        return "blocks"
    if runtime.recompute_cheap is None:
        return None
    return "cheap" if runtime.recompute_cheap else "nothing"


def _usual(compiled: bool) -> str:
    """Where no memory is known to decide by: recomputation costs little only where it is fused with what needs it."""
    return "cheap" if compiled else "nothing"


class Recompute(NamedTuple):
    """What is recomputed: as `how` is predicted (for a GPU, where there is none) and as this machine trains."""

    how: Training
    cheap_here: bool
    rule: Rule


def choose_recompute(config: RunConfig, dims: ModelDims, how: Training, facts: Facts) -> Recompute:
    """What is asked for; else nothing, if all that is then kept fits into the GPU, and what is cheap if not."""
    name, asked = "recompute", _asked(config)
    if asked is not None:
        key = "activation_checkpointing" if asked == "blocks" else "recompute_cheap"
        return Recompute(how, bool(config.runtime.recompute_cheap), Rule(name, asked, f"runtime.{key}"))
    if facts.device != "cuda" or facts.device_memory is None or not how.compile:
        said = "what is cheap where compiled, else nothing; a GPU's memory would decide"
        return Recompute(how, _usual(facts.compile) == "cheap", Rule(name, how.recompute, said))
    all_kept = replace(how, recompute="nothing")
    need = f"{predict(dims, all_kept).peak / 1e9:.0f} of {facts.device_memory / 1e9:.0f} GB"
    if fits(dims, all_kept, facts.device_memory):
        return Recompute(all_kept, False, Rule(name, "nothing", f"keeping everything takes {need}"))
    said = f"nothing would need {need}, of which {_LEFT}"
    return Recompute(how, how.recompute == "cheap", Rule(name, how.recompute, said))


def memory_rules(dims: ModelDims, how: Training, lean: Training, facts: Facts, most: int) -> list[Rule]:
    """The predicted peak by part, and the largest micro-batch of this GPU, or of the usual ones, trained as `lean`."""
    memory = predict(dims, how)
    where = "" if facts.device == "cuda" else f", on a GPU in {how.dtype}, compiled"
    rows = [Rule("memory", _size(memory.peak), f"sum of the parts at {how.rows} rows a micro-batch{where}")]
    rows += [Rule(f"memory, {name}", _size(getattr(memory, name)), rule) for name, rule in _RULES.items()]
    sizes = [facts.device_memory] if facts.device_memory is not None else [size * 10**9 for size in GPUS]
    said = f"most of {most} rows in equal micro-batches, recomputing {_WHAT[lean.recompute]}; {_LEFT}"
    rows += [
        Rule(f"rows that {size / 1e9:.0f} GB hold", most_rows(dims, lean, size, most) or "none", said) for size in sizes
    ]
    return rows


class Misfit(NamedTuple):
    """What does not fit, and what would. `certain`: no error of the prediction is so large."""

    said: str
    certain: bool


def misfit(dims: ModelDims, how: Training, facts: Facts, most: int) -> Misfit | None:
    """None where the run fits on its GPU, or where there is none to judge by.

    Without the compiler the prediction is rougher, and never certain.
    """
    if facts.device != "cuda" or facts.device_memory is None or fits(dims, how, facts.device_memory):
        return None
    need = predict(dims, how).peak
    said = (
        f"train.device_batch_size={how.rows} needs about {_size(need)} of memory, and the device has "
        f"{_size(facts.device_memory)}; {_what_fits(dims, how, facts.device_memory, most)}"
    )
    return Misfit(said, need > facts.device_memory * WRONG and how.compile)


def _what_fits(dims: ModelDims, how: Training, device_memory: int, most: int) -> str:
    rows = most_rows(dims, how, device_memory, most)
    if rows:
        return f"train.device_batch_size={rows} fits (the same steps, in more pieces)"
    lean = replace(how, recompute="blocks")
    rows = 0 if how.recompute == "blocks" else most_rows(dims, lean, device_memory, most)
    if rows:
        return f"runtime.activation_checkpointing=true with train.device_batch_size={rows} fits"
    return "not one row fits; take a smaller model.max_seq_len or model.depth"


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**8 else f"{count / 1e6:.1f} MB"
