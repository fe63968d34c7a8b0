"""How well a tokenizer compresses, beside GPT-2's and GPT-4's on the same text.

Those two are compared only if tiktoken has their files in its cache already: this module never opens a connection,
and says why a column is empty.
"""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tiktoken

from nanochat.tokenizer.bpe import Tokenizer

# The files of each published encoding and their sha256, as in tiktoken_ext/openai_public.py.
HOST = "https://openaipublic.blob.core.windows.net"
PUBLISHED = {
    "gpt2": {
        f"{HOST}/gpt-2/encodings/main/vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        f"{HOST}/gpt-2/encodings/main/encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    },
    "cl100k_base": {
        f"{HOST}/encodings/cl100k_base.tiktoken": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    },
}


@dataclass(frozen=True)
class CompressionRow:
    """Bytes of text per token on one domain; more is better. None where the encoding was skipped."""

    domain: str
    num_bytes: int
    ours: float
    gpt2: float | None
    cl100k: float | None


@dataclass(frozen=True)
class CompressionReport:
    """`skipped` maps the name of an encoding to the reason why its column is empty."""

    rows: list[CompressionRow]
    skipped: dict[str, str]


def compare(tokenizer: Tokenizer, texts_by_domain: dict[str, str]) -> CompressionReport:
    """One row a domain; a domain without text is left out."""
    reasons = {name: reason_to_skip(name) for name in PUBLISHED}
    skipped = {name: reason for name, reason in reasons.items() if reason is not None}
    others = {name: tiktoken.get_encoding(name) for name in PUBLISHED if name not in skipped}
    rows = [compression_row(tokenizer, others, domain, text) for domain, text in texts_by_domain.items() if text]
    return CompressionReport(rows, skipped)


def compression_row(
    tokenizer: Tokenizer, others: dict[str, tiktoken.Encoding], domain: str, text: str
) -> CompressionRow:
    """Bytes per token of `text` under each encoding."""
    num_bytes = len(text.encode("utf-8"))
    ratio = {name: num_bytes / len(other.encode_ordinary(text)) for name, other in others.items()}
    ours = num_bytes / len(tokenizer.encode(text))
    return CompressionRow(domain, num_bytes, ours, ratio.get("gpt2"), ratio.get("cl100k_base"))


def reason_to_skip(name: str) -> str | None:
    """None if every file of the encoding lies, unharmed, in tiktoken's cache; else what is wrong."""
    folder = cache_folder()
    if folder is None:
        return "tiktoken's cache is switched off by an empty TIKTOKEN_CACHE_DIR or DATA_GYM_CACHE_DIR"
    for url, sha256 in PUBLISHED[name].items():
        path = folder / hashlib.sha1(url.encode()).hexdigest()
        if not path.is_file():
            return f"its file {url.rsplit('/', 1)[-1]} is not in tiktoken's cache {folder}"
        if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            return f"{path} is not the published {url.rsplit('/', 1)[-1]} (other sha256)"
    return None


def cache_folder() -> Path | None:
    """Where tiktoken looks before it downloads; None if told not to cache."""
    for variable in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"):
        if variable in os.environ:
            return Path(os.environ[variable]) if os.environ[variable] else None
    return Path(tempfile.gettempdir()) / "data-gym-cache"
