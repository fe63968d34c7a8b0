"""Rows of a step, their split into micro-batches, and how rates scale with the batch."""

import math
from dataclasses import dataclass, replace

from nanochat.config.root import RunConfig
from nanochat.config.train import ParamCount, TrainConfig
from nanochat.errors import ConfigError
from nanochat.plan.dims import ModelDims, count_params, derive_dims, flops_per_token
from nanochat.plan.facts import Facts
from nanochat.plan.memory import most_rows
from nanochat.plan.memory_rules import how_trained

REFERENCE_BATCH = 2**19  # tokens; the batch that the learning rates were tuned at
REFERENCE_DEPTH = 12  # the depth whose horizon has that batch
BATCH_EXPONENT = 0.383  # growth of the best batch with the horizon, from the newest published system of this family
CPU_TOKENS = 8192  # tokens of a CPU micro-batch where device_batch_size=auto


@dataclass(frozen=True)
class Batch:
    """Rows and tokens of a step over all ranks, and the micro-batches of the busiest rank."""

    rows: int
    tokens: int
    device_rows: int
    accumulation: int
    rule: str
    device_rule: str


def param_base(train: TrainConfig, dims: ModelDims) -> int:
    """The parameters that target_param_data_ratio multiplies."""
    counts = count_params(dims)
    return counts.scaling if train.param_count == ParamCount.scaling else counts.total


def horizon_tokens(train: TrainConfig, dims: ModelDims) -> float | None:
    """Training tokens where FLOPs or the data ratio decide them, else None."""
    if train.target_flops is not None:
        return train.target_flops / flops_per_token(dims)
    if train.target_param_data_ratio is not None:
        return train.target_param_data_ratio * param_base(train, dims)
    return None


def reference_tokens(config: RunConfig, vocab_size: int) -> float:
    """Horizon of the reference depth at the same ratio, the D_ref of the scaling rules."""
    model = replace(config.model, n_layer=None, n_head=None, n_kv_head=None, n_embd=None)
    # Legal whatever the ratios of the run's own model are: a width of whole heads, each with its keys and values.
    dims = derive_dims(replace(model, depth=REFERENCE_DEPTH, round_width=True, gqa_ratio=1), vocab_size)
    return (config.train.target_param_data_ratio or 20.0) * count_params(dims).scaling


def _auto_tokens(config: RunConfig, dims: ModelDims) -> tuple[int, str]:
    tokens = horizon_tokens(config.train, dims)
    if tokens is None:
        raise ConfigError(
            "train.total_batch_size=auto follows from the horizon in tokens; set train.target_param_data_ratio or "
            "train.target_flops, or give train.total_batch_size as a number of tokens"
        )
    ideal = REFERENCE_BATCH * (tokens / reference_tokens(config, dims.vocab_size)) ** BATCH_EXPONENT
    power = 2 ** round(math.log2(ideal))
    batch = max(dims.seq_len, power // dims.seq_len * dims.seq_len)
    return (
        batch,
        f"2^19 * (tokens / tokens of d{REFERENCE_DEPTH})^{BATCH_EXPONENT} = {ideal:,.0f}, nearest power of two",
    )


def _batch_rows(config: RunConfig, dims: ModelDims) -> tuple[int, str]:
    train, T = config.train, dims.seq_len
    size = train.total_batch_size
    if size is None:
        if train.target_examples_per_step is None:
            raise ConfigError(
                "train.total_batch_size and train.target_examples_per_step are both null; set one of them"
            )
        return train.target_examples_per_step, "train.target_examples_per_step"
    if size == "auto":
        tokens, rule = _auto_tokens(config, dims)
        return tokens // T, rule
    assert isinstance(size, int)
    if size % T:
        below, above = size // T * T, (size // T + 1) * T
        legal = f"{below} or {above}" if below else str(above)
        raise ConfigError(
            f"train.total_batch_size={size} tokens is not a multiple of model.max_seq_len={T}; nearest legal: {legal}"
        )
    return size // T, f"train.total_batch_size / max_seq_len = {size:,} / {T:,}"


def _device_rows(config: RunConfig, dims: ModelDims, facts: Facts, most: int) -> tuple[int, str]:
    asked = config.train.device_batch_size
    if isinstance(asked, int):
        return min(
            asked, most
        ), "train.device_batch_size" if asked <= most else f"all {most} rows of the rank fit in one"
    if facts.device_memory is None:
        rows, rule = max(1, CPU_TOKENS // dims.seq_len), f"auto without a GPU: {CPU_TOKENS} tokens"
    else:
        how = how_trained(config, facts, rows=1, several=True)
        rows = max(1, most_rows(dims, how, facts.device_memory, most))  # where not even one fits, make_plan says so
        rule = f"auto: the most that {facts.device_memory / 1e9:.0f} GB of device memory hold"
    return min(rows, most), rule


def derive_batch(config: RunConfig, dims: ModelDims, facts: Facts) -> Batch:
    """Rows a step and micro-batches a rank. Raises ConfigError naming the nearest legal sizes."""
    rows, rule = _batch_rows(config, dims)
    per_rank = -(-rows // facts.world_size)
    device_rows, device_rule = _device_rows(config, dims, facts, per_rank)
    return Batch(
        rows=rows,
        tokens=rows * dims.seq_len,
        device_rows=device_rows,
        accumulation=-(-per_rank // device_rows),
        rule=rule,
        device_rule=device_rule,
    )


def default_lanes(rows: int, most: int = 64) -> int:
    """The largest power of two up to `most` that divides the rows of a step."""
    lanes = 1
    while lanes * 2 <= most and rows % (lanes * 2) == 0:
        lanes *= 2
    return lanes
