"""Where CORE's files are: what `eval.core_bundle` names, else {base_dir}/eval_bundle, else they are downloaded.

    lock (data/lease.py) -> NAME.part (data/transfer.py) -> read through -> renamed to NAME

Notable: a zip that was downloaded stays a zip. A name without a network is said within seconds.
"""

import hashlib
import time
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

from nanochat.data.download import Patience
from nanochat.data.lease import Lease
from nanochat.data.places import WebPlace
from nanochat.data.transfer import Hiccup, Part, transfer
from nanochat.errors import ConfigError, CorruptError, MissingError, NanochatError
from nanochat.evals.core_bundle import CORE_YAML
from nanochat.runtime.offline import is_reachable, offline_switch

BUNDLE_URL = "https://karpathy-public.s3.us-west-2.amazonaws.com/eval_bundle.zip"  # 25 MB
FIX = "eval.core_bundle= names a folder, a zip or a URL that has it, and eval.core_every=-1 does without CORE"
_PATIENCE = Patience(retries=3)


def find_bundle(asked: str | None, base_dir: Path, say: Callable[[str], None]) -> Path:
    """The folder or zip of `asked` (eval.core_bundle), fetched if it has to be.

    Raises MissingError where there is none and none can be had, ConfigError for an address of another kind.
    """
    if asked is None:
        folder = base_dir / "eval_bundle"
        if folder.is_dir():
            return folder
        return _fetched(BUNDLE_URL, base_dir / "eval_bundle.zip", f"there is no {folder}", say)
    scheme, separator, _ = asked.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        mark = hashlib.sha256(asked.encode()).hexdigest()[:16]
        return _fetched(asked, base_dir / "cache" / f"eval_bundle-{mark}.zip", f"eval.core_bundle={asked}", say)
    if separator:
        raise ConfigError(f"eval.core_bundle={asked} must be a folder, a zip, or an http:// or https:// address of one")
    path = Path(asked).expanduser().absolute()
    if not path.exists():
        raise MissingError(f"eval.core_bundle={asked}: there is no {path}; {FIX}")
    return path


def _fetched(url: str, target: Path, why: str, say: Callable[[str], None]) -> Path:
    """`target`, downloaded from `url` unless it is there. `why` begins the message if it cannot be."""
    if target.is_file():
        return target
    variable = offline_switch() if url == BUNDLE_URL else None
    if variable is not None:
        raise MissingError(f"{why}, and {variable} forbids to fetch CORE's files; {FIX}")
    if not is_reachable(url):
        raise MissingError(f"{why}, and {url} cannot be reached; {FIX}")
    target.parent.mkdir(parents=True, exist_ok=True)
    lease = Lease(target.with_name(f".{target.name}.lock"))
    if lease.acquire(unless=target.is_file):
        with lease:
            if not target.is_file():
                say(f"fetching CORE's files from {url}")
                _download(url, target, lease, why)
    return target


def _download(url: str, target: Path, lease: Lease, why: str) -> None:
    base, _, name = url.rpartition("/")
    place, part = WebPlace(base, why), Part(target)
    for attempt in range(1, _PATIENCE.retries + 2):
        try:
            with httpx.Client(follow_redirects=True, timeout=_PATIENCE.timeout) as client:
                transfer(client, place, name, part, lambda have, size: None, lease.held)
            check_zip(part.path)
            part.path.replace(target)
            part.forget()
            return
        except CorruptError as error:
            part.drop()
            fault: Exception = error
        except Hiccup as error:
            fault = error
        except NanochatError as error:
            raise MissingError(f"{why}: {error}; {FIX}") from error
        if attempt <= _PATIENCE.retries:
            time.sleep(_PATIENCE.before(attempt))
    raise MissingError(f"{why}: {url} did not come whole in {_PATIENCE.retries + 1} attempts: {fault}; {FIX}")


def check_zip(path: Path) -> None:
    """CorruptError unless every file in the zip is whole and core.yaml is one of them."""
    broken = (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError)
    with suppress(*broken), zipfile.ZipFile(path) as archive:
        whole = archive.testzip() is None
        if whole and any(name.rpartition("/")[2] == CORE_YAML for name in archive.namelist()):
            return
    raise CorruptError(f"what came is no whole zip with a {CORE_YAML} in it")
