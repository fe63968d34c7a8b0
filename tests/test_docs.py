"""The pages for users say what is true: commands compose, configs and links exist, the plan shown is the plan."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from nanochat.cli import chat, plan, runs, serve
from nanochat.config.arguments import split_args
from nanochat.config.load import compose_run
from nanochat.config.overrides import expand_sweep

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
USERS_FILE = re.compile(r"^# (my_conf/\S+\.yaml)", re.MULTILINE)


class Command(NamedTuple):
    """A command line of a page, without `nanochat`, and where it stands."""

    page: Path
    words: tuple[str, ...]


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands() -> list[Command]:
    found = []
    for page in PAGES:
        for body in blocks(page, "bash"):
            lines = [line for line in body.splitlines() if line.startswith("nanochat ")]
            found += [Command(page, tuple(shlex.split(line, comments=True)[1:])) for line in lines]
    return found


def label(command: Command) -> str:
    return f"{command.page.stem}: {' '.join(command.words)}"


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the config files that the pages show, as the current one."""
    for page in PAGES:
        for body in blocks(page, "yaml"):
            shown = USERS_FILE.search(body)
            assert shown, f"{page.name} shows a config without naming its file:\n{body}"
            path = tmp_path / page.stem / shown[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
    monkeypatch.setenv("NANOCHAT_BASE_DIR", str(tmp_path / "base"))
    return tmp_path


def test_the_pages_show_commands() -> None:
    assert len(commands()) > 50


@pytest.mark.parametrize("command", commands(), ids=label)
def test_command_is_understood(command: Command, user_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user_folder / command.page.stem if "--config-dir" in command.words else user_folder)
    verb, *rest = command.words
    if verb == "chat":
        chat._parse(rest)
    elif verb == "serve":
        serve._parse(rest)
    elif verb == "runs":
        runs._parser().parse_args(rest)
    elif verb != "--help":
        known = {
            "data": {"--list", "--verify"},
            "mix": {"--exact", "--samples=8"},
            "plan": {"--here"},
        }  # flags that are not Hydra's
        own = known.get(verb, set())
        words = rest if verb in ("plan", "data", "mix") else command.words
        arguments = split_args([word for word in words if word not in own])
        jobs = expand_sweep(arguments.overrides) if arguments.multirun else [arguments.overrides]
        for overrides in jobs:
            compose_run(overrides, arguments.config_dirs)


def test_the_plan_in_the_readme_is_what_is_printed(
    user_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plan.main(["model.depth=20"])
    printed = capsys.readouterr().out.splitlines()
    shown = blocks(ROOT / "README.md", "text")[0].splitlines()
    assert len(shown) > 10
    assert [line for line in shown if line not in printed] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_files_that_the_pages_name_exist() -> None:
    """`data/lanes.py` in backticks is a file of the package or of the project."""
    for page in PAGES:
        for name in re.findall(r"`([\w./]+/[\w.]+\.(?:py|toml|yaml))`", page.read_text(encoding="utf-8")):
            where = [ROOT / name, ROOT / "src" / "nanochat" / name]
            assert any(path.exists() for path in where), f"{page.name}: {name}"
