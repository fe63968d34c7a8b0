"""One HTTP request into a partial file: begin, or go on where the last one ended.

    shard.parquet.part        the bytes so far
    shard.parquet.part.json   what the server said about the whole: address, ETag, date, size, sha256

Notable: a part is continued (Range) only where the server gave a mark that a change would alter, and the request says
so (If-Range, RFC 9110 section 13.1.5): a file that was replaced meanwhile comes whole and from its start, and a server
that answers with a range of something else is found out by the size and the mark in its answer. So two versions are
never spliced. The hub's answer names the sha256 of large files (X-Linked-ETag), on the redirect, not on the file.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from nanochat.data.places import WebPlace
from nanochat.errors import MissingError, NanochatError
from nanochat.runtime.retry_after import retry_after

_RETRIED = (408, 425, 429)  # and all from 500 on: time-outs, too early, too many requests
_SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
_COMPARED = ("etag", "modified", "size", "sha256")
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


Progress = Callable[[int, int | None], None]  # told the bytes so far, and those of the whole where they are known


class Hiccup(Exception):
    """What may be better next time. `wait` is what the server asked for; `answered` whether there was a server."""

    def __init__(self, said: str, wait: float | None = None, answered: bool = True) -> None:
        """`said` completes the sentence `shard_00000.parquet: ...`."""
        super().__init__(said)
        self.wait = wait
        self.answered = answered


class Stopped(Exception):
    """Nobody wants the file any more, or it is another's to fetch."""


@dataclass(frozen=True)
class About:
    """What is known of a file before it is there; None: the server did not say."""

    url: str
    etag: str | None = None
    modified: str | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def mark(self) -> str | None:
        """What If-Range takes: a strong ETag, else the date."""
        return self.etag if self.etag is not None and not self.etag.startswith("W/") else self.modified


class Part:
    """The partial file of `target`, and what is known of the whole."""

    def __init__(self, target: Path) -> None:
        """Reads what an earlier attempt left."""
        self.path = part_path(target)
        self._said = self.path.with_name(self.path.name + ".json")
        self.about: About | None = None
        with suppress(OSError, ValueError, TypeError):
            self.about = About(**json.loads(self._said.read_text(encoding="utf-8")))

    @property
    def have(self) -> int:
        """Bytes so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def begin(self, about: About) -> None:
        """Empties the part and notes what is to come."""
        self.path.write_bytes(b"")
        self._said.write_text(json.dumps(asdict(about)), encoding="utf-8")
        self.about = about

    def usable(self, url: str) -> int:
        """Bytes that can be continued from `url`; 0 after dropping what cannot."""
        about = self.about
        unmarked = about is None or about.url != url or about.mark is None
        if unmarked or (about is not None and about.size is not None and self.have > about.size):
            self.drop()
        return self.have

    def drop(self) -> None:
        """Forgets everything."""
        self.path.unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Keeps the bytes, which are about to be renamed, and drops what was known."""
        self._said.unlink(missing_ok=True)
        self.about = None


def part_path(target: Path) -> Path:
    """Where the bytes of a file lie until it is whole."""
    return target.with_name(target.name + ".part")


def transfer(
    client: httpx.Client,
    place: WebPlace,
    name: str,
    part: Part,
    progress: Progress,
    wanted: Callable[[], bool],
) -> None:
    """Returns when the part has the size that the server gave (or its end, where it gave none).

    `wanted` is asked between chunks. Raises Hiccup for what is worth another
    attempt, MissingError and NanochatError for what is not, Stopped.
    """
    url = place.url(name)
    have = part.usable(url)
    if have and part.about is not None and part.about.size == have:
        return  # the end came between the last byte and the rename
    headers = {"Accept-Encoding": "identity", "User-Agent": "nanochat", **place.headers()}
    if have and part.about is not None and part.about.mark is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": part.about.mark}
    try:
        with client.stream("GET", url, headers=headers) as response:
            _check_status(response, url, part)
            _receive(response, url, part, progress, wanted)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise NanochatError(f"{place.key} gives the address {url}, which is none: {error}") from error
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise Hiccup(f"no connection ({error or 'in time'})", answered=False) from error
    except httpx.TimeoutException as error:
        raise Hiccup(f"not a byte for {client.timeout.read} s (data.timeout), after {_came(part)}") from error
    except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
        raise Hiccup(f"the connection broke after {_came(part)}") from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise Hiccup(f"{type(error).__name__}: {error}") from error


def _check_status(response: httpx.Response, url: str, part: Part) -> None:
    """Returns for 200 and 206 only."""
    status = response.status_code
    if status in (200, 206):
        return
    said = f"{status} {response.reason_phrase}".strip()
    if status == 416:
        part.drop()
        raise Hiccup("the server has no such range any more; from the start")
    if status in _RETRIED or status >= 500:
        raise Hiccup(f"the server said {said}", wait=retry_after(response.headers.get("Retry-After")))
    if status in (404, 410):
        raise MissingError(f"{url} does not exist ({said})")
    if status in (401, 403):
        raise NanochatError(f"{url}: the server said {said}; HF_TOKEN=... is sent to huggingface.co, and to no other")
    raise NanochatError(f"{url}: the server said {said}, which a repetition would not change")


def _receive(response: httpx.Response, url: str, part: Part, progress: Progress, wanted: Callable[[], bool]) -> None:
    about, start = _describe(response, url)
    if response.status_code == 206 and not (start == 0 and part.have == 0):  # some servers call the whole a range
        _check_continues(part, about, start)
    else:
        part.begin(about)
    have = part.have
    with part.path.open("ab", buffering=0) as file:
        for chunk in response.iter_bytes():  # a server or proxy may compress though we ask it not to
            file.write(chunk)
            have += len(chunk)
            progress(have, about.size)
            if not wanted():
                raise Stopped
    if about.size is not None and have < about.size:
        raise Hiccup(f"the connection ended after {have:,} of {about.size:,} bytes")
    if about.size is not None and have > about.size:
        part.drop()
        raise Hiccup(f"{have:,} bytes came, and the server had announced {about.size:,}")


def _check_continues(part: Part, about: About, start: int | None) -> None:
    """An answer to Range must begin where the part ends, and be about the same file."""
    before = part.about
    pairs = [] if before is None else [(getattr(before, key), getattr(about, key)) for key in _COMPARED]
    changed = any(None not in pair and pair[0] != pair[1] for pair in pairs)  # such an answer may leave marks out
    if before is None or changed or start != part.have:
        part.drop()
        raise Hiccup("the file on the server has changed; from the start", wait=0.0)


def _describe(response: httpx.Response, url: str) -> tuple[About, int | None]:
    """What the answer, and the redirects before it, say of the whole file; and where a range begins."""
    answers = [response, *response.history]
    linked = next((a.headers["X-Linked-ETag"] for a in answers if "X-Linked-ETag" in a.headers), "")
    announced = next((a.headers["X-Linked-Size"] for a in answers if "X-Linked-Size" in a.headers), "")
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    length = response.headers.get("Content-Length", "")
    plain = response.headers.get("Content-Encoding", "identity") == "identity"
    size = int(found[2]) if found and response.status_code == 206 and plain else None
    if size is None and response.status_code == 200 and length.isdecimal() and plain:
        size = int(length)
    if announced.isdecimal() and size not in (None, int(announced)):
        raise Hiccup(f"the server announced {int(announced):,} bytes and sends {size:,}")
    digest = _SHA256.fullmatch(linked)
    about = About(
        url=url,
        etag=response.headers.get("ETag") if plain else None,  # a range of it would be one of the compressed bytes
        modified=response.headers.get("Last-Modified") if plain else None,
        size=int(announced) if announced.isdecimal() else size,
        sha256=digest[1] if digest else None,
    )
    return about, int(found[1]) if found else None


def _came(part: Part) -> str:
    whole = f" of {part.about.size:,}" if part.about is not None and part.about.size is not None else ""
    return f"{part.have:,}{whole} bytes"
