"""How fast the loader makes steps, from parquet text and from the token cache, beside tiktoken on the same documents.

    taskset -c 0 python benchmarks/loader.py --seconds 30 --out loader.json

Text and tiktoken take turns step by step, so that what else runs on the machine hits both alike: compare their ratio.
tiktoken's number is `encode_ordinary` alone, with the split pattern as published, on texts that are in memory already;
ours goes from the file to the tensors of `Source.next_step`, and is the tokens of the same documents (bestfit crops
some of them). Rates are given by the clock and, where one thread does it all (--workers 1 --prefetch 0), by the time
that the processor spent on it, which other processes disturb less. Memory is the resident set after each epoch.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tiktoken

from nanochat.config.data import Packing
from nanochat.data.corpus import FileDocuments
from nanochat.data.encoding import TextEncoder
from nanochat.data.prefetch import Prefetch
from nanochat.data.source import Source
from nanochat.data.token_cache import TokenCache
from nanochat.data.tokenized import CorpusTokens
from nanochat.runtime.environment import describe_environment
from nanochat.tokenizer.bpe import SPECIALS, SPLIT_PATTERN, Tokenizer
from nanochat.tokenizer.train import train_bpe

SHARED = Path(__file__).parents[2] / "shared" / "data"


def main() -> None:
    """Measures, prints JSON, writes it to --out."""
    args = parse_arguments()
    tokenizer = load_tokenizer(args)
    result: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv}
    result |= {"machine": machine(), "settings": {k: str(v) for k, v in vars(args).items()}}
    result["rates"] = measure_rates(args, tokenizer)
    if args.epochs:
        result["memory"] = {kind: measure_memory(args, tokenizer, kind == "cache") for kind in args.memory}
    text = json.dumps(result, indent=1, default=str)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    default = Path(os.environ.get("NANOCHAT_SHARED_DATA") or SHARED) / "pretrain"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default, help="folder of parquet files; all but the last are read")
    parser.add_argument("--tokenizer", type=Path, help="folder of a trained one; without it one is trained on the data")
    parser.add_argument("--vocab-size", type=int, default=65536, help="of the one that is trained")
    parser.add_argument("--cache", type=Path, help="where tokens are kept; without it a temporary folder")
    parser.add_argument("--packing", choices=["stream", "bestfit"], default="stream", help="how rows are made")
    parser.add_argument("--seq-len", type=int, default=2048, help="targets of a row")
    parser.add_argument("--rows", type=int, default=32, help="rows of a step")
    parser.add_argument("--lanes", type=int, default=32, help="lanes of the data")
    parser.add_argument("--workers", type=int, default=1, help="threads that encode")
    parser.add_argument("--prefetch", type=int, default=0, help="steps made ahead, in a thread")
    parser.add_argument("--steps", type=int, default=40, help="steps from text in each round")
    parser.add_argument("--seconds", type=float, default=30, help="begin no round after this long")
    parser.add_argument("--epochs", type=int, default=0, help="epochs that memory is looked at for; 0: not at all")
    parser.add_argument("--memory", nargs="+", choices=["cache", "text"], default=["cache"], help="in which way")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    args = parser.parse_args()
    args.packing = Packing(args.packing)
    args.cache = args.cache or Path(tempfile.mkdtemp(prefix="loader-"))
    return args


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": next(
            (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
        ),
        "cores": cores,
        **{
            key: value
            for key, value in describe_environment("cpu").items()
            if key in ("python", "packages", "platform")
        },
    }


def load_tokenizer(args: argparse.Namespace) -> Tokenizer:
    """The given one, or one trained on every fourth document of the data."""
    if args.tokenizer:
        return Tokenizer.load(args.tokenizer)
    documents = open_documents(args)
    return train_bpe((documents[i][:10_000] for i in range(0, len(documents), 4)), args.vocab_size)


def open_documents(args: argparse.Namespace) -> FileDocuments:
    """The training files."""
    paths = sorted(args.data.glob("*.parquet"))
    if not paths:
        raise SystemExit(f"--data={args.data}: no parquet file there")
    return FileDocuments(paths[:-1] or paths, args.data)


def make_source(args: argparse.Namespace, tokenizer: TextEncoder, cached: bool) -> Prefetch:
    """A fresh source at its first step."""
    say = lambda text: print(text, file=sys.stderr)  # noqa: E731
    stored = TokenCache(args.cache, tokenizer.fingerprint(), say) if cached else None
    docs = CorpusTokens(open_documents(args), tokenizer, args.workers, stored)
    source = Source(docs, args.packing, args.seq_len, args.rows, args.lanes, args.rows, tokenizer.bos)
    return Prefetch(source, args.prefetch)


def measure_rates(args: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, Any]:
    """Tokens a second of each way, over all rounds."""
    texts = list(open_documents(args))
    with make_source(args, tokenizer, cached=True) as source:
        source.next_step()  # makes the cache where there is none
    found: dict[str, list[dict[str, float]]] = {"tiktoken": [], "text": [], "cache": []}
    ratios: list[dict[str, float]] = []
    time_text(args, tokenizer, texts)  # a warm-up
    end = time.perf_counter() + args.seconds
    while not ratios or time.perf_counter() < end:
        ours, theirs = time_text(args, tokenizer, texts)
        found["text"].append(ours)
        found["tiktoken"].append(theirs)
        found["cache"].append(time_cache(args, tokenizer))
        ratios.append({clock: ours[clock] / theirs[clock] for clock in ours})
    summary = {name: spread(rates) for name, rates in found.items()}
    return {**summary, "text over tiktoken": spread(ratios, digits=3), "rounds": len(ratios)}


class Watch:
    """Seconds within its `with` blocks: by the clock, and of the processor, all threads of this process together."""

    def __init__(self) -> None:
        """At zero."""
        self._clock = self._processor = 0.0

    def __enter__(self) -> None:
        """Runs."""
        self._clock -= time.perf_counter()
        self._processor -= time.process_time()

    def __exit__(self, *error: object) -> None:
        """Stands."""
        self._clock += time.perf_counter()
        self._processor += time.process_time()

    def rate(self, tokens: int) -> dict[str, float]:
        """Tokens a second, by both."""
        return {"clock": tokens / self._clock, "processor": tokens / self._processor}


class Counting:
    """The tokenizer, counting the tokens that it is asked for; the loader reads a little ahead of the rows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Passes on what the loader uses."""
        self.bos, self.vocab_size, self.fingerprint = tokenizer.bos, tokenizer.vocab_size, tokenizer.fingerprint
        self._encode = tokenizer.encode_array
        self.tokens = 0

    def encode_array(self, text: str) -> Any:
        """Encodes and counts."""
        ids = self._encode(text)
        self.tokens += len(ids)
        return ids


def time_text(
    args: argparse.Namespace, tokenizer: Tokenizer, texts: list[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Tokens a second of the steps from raw text, the opening of the files included, and of tiktoken's own call on the
    documents that each step took, right after it: a machine whose speed changes by the second is as fast for both.
    """
    counting = Counting(tokenizer)
    encode = as_published(tokenizer).encode_ordinary
    ours, theirs = Watch(), Watch()
    tokens = documents = 0
    with make_source(args, counting, cached=False) as source:
        for _ in range(args.steps):
            with ours:
                step = source.next_step()
            assert step is not None
            taken = texts[documents : step.documents]
            documents = step.documents
            with theirs:
                tokens += sum(len(encode(text)) for text in taken)
    return ours.rate(counting.tokens), theirs.rate(tokens)


def as_published(tokenizer: Tokenizer) -> tiktoken.Encoding:
    """tiktoken with the vocabulary of `tokenizer` and the split pattern as it was published."""
    ranks = {tokenizer.decode_bytes([token]): token for token in range(tokenizer.vocab_size - len(SPECIALS))}
    return tiktoken.Encoding("published", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={})


def time_cache(args: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, float]:
    """Tokens a second from the cache, over ten times the steps, after the first step, which opens it."""
    watch = Watch()
    with make_source(args, tokenizer, cached=True) as source:
        source.next_step()
        with watch:
            for _ in range(10 * args.steps):
                source.next_step()
    return watch.rate(10 * args.steps * args.rows * (args.seq_len + 1))


def spread(values: list[dict[str, float]], digits: int | None = None) -> dict[str, list[float]]:
    """Lowest, median and highest by each clock."""
    found = {}
    for clock in values[0]:
        rates = [value[clock] for value in values]
        found[clock] = [round(rate, digits) for rate in (min(rates), statistics.median(rates), max(rates))]
    return found


def measure_memory(args: argparse.Namespace, tokenizer: Tokenizer, cached: bool) -> list[dict[str, float]]:
    """MiB after each epoch: resident, and the part that is not the page cache of the mapped files."""
    found = []
    with make_source(args, tokenizer, cached) as source:
        for epoch in range(1, args.epochs + 1):
            while source.next_step().epoch < epoch:
                pass
            status = Path("/proc/self/status").read_text().split("\n")
            kib = {line.split(":")[0]: int(line.split()[1]) for line in status if line.startswith(("VmRSS", "RssAnon"))}
            found.append({"epoch": epoch, "rss": kib["VmRSS"] >> 10, "anonymous": kib["RssAnon"] >> 10})
    return found


if __name__ == "__main__":
    main()
