"""Where `conf/` is."""

from pathlib import Path

from nanochat.errors import MissingError


def conf_dir() -> Path:
    """The packaged copy of `conf/`, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parents[1] / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise MissingError(f"the configuration folder conf/ is neither in {package} nor in {package.parents[1]}; reinstall")
