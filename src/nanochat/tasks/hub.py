"""Data sets of the hub, from the hub or from a local mirror of it.

    {hub_root}/{org}/{name}/{config}/{split}-00000-of-00001.parquet

Notable: both ways give the same rows in the same order, that of `Dataset.shuffle(seed=42)`, which is a permutation
drawn by numpy. Rows stay in Arrow and become Python objects one at a time: half a million conversations as objects
would take many times the memory. pyarrow and datasets are imported when a data set is opened, so that runs without one
start quickly. A machine without network hears so within seconds, not after the retries of a client.
"""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from numpy.random import default_rng

from nanochat.config.data import HUB_SAMPLES
from nanochat.errors import ConfigError, CorruptError, MissingError, nearest
from nanochat.runtime.offline import is_reachable, offline_switch
from nanochat.tasks.base import Task
from nanochat.tasks.hub_samples import sample_rows, samples_mark
from nanochat.tasks.spec import TaskContext, TaskSpec

SHUFFLE_SEED = 42


class Asked(NamedTuple):
    """One split of one data set, and the key of the task that asks for it, for errors."""

    dataset: str
    config: str
    split: str
    key: str

    def __str__(self) -> str:
        """As errors show it."""
        return f"{self.dataset} ({self.config}, {self.split})"

    @property
    def ways_out(self) -> str:
        """What to do if it is not there, for the end of an error."""
        return (
            f"hub_root=FOLDER reads a mirror of the hub ({self.dataset}/{self.config}/{self.split}-*-of-*.parquet in "
            f"it); ~{self.key} leaves the task out; data=mid_generated and data=sft_generated need no data set."
        )


class HubRows:
    """The rows of a split, shuffled. `fetch` gives a row by its place in the file, `mark` says what is in it."""

    def __init__(self, count: int, fetch: Callable[[int], dict[str, Any]], mark: Callable[[], str]) -> None:
        """`mark` is called when the fingerprint is asked for."""
        self._order = default_rng(SHUFFLE_SEED).permutation(count)
        self._fetch = fetch
        self._mark = mark

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row as column -> value; IndexError past the end."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._fetch(int(self._order[index]))

    @property
    def mark(self) -> str:
        """Changes with the contents."""
        return self._mark()


class HubTask(Task):
    """A task whose rows are those of a data set: `subsets` maps each of its configs to the splits it has.

    A data set of a single config has no `subset` in a spec; `default` is the config taken where none is named.
    """

    dataset: ClassVar[str]
    subsets: ClassVar[dict[str, tuple[str, ...]]]
    default: ClassVar[str | None] = None

    def __init__(self, rows: HubRows, subset: str, split: str) -> None:
        """`rows` as open_rows gives them."""
        self.rows, self.subset, self.split = rows, subset, split

    @classmethod
    def from_spec(cls, spec: TaskSpec, context: TaskContext) -> Self:
        """Opens the split. ConfigError for a subset or split that there is not, MissingError where it cannot be had."""
        subset = spec.subset or cls.default
        if subset not in cls.subsets:
            given = "null" if subset is None else subset
            raise ConfigError(
                f"{spec.key}.subset={given} is not a subset of {spec.task}; {nearest(given, cls.subsets)}"
            )
        if spec.split not in cls.subsets[subset]:
            there = "; ".join(f"subset {name} has {', '.join(splits)}" for name, splits in cls.subsets.items())
            raise ConfigError(f"{spec.key}.split={spec.split} is not in subset {subset} of {spec.task}: {there}.")
        asked = Asked(cls.dataset, subset, spec.split, spec.key)
        task = cls(open_rows(asked, context.hub_root, cls.columns(subset)), subset, spec.split)
        if context.hub_root is not None:
            task.notes = (f"hub data sets: hub_root={context.hub_root}",)
        return task

    @classmethod
    @abstractmethod
    def columns(cls, subset: str) -> tuple[str, ...]:
        """The columns that are read."""

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def fingerprint(self) -> dict[str, Any]:
        """Which rows of which contents."""
        named = {"dataset": self.dataset, "subset": self.subset, "split": self.split}
        return {"task": type(self).__name__, "rows": len(self), **named, "contents": self.rows.mark}


def open_rows(asked: Asked, hub_root: str | None, columns: Sequence[str]) -> HubRows:
    """The rows from `hub_root` (a mirror, or the packaged samples), else from the hub. MissingError, CorruptError."""
    if hub_root == HUB_SAMPLES:
        return _from_samples(asked)
    if hub_root is not None:
        return _from_mirror(asked, Path(hub_root).expanduser().absolute(), columns)
    return _from_hub(asked, columns)


def _from_samples(asked: Asked) -> HubRows:
    rows = sample_rows(asked.dataset, asked.config, asked.split)
    if not rows:
        raise MissingError(
            f"{asked.key}: hub_root={HUB_SAMPLES} has no row of {asked}; leave the task out: ~{asked.key}"
        )
    return HubRows(len(rows), rows.__getitem__, samples_mark)


def _from_mirror(asked: Asked, root: Path, columns: Sequence[str]) -> HubRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = mirror_files(asked, root)
    tables = []
    for path in paths:
        try:
            schema = pq.read_schema(path)
            _check_columns(path, schema.names, columns)
            tables.append(pq.read_table(path, columns=list(columns)))
        except (pa.ArrowException, OSError) as error:
            raise CorruptError(f"{path} is no readable parquet file ({error}); fetch it again") from error
    table = pa.concat_tables(tables)
    empty = [name for name in columns if table.column(name).null_count]
    if empty:
        raise CorruptError(f"{asked.key}: {paths[0].parent} has rows without {', '.join(empty)}; fetch it again")
    values = [table.column(name) for name in columns]
    return HubRows(
        table.num_rows,
        lambda row: {name: column[row].as_py() for name, column in zip(columns, values, strict=True)},
        lambda: _digest(paths),
    )


def mirror_files(asked: Asked, root: Path) -> list[Path]:
    """The files of a split in order. MissingError if there is none, or if one of the number in their names is not."""
    if not root.is_dir():
        raise MissingError(f"hub_root={root}: no such folder, and {asked.key} needs {asked}.")
    folder = root / asked.dataset / asked.config
    paths = sorted(folder.glob(f"{asked.split}-*-of-*.parquet"))
    if not paths:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
        raise MissingError(
            f"{asked.key}: hub_root={root} has no {asked.dataset}/{asked.config}/{asked.split}-*-of-*.parquet "
            f"(there: {there or 'nothing'}); add it, or leave the task out: ~{asked.key}"
        )
    total = paths[0].stem.rpartition("-of-")[2]
    wanted = [
        f"{asked.split}-{number:05d}-of-{total}.parquet" for number in range(int(total) if total.isdigit() else 0)
    ]
    if [path.name for path in paths] != wanted:
        absent = [name for name in wanted if not (folder / name).is_file()] or ["files of one set only"]
        raise MissingError(f"{asked.key}: {folder} is not whole: {', '.join(absent[:4])} missing; fetch it again")
    return paths


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _check_columns(where: object, found: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        raise CorruptError(f"{where} has no column {', '.join(missing)}; it has {', '.join(found)}")


def _from_hub(asked: Asked, columns: Sequence[str]) -> HubRows:
    """By `datasets`, which gives what it has in its cache without network too, if it is told that there is none."""
    import datasets
    from huggingface_hub import constants

    barred = offline_switch()
    if barred is None and not is_reachable(constants.ENDPOINT):
        barred = f"no network: {constants.ENDPOINT} cannot be reached"
    try:
        with _told_offline(barred is not None):
            rows = datasets.load_dataset(asked.dataset, asked.config, split=asked.split)
    except Exception as error:  # what the library may raise is no closed set
        said = barred or (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingError(f"{asked.key} needs {asked} of the hub ({said}). {asked.ways_out}") from error
    _check_columns(asked, rows.column_names, columns)
    return HubRows(len(rows), rows.__getitem__, lambda: str(rows._fingerprint))


@contextmanager
def _told_offline(offline: bool) -> Iterator[None]:
    """Within the block the hub's clients know that there is no network; their own switch is read at import only."""
    import datasets.config
    from huggingface_hub import constants

    holders: tuple[Any, ...] = (datasets.config, constants)
    former = [holder.HF_HUB_OFFLINE for holder in holders]
    for holder, value in zip(holders, former, strict=True):
        holder.HF_HUB_OFFLINE = offline or value
    try:
        yield
    finally:
        for holder, value in zip(holders, former, strict=True):
            holder.HF_HUB_OFFLINE = value
