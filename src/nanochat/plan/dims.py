"""The network's dimensions, derived from the one dial `depth`, and what follows from them.

Notable: the width is aspect_ratio * depth and the number of heads follows from the width, so a width
that the heads cannot share is an error that names the depths that work, unless `round_width` is set.
Fields with a default came later than the first checkpoints; the default is what the network was before.
`bos_id` is the token that starts a document, known only where `document_mask` needs it.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from nanochat.config.model import ModelConfig
from nanochat.errors import ConfigError

VALUE_GATE_WIDTH = 12  # leading channels of a block's normed input that gate its value embedding
SMEAR_GATE_WIDTH = 24  # leading channels of the embedding that gate the smear
_SHORT_MULTIPLE = 128  # short windows are whole tiles of the attention kernels
_DOCUMENTS = {"document_mask", "bos_id"}  # fields that came together, after those of model=modern


@dataclass(frozen=True)
class ModelDims:
    """Everything the network is built from. Saved as model.yaml beside every checkpoint."""

    n_layer: int
    n_embd: int
    n_head: int
    n_kv_head: int
    head_dim: int
    vocab_size: int
    seq_len: int
    rope_base: float
    rope_dtype: str
    norm_eps: float
    logit_softcap: float
    vocab_multiple: int = 1
    qk_scale: float = 1.0
    window_pattern: str | None = None
    value_embeds: bool = False
    residual_scalars: bool = False
    smear: bool = False
    backout: bool = False
    init: str = "gpt"
    document_mask: bool = False
    bos_id: int | None = None

    @property
    def table_rows(self) -> int:
        """Rows of the embedding and the head: the vocabulary, rounded up to a multiple of vocab_multiple."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def short_window(self) -> int:
        """How far back a query looks on a short layer: a quarter of the context, rounded up to a multiple of 128."""
        return -(-self.seq_len // (4 * _SHORT_MULTIPLE)) * _SHORT_MULTIPLE

    @property
    def windows(self) -> tuple[int | None, ...]:
        """For each layer: the query at i sees keys i - window .. i; None: all. The last layer always sees all."""
        pattern = self.window_pattern or "L"
        letters = [pattern[i % len(pattern)] for i in range(self.n_layer - 1)]
        return (*(self.short_window if letter == "S" else None for letter in letters), None)

    @property
    def value_layers(self) -> tuple[int, ...]:
        """Layers with a value embedding: every other one, the last included."""
        return tuple(range((self.n_layer - 1) % 2, self.n_layer, 2)) if self.value_embeds else ()


def changed_fields(record: Any) -> dict[str, Any]:
    """The fields of a dataclass that have no default, and the others where they differ from it.

    So a field that is added, off, changes neither what an older run is nor the hash of it.
    """
    kept = {field.name for field in fields(record) if field.default is MISSING}
    kept |= {field.name for field in fields(record) if getattr(record, field.name) != field.default}
    return {name: value for name, value in asdict(record).items() if name in kept}


def dims_from(saved: Mapping[str, Any]) -> tuple[ModelDims | None, list[str], list[str]]:
    """(dimensions, names that are missing, names that nothing here reads) of a saved model.yaml.

    The fields with a default may be missing all together, as in a file that is older than them; those of documents
    came last. A file that has some of them has lost the others: a network without its windows would answer wrongly.
    """
    known = {field.name for field in fields(ModelDims)}
    later = {field.name for field in fields(ModelDims) if field.default is not MISSING}
    needed = known - later
    needed |= later - _DOCUMENTS if (later - {"bos_id"}) & saved.keys() else set()
    needed |= _DOCUMENTS if any(saved.get(name) not in (None, False) for name in _DOCUMENTS) else set()
    missing, foreign = sorted(needed - saved.keys()), sorted(saved.keys() - known)
    return (None if missing or foreign else ModelDims(**saved)), missing, foreign


@dataclass(frozen=True)
class ParamCounts:
    """Number of parameters by group. Matrices are those of the blocks, value gates included."""

    embedding: int
    unembedding: int
    matrices: int
    value_embeddings: int = 0
    scalars: int = 0
    smear_gate: int = 0

    @property
    def total(self) -> int:
        """All parameters."""
        tables = self.embedding + self.value_embeddings + self.unembedding
        return tables + self.matrices + self.scalars + self.smear_gate

    @property
    def scaling(self) -> int:
        """What horizons and batch sizes scale with: the matrices of the blocks and lm_head."""
        return self.unembedding + self.matrices


def _heads_for(width: int, head_dim: int) -> int:
    return max(1, -(-width // head_dim))


def _width_for(depth: int, model: ModelConfig) -> int:
    width = depth * model.aspect_ratio
    if model.round_width:
        width = -(-width // model.head_dim) * model.head_dim
    return width


def _divides(width: int, heads: int) -> bool:
    return width % heads == 0 and (width // heads) % 2 == 0


def _check_width(model: ModelConfig, width: int, heads: int) -> None:
    """D must divide into H heads of even size, else an error naming the nearest legal depths."""
    if _divides(width, heads):
        return
    if model.n_embd is not None or model.n_head is not None:
        legal = [h for h in range(1, width + 1) if _divides(width, h)]
        near = sorted(sorted(legal, key=lambda h: abs(h - heads))[:4])
        raise ConfigError(
            f"model.n_embd={width} does not divide into model.n_head={heads} heads of even size; "
            f"heads that work for this width: {', '.join(map(str, near)) or 'none, take an even width'}"
        )
    if model.round_width:
        raise ConfigError(f"model.head_dim={model.head_dim} must be even, since rotary positions pair its halves")
    legal_depths = [
        d
        for d in range(max(1, model.depth - 16), model.depth + 17)
        if _divides(d * model.aspect_ratio, _heads_for(d * model.aspect_ratio, model.head_dim))
    ]
    near = sorted(sorted(legal_depths, key=lambda d: abs(d - model.depth))[:4])
    raise ConfigError(
        f"model.depth={model.depth} gives a width of {width}, which does not divide into {heads} heads of "
        f"model.head_dim={model.head_dim} at most; nearest legal depths: {', '.join(map(str, near)) or 'none'}; "
        f"or set model.round_width=true to round the width up to a multiple of head_dim"
    )


def derive_dims(model: ModelConfig, vocab_size: int, bos_id: int | None = None) -> ModelDims:
    """Layers, width and heads from `depth`; explicit n_layer, n_embd, n_head, n_kv_head win.

    `bos_id` may be None as long as nothing is built: a plan can be made before there is a tokenizer.
    Raises ConfigError naming the nearest legal value where the sizes do not divide.
    """
    width = model.n_embd if model.n_embd is not None else _width_for(model.depth, model)
    heads = model.n_head if model.n_head is not None else _heads_for(width, model.head_dim)
    _check_width(model, width, heads)
    _check_gates(model, width)
    if model.n_kv_head is not None:
        kv_heads = model.n_kv_head
        if heads % kv_heads:
            legal = ", ".join(str(k) for k in range(1, heads + 1) if heads % k == 0)
            raise ConfigError(f"model.n_kv_head={kv_heads} does not divide {heads} query heads; legal: {legal}")
    else:
        if heads % model.gqa_ratio:
            legal = ", ".join(str(r) for r in range(1, heads + 1) if heads % r == 0)
            raise ConfigError(f"model.gqa_ratio={model.gqa_ratio} does not divide {heads} query heads; legal: {legal}")
        kv_heads = heads // model.gqa_ratio
    return ModelDims(
        n_layer=model.n_layer if model.n_layer is not None else model.depth,
        n_embd=width,
        n_head=heads,
        n_kv_head=kv_heads,
        head_dim=width // heads,
        vocab_size=vocab_size,
        seq_len=model.max_seq_len,
        rope_base=model.rope_base,
        rope_dtype=str(model.rope_dtype),
        norm_eps=model.norm_eps,
        logit_softcap=model.logit_softcap,
        vocab_multiple=model.vocab_multiple,
        qk_scale=model.qk_scale,
        window_pattern=_checked_pattern(model.window_pattern),
        value_embeds=model.value_embeds,
        residual_scalars=model.residual_scalars,
        smear=model.smear,
        backout=model.backout,
        init=str(model.init),
        document_mask=model.document_mask,
        bos_id=bos_id if model.document_mask else None,
    )


def _checked_pattern(pattern: str | None) -> str | None:
    if pattern is not None and (not pattern or set(pattern) - {"S", "L"}):
        raise ConfigError(
            f"model.window_pattern={pattern!r} is not a pattern; it must be made of S (short window) and L (all), "
            f"for example SSSL, or be null"
        )
    return pattern if pattern and "S" in pattern else None


def _check_gates(model: ModelConfig, width: int) -> None:
    """The gates read the first channels, of which there must be enough."""
    for key, on, least in (
        ("value_embeds", model.value_embeds, VALUE_GATE_WIDTH),
        ("smear", model.smear, SMEAR_GATE_WIDTH),
    ):
        if on and width < least:
            raise ConfigError(
                f"model.{key}=true needs a width of at least {least}, and it is {width}; raise model.depth or "
                f"model.n_embd, or set model.{key}=false"
            )


def count_params(dims: ModelDims) -> ParamCounts:
    """Parameters by group; checked against the built module in tests/model/test_gpt.py."""
    attention = dims.n_embd * dims.head_dim * (2 * dims.n_head + 2 * dims.n_kv_head)
    mlp = 2 * 4 * dims.n_embd * dims.n_embd
    gates = len(dims.value_layers) * VALUE_GATE_WIDTH * dims.n_kv_head
    table = dims.table_rows * dims.n_embd
    return ParamCounts(
        embedding=table,
        unembedding=table,
        matrices=dims.n_layer * (attention + mlp) + gates,
        value_embeddings=len(dims.value_layers) * dims.table_rows * dims.n_kv_head * dims.head_dim,
        scalars=2 * dims.n_layer * dims.residual_scalars + dims.smear + dims.backout,
        smear_gate=SMEAR_GATE_WIDTH * dims.smear,
    )


def flops_by_group(dims: ModelDims) -> dict[str, int]:
    """Training FLOPs per token, forward and backward (PaLM, 2204.02311, app. B), of each group; 0 where there is none.

    6 for each parameter used in a product, the spare rows of the head included, and 12*H*E*min(window, T) a layer.
    """
    counts = count_params(dims)
    seen = sum(dims.seq_len if window is None else min(window, dims.seq_len) for window in dims.windows)
    return {
        "matrices": 6 * counts.matrices,
        "head": 6 * counts.unembedding,
        "attention": 12 * dims.n_head * dims.head_dim * seen,
        "smear gate": 6 * counts.smear_gate,
    }


def flops_per_token(dims: ModelDims) -> int:
    """The sum over the groups. For a network of full layers that is 6*(parameters - embedding) + 12*L*H*E*T."""
    return sum(flops_by_group(dims).values())
