"""Hydra's flags, overrides and folders, wherever they stand."""

from pathlib import Path

import pytest

from nanochat.config.arguments import split_args, suggest
from nanochat.errors import ConfigError


def test_flags_may_stand_anywhere(tmp_path: Path) -> None:
    parsed = split_args(["a=1", "-m", "--config-dir", str(tmp_path), "+b=2", "~c"])
    assert parsed.overrides == ("a=1", "+b=2", "~c") and parsed.multirun and not parsed.completes
    assert parsed.flags == ("--multirun",) and parsed.config_dirs == (str(tmp_path.resolve()),)


@pytest.mark.parametrize(
    ("argv", "flags"),
    [
        (["-c", "job", "--resolve"], ("--cfg", "job", "--resolve")),
        (["--cfg=job"], ("--cfg", "job")),
        (["--cfg", "hydra", "-p", "hydra.launcher"], ("--cfg", "hydra", "--package", "hydra.launcher")),
        (["--info"], ("--info", "all")),
        (["--info", "searchpath", "a=1"], ("--info", "searchpath")),
        (["-i", "a=1"], ("--info", "all")),
        (["-sc", "query=bash"], ("--shell-completion",)),
    ],
)
def test_values_of_flags(argv: list[str], flags: tuple[str, ...]) -> None:
    assert split_args(argv).flags == flags


def test_several_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    argv = ["-cd", str(tmp_path / "a"), f"--config-dir={tmp_path / 'b'}"]
    assert split_args(argv).config_dirs == (str(tmp_path / "a"), str(tmp_path / "b"))


def test_values_are_quoted_for_hydra() -> None:
    assert split_args(["run=a=b"]).overrides == ("run='a=b'",)


def test_words_of_a_completion_are_left_alone() -> None:
    parsed = split_args(["-sc", "query=bash", "model.de"])
    assert parsed.completes and parsed.overrides == ("query=bash", "model.de")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--multirn"], "did you mean --multirun"),
        (["--cfg", "jb"], "--cfg jb: it takes job or hydra or all"),
        (["--cfg"], "--cfg: it takes job"),
        (["--config-dir"], "it takes a folder"),
        (["--config-dir", "/no/where"], "--config-dir /no/where: there is no such folder"),
        (["-m", "--cfg", "job"], "--multirun and --cfg cannot be combined"),
        (["--resolve"], "--cfg job --resolve"),
        (["--resolve=1"], "--resolve=1 is no flag"),
        (["a=1", "quickstart"], "did you mean experiment=quickstart"),
        (["a=1", "sft"], "did you mean stage=sft"),
        (["a=1", "optim"], "optim is a group: write optim=OPTION with one of adamw"),
        (["a=1", "depth"], "write key=value"),
        (["=3"], "'=3' names no key"),
        (["+=3"], "names no key"),
        (["~"], "names no key"),
        (["hydra.searchpath=[file://x]"], "--config-dir"),
    ],
)
def test_what_is_neither_is_refused(argv: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split_args(argv)
    assert said in str(caught.value)


def test_an_option_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "gpt.yaml").write_text("depth: 3\n")
    with pytest.raises(ConfigError, match=r"my_gpt\.yaml"):
        split_args(["--config-dir", str(tmp_path)])
    (tmp_path / "model" / "gpt.yaml").rename(tmp_path / "model" / "mine.yaml")
    assert split_args(["--config-dir", str(tmp_path)]).config_dirs
    assert "did you mean model=mine" in suggest("mine", [str(tmp_path)])
