"""How many steps: the first that is set of iterations, FLOPs, tokens per parameter, epochs."""

from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError
from nanochat.plan.batch import Batch, param_base
from nanochat.plan.dims import ModelDims, flops_per_token
from nanochat.plan.facts import Facts


def derive_steps(config: RunConfig, dims: ModelDims, batch: Batch, facts: Facts) -> tuple[int, str]:
    """Optimizer steps of the run, at least 1, and the rule that gave them. Raises ConfigError if nothing is set."""
    train = config.train
    if train.num_iterations is not None:
        return train.num_iterations, "train.num_iterations"
    if train.target_flops is not None:
        per_token = flops_per_token(dims)
        steps = round(train.target_flops / (per_token * batch.tokens))
        shown = f"{train.target_flops:.3g} / ({per_token:.3g} * {batch.tokens:,})"
        rule = f"target_flops / (FLOPs per token * batch) = {shown}"
        return _at_least_one(steps, "train.target_flops", train.target_flops, batch, per_token * batch.tokens), rule
    if train.target_param_data_ratio is not None:
        base = param_base(train, dims)
        steps = int(train.target_param_data_ratio * base // batch.tokens)
        rule = f"ratio * parameters / batch = {train.target_param_data_ratio:g} * {base:,} / {batch.tokens:,}"
        least = batch.tokens / base
        return _at_least_one(steps, "train.target_param_data_ratio", train.target_param_data_ratio, batch, least), rule
    if train.num_epochs is not None:
        return _epoch_steps(train.num_epochs, dims, batch, facts)
    raise ConfigError(
        "no horizon: set one of train.num_iterations, train.target_flops, train.target_param_data_ratio and "
        "train.num_epochs"
    )


def _at_least_one(steps: int, key: str, value: float, batch: Batch, least: float) -> int:
    """`least`: the value that is one step."""
    if steps < 1:
        raise ConfigError(
            f"{key}={value:g} is less than one step of {batch.tokens:,} tokens, which is {least:.3g}; raise it, or "
            f"lower train.total_batch_size"
        )
    return steps


def _epoch_steps(epochs: int, dims: ModelDims, batch: Batch, facts: Facts) -> tuple[int, str]:
    rows = facts.data_rows
    if rows is None and facts.data_tokens is not None:
        rows = facts.data_tokens // (dims.seq_len + 1)
    if rows is None:
        raise ConfigError(
            f"train.num_epochs={epochs} needs the size of the data, which is not known yet; make the tokenizer first, "
            f"or set train.num_iterations"
        )
    steps = max(1, rows // batch.rows) * epochs
    return (
        steps,
        f"floor(rows / rows a step) * epochs = floor({rows:,} / {batch.rows:,}) * {epochs} ({facts.data_source})",
    )
