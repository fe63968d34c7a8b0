"""Where the shards of a dataset come from: a base URL, a folder, a mirror of the hub, the hub itself.

Notable: a folder may have the files directly in it or in any folder below, as the hub's own layout does. The token of
HF_TOKEN goes to the hub's host and to no other.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nanochat.config.data import HUB_SAMPLES
from nanochat.errors import ConfigError, MissingError
from nanochat.runtime.offline import offline_switch

HUB = "https://huggingface.co"
_HUB_HOST = "huggingface.co"
_THE_HUB = "the hub"


@dataclass(frozen=True)
class WebPlace:
    """Files below a base URL. `key` is how a user asked for it."""

    base: str
    key: str

    def url(self, name: str) -> str:
        """Of one file."""
        return f"{self.base}/{name}"

    @property
    def where(self) -> str:
        """For messages."""
        return self.base

    @property
    def is_hub(self) -> bool:
        """Whether it is the hub itself, which takes a token."""
        return urlsplit(self.base).hostname == _HUB_HOST

    def headers(self, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The token of the hub, for the hub."""
        token = environment.get("HF_TOKEN", "").strip()
        return {"Authorization": f"Bearer {token}"} if token and self.is_hub and self.base.startswith("https:") else {}

    def forbidden_by(self, environment: Mapping[str, str] = os.environ) -> str | None:
        """The variable that forbids to ask the hub, if this is the hub or what HF_ENDPOINT puts in its place."""
        return offline_switch(environment) if self.is_hub or self.key == _THE_HUB else None


@dataclass(frozen=True)
class FolderPlace:
    """Files of a folder on this machine, which is only read. `key` is how a user asked for it."""

    folder: Path
    key: str
    _known: dict[str, Path] = field(default_factory=dict, compare=False)

    @property
    def where(self) -> str:
        """For messages."""
        return str(self.folder)

    def find(self, name: str) -> Path:
        """The file, directly in the folder or below it. Raises MissingError naming what is there instead."""
        direct = self.folder / name
        if direct.is_file():
            return direct
        if name not in self._known or not self._known[name].is_file():
            self._known.update({path.name: path for path in sorted(self.folder.rglob("*.parquet")) if path.is_file()})
        if name in self._known:
            return self._known[name]
        there = sorted(self._known)
        holds = f"{len(there)} parquet files, {there[0]} to {there[-1]}" if there else "no parquet file"
        raise MissingError(f"{self.key}: {name} is not in {self.folder}, which holds {holds}")


Place = WebPlace | FolderPlace


def find_place(source: str | None, hub_root: str | None, dataset: str) -> Place:
    """`source` if given, else `{hub_root}/{dataset}`, else the hub. Raises MissingError for a folder that is not there,
    ConfigError for an address of another kind.
    """
    if source is not None:
        return _asked(source)
    if hub_root is not None and hub_root != HUB_SAMPLES:  # there are no samples of corpora
        folder = Path(hub_root).expanduser().absolute() / dataset
        return FolderPlace(_existing(folder, f"hub_root={hub_root}"), f"hub_root={hub_root}")
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
    return WebPlace(f"{endpoint}/datasets/{dataset}/resolve/main", _THE_HUB)


def _asked(source: str) -> Place:
    scheme, separator, _ = source.partition("://")
    key = f"data.source={source}"
    if scheme.lower() in ("http", "https") and separator:
        return WebPlace(source.rstrip("/"), key)
    if scheme.lower() == "file" and separator:
        return FolderPlace(_existing(Path(unquote(urlsplit(source).path)), key), key)
    if separator:
        raise ConfigError(f"{key} must be an http:// or https:// address, file:///FOLDER, or a folder")
    return FolderPlace(_existing(Path(source).expanduser().absolute(), key), key)


def _existing(folder: Path, key: str) -> Path:
    if folder.is_dir():
        return folder
    parent = next((each for each in folder.parents if each.is_dir()), Path("/"))
    there = ", ".join(sorted(path.name for path in parent.iterdir())[:8]) or "nothing"
    raise MissingError(
        f"{key}: there is no folder {folder}; {parent} holds {there}. Give the folder or base URL that has the "
        f"shards by data.source=, or leave it out for the hub"
    )
