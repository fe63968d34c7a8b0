"""The tokens of a corpus on disk: one file for each part of it, read through a memory map.

    {folder}/{tokenizer}/{content}.tokens
    ids (n,) uint16 or uint32 | padding to 8 | where each document begins, and the end, (documents+1,) uint64 | tail

Named by hashes of the tokenizer and of the whole content of the part, it cannot be stale, and any run that reads
the same text may use it. Notable: a file is made when a document of its part is first asked for, by one process
while others wait, beside its place, and renamed when whole. One that is not whole is made again, and that is said;
where the disk fails (full, read-only), that is said and the run goes on from text. Rows are the same either way.
"""

import contextlib
import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np

from nanochat.data.documents import Part
from nanochat.data.encoding import DocEncoder, Ids
from nanochat.data.lru import LRU
from nanochat.tracking.atomic import sync_folder

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MAGIC = b"nctokens"
TAIL = struct.Struct("<8sIIQQI")  # magic, version, bytes an id, documents, ids, crc32 of all before it
VERSION = 1
CHUNK = 1 << 22  # bytes hashed at once
BATCH = 256  # documents encoded at once: enough for all threads, and a few MB of text
OPEN_FILES = 8  # maps held; the lanes of a run stand in one file, or two


class StoredTokens:
    """The documents of one file, as views of its map; the map lasts as long as a view of it."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError, saying why, for a file that is not whole in its form (`check` reads the content)."""
        with path.open("rb") as file:
            try:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError as error:
                raise ValueError("it is empty") from error
        if len(mapped) < TAIL.size:
            raise ValueError("it is too short")
        magic, version, width, documents, ids, crc = TAIL.unpack_from(mapped, len(mapped) - TAIL.size)
        if magic != MAGIC or version != VERSION or width not in (2, 4):
            raise ValueError("its end is missing or of another version")
        self._count: int = documents
        self._crc: int = crc
        start = -(-ids * width // 8) * 8
        if len(mapped) != start + 8 * (documents + 1) + TAIL.size:
            raise ValueError("its size is wrong")
        self._starts = memoryview(mapped)[start : -TAIL.size].cast("Q")
        self._ids: Ids = np.frombuffer(mapped, np.uint16 if width == 2 else np.uint32, ids)

    def __len__(self) -> int:
        """Number of documents."""
        return self._count

    def __getitem__(self, number: int) -> Ids:
        """The ids of one document."""
        return self._ids[self._starts[number] : self._starts[number + 1]]

    def check(self, path: Path) -> None:
        """Raises ValueError if a byte has changed. Reads the file past the map, which would count as our memory."""
        crc, left = 0, path.stat().st_size - 4
        with path.open("rb") as file:
            while left:
                piece = file.read(min(CHUNK, left))
                crc, left = zlib.crc32(piece, crc), left - len(piece)
        if crc != self._crc:
            raise ValueError("its content is damaged")


class TokenCache:
    """The files of one tokenizer below `folder`. `say` gets one sentence where something went wrong or takes long."""

    def __init__(self, folder: Path, tokenizer: str, say: Callable[[str], None]) -> None:
        """`tokenizer` is its fingerprint."""
        self._folder = folder / tokenizer[:16]
        self._say = say
        self._open: LRU[Part, StoredTokens] = LRU(OPEN_FILES)
        self._paths: dict[Part, Path] = {}  # of the parts whose files were found whole
        self._failed = False

    def open(self, part: Part, encoder: DocEncoder) -> StoredTokens | None:
        """The tokens of a part, made first if they are not there; None where the disk failed."""
        found = self._open.get(part)
        if found is not None or self._failed:
            return found
        try:
            stored = self._again(part) or self._first(part, encoder)
        except OSError as error:
            self._failed = True
            self._say(
                f"data.token_cache=true: {error.strerror or error} ({self._folder}); going on from the text, as with "
                f"data.token_cache=false"
            )
            return None
        self._open.put(part, stored, 1)
        return stored

    def _again(self, part: Part) -> StoredTokens | None:
        """A file that was whole when it was opened before."""
        path = self._paths.get(part)
        return None if path is None else StoredTokens(path)

    def _first(self, part: Part, encoder: DocEncoder) -> StoredTokens:
        path = self._folder / f"{part.digest()[:32]}.tokens"
        stored = self._whole(path, part)
        if stored is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _alone(path.with_suffix(".lock")):
                stored = self._whole(path, part, damaged=self._tell_damaged)
                if stored is None:
                    self._build(path, part, encoder)
                    stored = StoredTokens(path)
        self._paths[part] = path
        return stored

    def _whole(self, path: Path, part: Part, damaged: Callable[[Path, str], None] | None = None) -> StoredTokens | None:
        """The file, if it is there and whole."""
        try:
            stored = StoredTokens(path)
            stored.check(path)
            if len(stored) != len(part):
                raise ValueError(f"it holds {len(stored)} documents instead of {len(part)}")
        except FileNotFoundError:
            return None
        except ValueError as error:
            if damaged is not None:
                damaged(path, str(error))
            return None
        return stored

    def _tell_damaged(self, path: Path, why: str) -> None:
        self._say(f"token cache: {path} is not whole ({why}) and is made again")

    def _build(self, path: Path, part: Part, encoder: DocEncoder) -> None:
        """Tokenise the part into a file beside `path`, then rename it there."""
        for left in path.parent.glob(f"{path.name}.*.partial"):
            left.unlink(missing_ok=True)  # of a process that was killed: we hold the lock
        began = time.perf_counter()
        beside = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
        try:
            with beside.open("wb") as file:
                count = _write(file, part, encoder)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
        self._say(f"token cache: {part.name}, {count:,} tokens in {time.perf_counter() - began:.1f} s")


def _write(file: IO[bytes], part: Part, encoder: DocEncoder) -> int:
    """All documents of the part in the form of this module; returns the number of ids."""
    starts, crc = [0], 0
    for ids in _encoded(part, encoder):
        starts.append(starts[-1] + len(ids))
        raw = ids.tobytes()
        crc = zlib.crc32(raw, crc)
        file.write(raw)
    width = encoder.dtype.itemsize
    end = bytes(-starts[-1] * width % 8) + np.array(starts, np.uint64).tobytes()
    end += TAIL.pack(MAGIC, VERSION, width, len(starts) - 1, starts[-1], 0)[:-4]
    file.write(end + struct.pack("<I", zlib.crc32(end, crc)))
    return starts[-1]


def _encoded(part: Part, encoder: DocEncoder) -> Iterator[Any]:
    for texts in part.blocks():
        for start in range(0, len(texts), BATCH):
            yield from encoder.encode(texts[start : start + BATCH])


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Only one process is within the block; a lock is given back however its holder ends.

    A file system without locks is trusted: then two may do the work, and the later rename wins with the same content.
    """
    with path.open("a") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
