"""The files of CORE: a folder or a zip with core.yaml, eval_meta_data.csv and eval_data/**.jsonl.

    core.yaml            icl_tasks: label, dataset_uri, num_fewshot, icl_task_type, continuation_delimiter
    eval_meta_data.csv   "Eval Task", "Random baseline" in percent
    eval_data/URI        one JSON object a line

Notable: a zip is read where it lies, never unpacked, and what core.yaml names is looked up below eval_data alone.
Whatever is malformed is said with file, line and reason before anything is computed.
"""

import csv
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from nanochat.errors import CorruptError, MissingError, nearest

CORE_YAML = "core.yaml"
META_CSV = "eval_meta_data.csv"
DATA = "eval_data"
_LARGEST = 1 << 30  # bytes of a file of the bundle; the largest of the published one has 19 MB
_LABEL, _BASELINE = "Eval Task", "Random baseline"


class Kind(StrEnum):
    """How the problems of a task are asked."""

    multiple_choice = "multiple_choice"
    schema = "schema"
    language_modeling = "language_modeling"


@dataclass(frozen=True)
class CoreTask:
    """One entry of core.yaml. `baseline` is the accuracy of guessing, 0 to 1; `file` is below eval_data."""

    label: str
    file: str
    kind: Kind
    shots: int
    delimiter: str
    baseline: float


Row = Mapping[str, Any]


class Bundle:
    """An open bundle. `where` names it in messages."""

    def __init__(self, where: Path) -> None:
        """Reads core.yaml and the table of baselines. Raises MissingError and CorruptError."""
        self.where = where
        self._read, self._marks = _open_zip(where) if where.is_file() else _open_folder(where)
        self.tasks = _parse_tasks(self)

    def name(self, file: str) -> str:
        """A file of the bundle as it is named in messages."""
        return f"{self.where / file}"

    def text(self, file: str) -> str:
        """A file as text."""
        try:
            return self._read(file).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise CorruptError(f"{self.name(file)} is not UTF-8: byte {error.start} {error.reason}") from error

    def rows(self, task: CoreTask) -> list[Row]:
        """The problems of a task in the order of the file, each checked. Raises CorruptError naming file and line."""
        file = f"{DATA}/{task.file}"
        found = []
        for number, line in enumerate(self.text(file).split("\n"), 1):
            if not line.strip():
                continue
            row = _json(line)
            if (fault := _fault(row, task.kind)) is not None:
                raise CorruptError(f"{self.name(file)}:{number} ({task.label}) {fault}: {line.strip()[:60]!r}")
            found.append(row)
        if not found:
            raise CorruptError(f"{self.name(file)} ({task.label}) has no problems in it")
        return found

    def check(self) -> None:
        """Reads the problems of all tasks once, so that a fault is said before hours of work."""
        for task in {task.file: task for task in self.tasks}.values():
            self.rows(task)

    @cached_property
    def fingerprint(self) -> str:
        """CRC and size of what the tasks are made of, the same for a folder and its zip."""
        files = [CORE_YAML, META_CSV, *(f"{DATA}/{task.file}" for task in self.tasks)]
        return f"{zlib.crc32(json.dumps([self._marks(file) for file in files]).encode()):08x}"


_Read = Callable[[str], bytes]
_Marks = Callable[[str], tuple[int, int]]


def _open_folder(folder: Path) -> tuple[_Read, _Marks]:
    def read(file: str) -> bytes:
        path = folder / file
        if not path.is_file():
            raise MissingError(f"the CORE bundle {folder} has no {file}; it needs {CORE_YAML}, {META_CSV} and {DATA}/")
        return path.read_bytes()

    def marks(file: str) -> tuple[int, int]:
        content = read(file)
        return zlib.crc32(content), len(content)

    return read, marks


def _open_zip(path: Path) -> tuple[_Read, _Marks]:
    """The files beside the core.yaml that lies highest in the zip."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise CorruptError(f"{path} is no zip that can be read ({error}); delete it, or fetch it again") from error
    members = {info.filename: info for info in archive.infolist()}
    places = sorted((n for n in members if PurePosixPath(n).name == CORE_YAML), key=lambda n: (n.count("/"), n))
    if not places:
        raise MissingError(f"the CORE bundle {path} has no {CORE_YAML} in it")
    top = places[0].removesuffix(CORE_YAML)

    def member(file: str) -> zipfile.ZipInfo:
        if top + file not in members:
            raise MissingError(f"{path} has no {top + file}; it needs {CORE_YAML}, {META_CSV} and {DATA}/")
        if members[top + file].file_size > _LARGEST:
            raise CorruptError(
                f"{path}: {top + file} would be {members[top + file].file_size:,} bytes; that is no data"
            )
        return members[top + file]

    def read(file: str) -> bytes:
        try:
            return archive.read(member(file))
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
            raise CorruptError(f"{path}: {top + file} cannot be read ({error}); fetch the bundle again") from error

    return read, lambda file: (member(file).CRC, member(file).file_size)


def _parse_tasks(bundle: Bundle) -> tuple[CoreTask, ...]:
    """The entries of core.yaml with their baselines."""
    name = bundle.name(CORE_YAML)
    text = bundle.text(CORE_YAML)
    try:
        loaded, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise CorruptError(f"{name} is not YAML: {' '.join(str(error).split())}") from error
    entries = loaded.get("icl_tasks") if isinstance(loaded, dict) else None
    if not isinstance(entries, list) or not entries:
        raise CorruptError(f"{name} has no list icl_tasks with tasks in it")
    assert tree is not None
    node = next(value for key, value in tree.value if key.value == "icl_tasks")
    baselines = _parse_baselines(bundle)
    tasks = []
    for entry, place in zip(entries, node.value, strict=True):
        tasks.append(_task(entry, f"{name}:{place.start_mark.line + 1}", baselines, bundle.name(META_CSV)))
        if tasks[-1].label in {task.label for task in tasks[:-1]}:
            raise CorruptError(f"{name}:{place.start_mark.line + 1} label {tasks[-1].label} occurs twice")
    return tuple(tasks)


def _task(entry: Any, at: str, baselines: Mapping[str, float], table: str) -> CoreTask:
    """One entry. Raises CorruptError naming its line."""
    if not isinstance(entry, dict):
        raise CorruptError(f"{at} is not a task with label, dataset_uri, num_fewshot and icl_task_type")
    label, uri, kind = (entry.get(key) for key in ("label", "dataset_uri", "icl_task_type"))
    shots, delimiter = entry.get("num_fewshot"), entry.get("continuation_delimiter", " ")
    shots = shots[0] if isinstance(shots, list) and shots else shots
    if not isinstance(label, str) or not label:
        raise CorruptError(f"{at} has no label")
    if not isinstance(uri, str) or not _stays_below(uri):
        raise CorruptError(f"{at} ({label}) dataset_uri={uri} must be the path of a file below {DATA}/")
    if kind not in list(Kind):
        raise CorruptError(f"{at} ({label}) icl_task_type={kind} is not known; {nearest(str(kind), Kind)}")
    if not isinstance(shots, int) or isinstance(shots, bool) or shots < 0:
        raise CorruptError(f"{at} ({label}) num_fewshot={shots} must be a whole number, at least 0, or a list of them")
    if not isinstance(delimiter, str):
        raise CorruptError(f"{at} ({label}) continuation_delimiter={delimiter} must be text")
    if label not in baselines:
        raise CorruptError(f"{at} {label} has no row in {table}; {nearest(label, baselines)}")
    return CoreTask(label, uri, Kind(kind), shots, delimiter, baselines[label])


def _stays_below(uri: str) -> bool:
    parts = PurePosixPath(uri).parts
    return bool(parts) and not uri.startswith("/") and ".." not in parts and "\\" not in uri and ":" not in parts[0]


def _parse_baselines(bundle: Bundle) -> dict[str, float]:
    """Label -> accuracy of guessing. Raises CorruptError naming the line."""
    reader = csv.DictReader(io.StringIO(bundle.text(META_CSV), newline=""))
    if not {_LABEL, _BASELINE} <= set(reader.fieldnames or ()):
        raise CorruptError(f'{bundle.name(META_CSV)}:1 has no columns "{_LABEL}" and "{_BASELINE}"')
    found = {}
    for row in reader:
        percent = _number(row[_BASELINE])
        if percent is None or not 0 <= percent < 100:
            raise CorruptError(
                f"{bundle.name(META_CSV)}:{reader.line_num} ({row[_LABEL]}) {_BASELINE}={row[_BASELINE]} must be a "
                f"percentage from 0 to less than 100"
            )
        found[row[_LABEL]] = percent / 100
    return found


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _fault(row: Any, kind: Kind) -> str | None:
    """What is wrong with a problem, to follow its file and line; None if nothing is."""
    if not isinstance(row, dict):
        return "is not a JSON object"
    texts, options = {
        Kind.multiple_choice: (("query",), "choices"),
        Kind.schema: (("continuation",), "context_options"),
        Kind.language_modeling: (("context", "continuation"), None),
    }[kind]
    for key in texts:
        if not isinstance(row.get(key), str):
            return f"has no text `{key}`"
    if options is None:
        return None
    offered, gold = row.get(options), row.get("gold")
    if not isinstance(offered, list) or not offered or not all(isinstance(each, str) for each in offered):
        return f"has no list of texts `{options}`"
    if not isinstance(gold, int) or isinstance(gold, bool) or not 0 <= gold < len(offered):
        return f"has gold={gold}, which must be 0 to {len(offered) - 1}"
    return None
