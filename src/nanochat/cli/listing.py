"""What there is of a corpus, as tables: shards by state, files with their documents, the embedded corpus."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any

from nanochat.config.data import CorpusConfig
from nanochat.data.corpus import find_files
from nanochat.data.embedded import embedded_texts
from nanochat.data.files import READERS
from nanochat.data.parquet_check import decode_all
from nanochat.data.shards import Shard, ShardFolder, Standing, State
from nanochat.errors import ConfigError, CorruptError, NanochatError
from nanochat.reporting.tables import render_table
from nanochat.tracking.console import format_count

_READERS = 4  # files decoded side by side
_COLUMNS = ("shards", "for", "state", "files", "documents", "bytes")


def list_shards(folder: ShardFolder) -> int:
    """A table of what is on disk, neighbours of one state in one row; returns 0, or 1 if one is damaged."""
    return _show(folder, folder.standing)


def verify_shards(folder: ShardFolder) -> int:
    """The same after every text has been read. Damaged files are named, and left where they are."""
    shards = [shard for shard in folder.shards if shard.path.is_file()]
    print(f"reading {len(shards):,} files", flush=True)
    with ThreadPoolExecutor(_READERS) as pool:
        found = dict(zip((s.name for s in shards), pool.map(_decoded, shards), strict=True))
    code = _show(folder, lambda shard: found.get(shard.name) or folder.standing(shard))
    if not code:
        print(f"all {len(shards):,} files are whole" if shards else "nothing is there to be read")
    return code


def _decoded(shard: Shard) -> Standing:
    try:
        contents = decode_all(shard.path)
    except CorruptError as error:
        return Standing(shard, State.damaged, shard.path.stat().st_size, why=str(error))
    return Standing(shard, State.there, contents.size, contents.documents)


def _show(folder: ShardFolder, standing_of: Callable[[Shard], Standing]) -> int:
    ordered = [standing_of(shard) for shard in [*folder.training, folder.validation]]
    rows = [
        _row(list(group))
        for _, group in groupby(ordered, key=lambda s: (s.state, s.shard.validation, s.state is State.damaged and s))
    ]
    print(render_table(_COLUMNS, rows))
    damaged = [standing for standing in ordered if standing.state is State.damaged]
    for standing in damaged:
        print(f"damaged: {standing.why}; delete it, and `nanochat data` with the same words fetches it again")
    return 1 if damaged else 0


def _row(group: Sequence[Standing]) -> list[Any]:
    first, last = group[0].shard.number, group[-1].shard.number
    documents = [standing.documents for standing in group if standing.documents is not None]
    size = sum(standing.size for standing in group)
    return [
        f"{first:05d}" if first == last else f"{first:05d} to {last:05d}",
        "validation" if group[0].shard.validation else "training",
        str(group[0].state),
        len(group),
        sum(documents) if documents else None,
        f"{format_count(size)}B" if size else None,
    ]


def list_files(data: CorpusConfig, decode: bool) -> int:
    """The files of data=text with their documents; 1 if one cannot be read."""
    if data.root is None:
        raise ConfigError("data.root=null: data=text needs data.root=FOLDER with .parquet, .jsonl or .txt files")
    root = Path(data.root).expanduser().absolute()
    paths = find_files(root)
    wanted = data.num_shards if isinstance(data.num_shards, int) else len(paths)
    rows: list[list[Any]] = []
    errors: list[NanochatError] = []
    for number, path in enumerate(paths):
        purpose = "both" if len(paths) == 1 else "validation" if number == len(paths) - 1 else "training"
        purpose = "nothing (data.num_shards)" if purpose == "training" and number >= wanted else purpose
        documents = None
        try:
            documents = sum(READERS[path.suffix](path).block_sizes)
            if decode and path.suffix == ".parquet":
                decode_all(path)
        except CorruptError as error:
            errors.append(error)
        name = path.relative_to(root).as_posix() if root.is_dir() else path.name
        rows.append([name, purpose, documents, path.stat().st_size])
    print(f"data=text in {root}")
    print(render_table(["file", "for", "documents", "bytes"], rows))
    if len(paths) == 1:
        print("a single file: some of its documents are for validation (data.val_every)")
    for each in errors:
        print(f"damaged: {each}")
    return 1 if errors else 0


def list_embedded(base_dir: Path, seed: int) -> int:
    """What the embedded corpus is made of."""
    texts, _ = embedded_texts(base_dir, seed)
    size = sum(len(text.encode()) for text in texts)
    print("data=embedded needs no files: Python's own documentation, generated tasks and packaged conversations")
    print(render_table(["corpus", "documents", "bytes"], [["embedded", len(texts), size]]))
    return 0
