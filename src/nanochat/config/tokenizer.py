"""`tokenizer=`: byte-level BPE."""

from dataclasses import dataclass

from nanochat.config.fields import identity


@dataclass(kw_only=True)
class TokenizerConfig:
    """`name` is the folder under `{base_dir}/tokenizer/`."""

    name: str = identity()
    vocab_size: int = identity(ge=265, le=2**24)
    max_chars: int = identity(ge=1)
    doc_cap: int = identity(ge=1)
