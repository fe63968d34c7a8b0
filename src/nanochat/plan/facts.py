"""What the plan must be told because it stands on disk or in the machine, gathered by stages/facts.py."""

from dataclasses import dataclass, field
from typing import Any

from nanochat.plan.dims import ModelDims


@dataclass(frozen=True)
class Facts:
    """Inputs of the plan that are not asked for but found.

    `data_tokens` and `data_rows` count one pass over the training data (rows: conversations, where each
    fills a row of its own). `dims` is the model of the checkpoint that the run starts from, `init_mark` a hash
    of its weights. `bos_id` is the token that starts a document; None before there is a tokenizer.
    """

    vocab_size: int
    vocab_source: str
    device: str = "cpu"
    dtype: str = "float32"
    world_size: int = 1
    device_memory: int | None = None
    compile: bool = False
    dims: ModelDims | None = None
    init_from: str | None = None
    init_mark: str | None = None
    data_tokens: int | None = None
    data_rows: int | None = None
    data_source: str = ""
    manifest: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    bos_id: int | None = None
