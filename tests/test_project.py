"""Rules of the house that no tool checks: sizes of files and functions, commented configs, no private paths."""

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "launch", "conf", "tests", "docs", "examples", "benchmarks", ".ci")
SUFFIXES = {".py", ".yaml", ".md", ".toml", ".jsonl", ".txt", ".html", ""}
LONGEST_FILE = 350
LONGEST_FUNCTION = 60
LONGEST_CONF = 42  # lines; "about 40"
CONF_EXCEPTIONS = {"config.yaml": 60}  # the primary config lists every group and every key of the root
PRIVATE = re.compile(r"(?<![\w.~}])/(?:work|root|home/\w+|Users/\w+)/|[A-Z]:\\Users")


def project_files() -> Iterator[Path]:
    """Every text file that belongs to the project, whether git knows it or not."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and path.suffix in SUFFIXES and path.name != ".git")
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                yield path


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_no_python_file_is_longer_than_the_house_allows() -> None:
    sizes = {path.relative_to(ROOT): len(text_of(path).splitlines()) for path in python_files("src", "launch", "tests")}
    assert len(sizes) > 100, "the project was not found"
    assert {path: size for path, size in sizes.items() if size > LONGEST_FILE} == {}


def test_no_function_is_longer_than_the_house_allows() -> None:
    found = {}
    for path in python_files("src", "launch"):
        for node in ast.walk(ast.parse(text_of(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    found[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert found == {}


def test_every_module_says_what_it_is() -> None:
    silent = [path for path in python_files("src", "launch") if not ast.get_docstring(ast.parse(text_of(path)))]
    assert silent == []


def test_packages_export_nothing() -> None:
    """A docstring at most: import cycles pass through `__init__` files that re-export."""
    inits = [path for path in python_files("src", "launch") if path.name == "__init__.py"]
    assert [path for path in inits if len(ast.parse(text_of(path)).body) > 1] == []


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT)))
def test_config_files_are_short_and_open_with_what_they_are(path: Path) -> None:
    lines = text_of(path).splitlines()
    assert len(lines) <= CONF_EXCEPTIONS.get(path.name, LONGEST_CONF)
    header = next(line for line in lines if not line.startswith("# @package"))
    assert re.match(r"# \w", header), f"the first line says what the option is for, not {header!r}"


def test_no_file_names_a_private_path() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in project_files()
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if PRIVATE.search(line)
    ]
    assert found == []


def test_the_changelog_opens_with_this_version() -> None:
    version = tomllib.loads(text_of(ROOT / "pyproject.toml"))["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", text_of(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert version in headings


def test_ci_can_be_started() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_tests_mirror_the_source() -> None:
    """tests/x exists only for a package x, so that a test is found where its module is."""
    packages = {path.name for path in (ROOT / "src" / "nanochat").iterdir() if path.is_dir()}
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders - packages - {"launch", "e2e", "examples", "integration"} == set()
