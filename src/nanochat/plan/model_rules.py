"""The rows of a plan that describe the network: its shape, its parameters by group, the FLOPs of a token."""

from nanochat.config.model import ModelConfig
from nanochat.plan.dims import ModelDims, ParamCounts, flops_by_group
from nanochat.plan.facts import Facts
from nanochat.plan.rule import Rule


def model_rules(model: ModelConfig, facts: Facts, dims: ModelDims, counts: ParamCounts, flops: int) -> list[Rule]:
    """Shape, windows, parameters and FLOPs, each with its rule; what the network does not have has no row."""
    return [*_shape(model, facts, dims), *_windows(dims), *_parameters(dims, counts), *_flops(dims, counts, flops)]


def _shape(model: ModelConfig, facts: Facts, dims: ModelDims) -> list[Rule]:
    if facts.dims is not None:
        layers = width = heads = kv = f"of {facts.init_from}"
    else:
        layers = "model.depth" if model.n_layer is None else "model.n_layer"
        rounded = f", up to a multiple of {model.head_dim}" if model.round_width else ""
        width = f"{model.aspect_ratio} * depth{rounded}" if model.n_embd is None else "model.n_embd"
        heads = f"ceil(width / {model.head_dim})" if model.n_head is None else "model.n_head"
        kv = f"heads / gqa_ratio {model.gqa_ratio}" if model.n_kv_head is None else "model.n_kv_head"
    spare = dims.table_rows - dims.vocab_size
    padded = Rule("table rows", dims.table_rows, f"vocabulary, up to a multiple of {dims.vocab_multiple}")
    return [
        Rule("layers", dims.n_layer, layers),
        Rule("width", dims.n_embd, width),
        Rule("heads", dims.n_head, heads),
        Rule("key/value heads", dims.n_kv_head, kv),
        Rule("head dimension", dims.head_dim, "width / heads"),
        Rule("context", dims.seq_len, "model.max_seq_len"),
        Rule("vocabulary", dims.vocab_size, facts.vocab_source),
        *([padded] if spare else []),
    ]


def _windows(dims: ModelDims) -> list[Rule]:
    if dims.window_pattern is None:
        return []
    short = sum(window is not None for window in dims.windows)
    return [
        Rule("short window", dims.short_window, "context / 4, up to a multiple of 128"),
        Rule("layers of short windows", short, f"S of {dims.window_pattern}, the last layer sees all"),
    ]


def _parameters(dims: ModelDims, counts: ParamCounts) -> list[Rule]:
    table = "vocabulary * width" if dims.table_rows == dims.vocab_size else "table rows * width"
    parts = {
        "embedding": (counts.embedding, table),
        "value embeddings": (counts.value_embeddings, f"{len(dims.value_layers)} layers * rows * key/value width"),
        "head": (counts.unembedding, table),
        "matrices": (counts.matrices, "attention and MLP of all layers" + (", gates" if dims.value_embeds else "")),
        "scalars": (counts.scalars, "two a layer, smear, backout, as far as they are on"),
        "smear gate": (counts.smear_gate, "leading channels of the embedding"),
    }
    summed = " + ".join(name for name, (number, _) in parts.items() if number)
    rows = [Rule(f"parameters, {name}", number, rule) for name, (number, rule) in parts.items() if number]
    return [Rule("parameters", counts.total, summed), *rows]


def _flops(dims: ModelDims, counts: ParamCounts, flops: int) -> list[Rule]:
    if dims.window_pattern is None and counts.total - counts.embedding == counts.scaling:
        said = "6 * (parameters - embedding) + 12 * layers * width * context"
    else:
        said = "6 * (head, matrices, smear gate) + 12 * width * sum over layers of min(window, context)"
    parts = [(name, number) for name, number in flops_by_group(dims).items() if number]
    rows = [Rule(f"FLOPs per token, {name}", number, f"{number / flops:.1%} of them") for name, number in parts]
    return [Rule("FLOPs per token", flops, said), *rows]
