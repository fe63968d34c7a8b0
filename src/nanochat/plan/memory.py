"""How much memory a GPU needs to train, by part, before anything is built.

D width, H heads, K key/value heads, E head width, R rows of the tables, L layers; "tensor" is (B, T, D) in the compute
dtype. A micro-batch has three moments that can be the largest, and the update a fourth:

    head        all that is kept + the logits of a chunk
    backward    all that is kept + what the last block works with
    its end     nothing kept + the new gradients of all parameters (compiled, they come all at once)
    update      the stacks of matrices that an optimizer works on

What is kept follows from what is recomputed (model/recompute.py) and whether the kernels between products are fused
ones of this project: the table KEPT. WORK, HEAD and UPDATE are what a moment needs beside what is kept; with them
a measured peak was within 3 % of the predicted one (docs/performance.md). CALIBRATION is for another GPU to correct.
"""

from dataclasses import dataclass, fields, replace

from nanochat.plan.dims import ModelDims, count_params

GPUS = (24, 40, 80, 141)  # GB, as they are sold
STACK = 2**26  # numbers of one stack of matrices (optim/muon.py)
CHUNK = 2**28  # numbers of one chunk of logits (model/head.py)
CONTEXT = 10**9  # bytes that CUDA and its libraries take beside torch's
SPARE = 0.05  # of the memory: pieces too small to be of use, and what the prediction may be off
WRONG = 1.1  # a prediction so many times as large as the memory cannot be an error of the prediction


@dataclass(frozen=True)
class Kept:
    """What a block keeps for its backward pass: numbers a token, beside one of attention for each head (fp32).

    `d`, `q` and `kv` count tensors as wide as the stream, as all query heads, as all keys (or values), in the compute
    dtype; `fp32` those as wide as a q and a k together, in fp32. `value_rows` are those of a value embedding, kv wide.
    `matrices` counts copies of the block's matrices in the compute dtype, of which there is one whatever the rows are.
    """

    d: int
    q: int = 0
    kv: int = 0
    fp32: int = 0
    value_rows: int = 0
    matrices: int = 0


# By (what is recomputed, fused kernels). `cheap` keeps by construction its input, q, k, v, what attention returns, its
# projection and the 4D numbers before the relu: 10 tensors where there are as many keys as queries. `nothing` without
# fused kernels was read off the compiler's own partition of the graph (torch 2.13): 20 tensors, 4 of them the fp32
# numbers inside of norms. With fused kernels it is the inputs of the products and of the fused kernels.
KEPT = {
    ("cheap", False): Kept(d=6, q=2, kv=2),
    ("cheap", True): Kept(d=6, q=2, kv=2),
    ("nothing", False): Kept(d=12, q=2, kv=2, fp32=1, value_rows=1, matrices=1),
    # d: x, norm of x, sum, norm of the sum, 4D before the relu; q: before and after norm and turn, attention; k, v.
    ("nothing", True): Kept(d=8, q=3, kv=3, value_rows=1, matrices=1),
    ("blocks", False): Kept(d=1),
    ("blocks", True): Kept(d=1),
}
WORK = {"nothing": 9.0, "cheap": 9.0, "blocks": 9.0}  # tensors of a block while its gradients are made
# The moment of the head: bytes a logit of a chunk, bytes a number of its weight (copies, gradient), by its operator
# (model/head_fused.py) in 16 bits, in 32, in 8, and where nothing is compiled. Within 1 % of what an H200 measured.
HEAD = {"16": (2.0, 6), "32": (4.0, 4), "8": (3.0, 10), "eager": (18.0, 8)}
EAGER = 2.0  # tensors a block keeps more where nothing is compiled (saved_tensors_hooks, torch 2.13)
UPDATE = 16.0  # bytes a number of a stack: gradient, update and parameter in fp32, products in bf16
CALIBRATION = 1.0  # measured / predicted of what is kept and worked with


@dataclass(frozen=True)
class Training:
    """What memory depends on beside the network. `rows` of a micro-batch; `several` of them a step, or one.

    `recompute` and `fused` are the key of KEPT.
    """

    rows: int
    several: bool
    dtype: str
    compile: bool
    recompute: str
    muon: bool
    fused: bool = False
    fp8: bool = False


@dataclass(frozen=True)
class Memory:
    """Bytes by part. `work` is what the largest moment needs beside what lasts and what is kept."""

    weights: int
    optimizer: int
    gradients: int
    kept: int
    work: int

    @property
    def peak(self) -> int:
        """All parts at their largest moment."""
        return sum(getattr(self, field.name) for field in fields(self))


def predict(dims: ModelDims, how: Training) -> Memory:
    """The peak of a training step, by part."""
    weights, gradients, optimizer = _lasting(dims, how)
    kept = round(CALIBRATION * _kept(dims, how))
    head_rows = dims.table_rows * dims.n_embd
    moments = {
        "head": kept + _head_bytes(dims, how),
        "backward": kept + head_rows * 8 + round(CALIBRATION * _work(dims, how)),
        "end": gradients + head_rows * 4,
        "update": (0 if how.several else gradients) + round(UPDATE * _largest_stack(dims) * how.muon),
    }
    most = max(moments.values())
    kept = min(kept, most)
    return Memory(weights, optimizer, gradients if how.several else 0, kept, most - kept)


def fits(dims: ModelDims, how: Training, device_memory: int) -> bool:
    """Whether the step fits, with something to spare."""
    return predict(dims, how).peak + CONTEXT <= device_memory * (1 - SPARE)


def most_rows(dims: ModelDims, how: Training, device_memory: int, most: int) -> int:
    """The largest micro-batch of at most `most` rows that fits; 0 if none does.

    All rows at once if they fit; else the most that make equal micro-batches, if that is more than half of what fits.
    """
    if fits(dims, replace(how, rows=most, several=False), device_memory):
        return most
    low, high = 0, most  # the largest that fits is in low .. high - 1
    while high - low > 1:
        middle = (low + high) // 2
        if fits(dims, replace(how, rows=middle, several=True), device_memory):
            low = middle
        else:
            high = middle
    return next((rows for rows in range(low, low // 2, -1) if most % rows == 0), low)


def _lasting(dims: ModelDims, how: Training) -> tuple[int, int, int]:
    """(weights with rotary tables, gradients, state of the optimizer)."""
    counts = count_params(dims)
    table = 2 if how.dtype == "bfloat16" else 4
    tables = (counts.embedding + counts.value_embeddings) * table
    others = (counts.unembedding + counts.scalars + counts.smear_gate) * 4
    matrices = counts.matrices * 4
    gradients = tables + others + matrices
    rope = 2 * 10 * dims.seq_len * dims.head_dim * (2 if dims.rope_dtype == "bfloat16" else 4)
    return gradients + rope, gradients, 2 * (tables + others) + (1 if how.muon else 2) * matrices


def _width(how: Training) -> int:
    return 4 if how.dtype == "float32" else 2


def _kept(dims: ModelDims, how: Training) -> int:
    """What the forward pass leaves for the backward pass."""
    c, D, kept = _width(how), dims.n_embd, KEPT[how.recompute, how.fused]
    total = dims.n_layer * _block_bytes(dims, how, kept)
    total += kept.value_rows * len(dims.value_layers) * c * _kv(dims)
    if how.recompute == "nothing" and not how.compile:
        total += round(EAGER * dims.n_layer * c * D)
    if how.recompute == "blocks":
        total += _block_bytes(dims, how, KEPT["cheap", how.fused])  # of the block that is being computed again
    # Outside of blocks: the rows of the table, their norm; what the head reads, and its gradient. Ids and targets.
    total += c * D * (4 + dims.smear) + 16
    copies = kept.matrices * count_params(dims).matrices * c if c < 4 else 0
    return how.rows * dims.seq_len * total + copies


def _block_bytes(dims: ModelDims, how: Training, kept: Kept) -> int:
    """What a block keeps of a token."""
    q, kv = dims.n_head * dims.head_dim, _kv(dims)
    heads = 4 * dims.n_head if kept.q else 0
    return _width(how) * (kept.d * dims.n_embd + kept.q * q + kept.kv * kv) + 4 * kept.fp32 * (q + kv) + heads


def _kv(dims: ModelDims) -> int:
    return dims.n_kv_head * dims.head_dim


def _work(dims: ModelDims, how: Training) -> float:
    return WORK[how.recompute] * how.rows * dims.seq_len * dims.n_embd * _width(how)


def _head_bytes(dims: ModelDims, how: Training) -> int:
    chunk = min(how.rows * dims.seq_len * dims.table_rows, max(CHUNK, 256 * dims.table_rows))
    width = "8" if how.fp8 else "32" if how.dtype == "float32" else "16"
    logit, weight = HEAD[width if how.compile else "eager"]
    return round(logit * chunk) + weight * dims.table_rows * dims.n_embd


def _largest_stack(dims: ModelDims) -> int:
    """Numbers of the matrices that are updated at once; one alone may be more than STACK."""
    matrix = 4 * dims.n_embd**2
    return matrix * min(dims.n_layer, max(1, STACK // matrix))
