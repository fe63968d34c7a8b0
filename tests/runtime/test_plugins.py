"""Classes of the user's own: found where they may be, built as the config says, refused otherwise."""

import sys
from pathlib import Path
from typing import Any

import pytest

from nanochat.errors import ConfigError
from nanochat.runtime.plugins import build_own

SOURCE = """
from abc import abstractmethod
from collections import Counter as Unrelated

class Base:
    @abstractmethod
    def __len__(self): ...

class Mine(dict):
    def __init__(self, size, name="x"):
        super().__init__(size=size, name=name)
        if size < 0:
            raise TypeError("from inside")

from abc import ABC
class Half(ABC, dict):
    @abstractmethod
    def judge(self): ...

FUNCTION = lambda: 0
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a module and a package, forgotten afterwards."""
    (tmp_path / "own_plugin.py").write_text(SOURCE)
    (tmp_path / "own_package").mkdir()
    (tmp_path / "own_package" / "inner.py").write_text(SOURCE)
    (tmp_path / "own_broken.py").write_text("import there_is_no_such_module\n")
    (tmp_path / "json.py").write_text("raise AssertionError('a file of the current folder stood in for a module')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def build(target: str, args: dict[str, Any] | None = None, plugins: tuple[str, ...] = ("own_plugin",)) -> Any:
    return build_own("data.tasks.x", target, {"size": 3} if args is None else args, plugins, dict)


def test_built_with_its_arguments() -> None:
    assert build("own_plugin.Mine", {"size": 3}) == {"size": 3, "name": "x"}
    assert build("own_package.inner.Mine", plugins=("other", "own_package"))["size"] == 3
    assert build("own_package.inner.Mine", plugins=("own_package.inner",))["size"] == 3


def test_the_current_folder_comes_last(here: Path) -> None:
    build("own_plugin.Mine")
    assert sys.path[-1] == str(here)
    build("own_plugin.Mine")
    assert sys.path.count(str(here)) == 1


@pytest.mark.parametrize(
    ("target", "args", "plugins", "words"),
    [
        ("own_plugin.Mine", None, (), r"x._target_=own_plugin.Mine: .*plugins='\[own_plugin\]'"),
        ("own_plugin.Mine", None, ("own_plug",), r"=\['own_plug'\]; .* by plugins='\[own_plug,own_plugin\]"),
        ("os.path.join", None, ("own_plugin",), r"classes come only from the modules in plugins"),
        ("Mine", None, ("Mine",), r"must name a module and a class in it"),
        ("own_plugin.Mini", None, ("own_plugin",), r"own_plugin has no class Mini; did you mean Mine"),
        ("own_plugin.FUNCTION", None, ("own_plugin",), r"has no class FUNCTION"),
        ("own_plugin.Base", None, ("own_plugin",), r"does not derive from builtins.dict"),
        ("own_plugin.Half", {}, ("own_plugin",), r"lacks what dict asks for: judge"),
        ("own_plugin.Mine", {"sise": 3}, ("own_plugin",), r"x.args=\{'sise': 3\}: .*Mine takes size, name"),
        ("own_plugins.Mine", None, ("own_plugins",), r"there is no module own_plugins \(looked in /"),
        ("own_broken.Mine", None, ("own_broken",), r"own_broken needs a module that is not there: there_is_no_such_mo"),
    ],
)  # fmt: skip
def test_refused(target: str, args: dict[str, Any] | None, plugins: tuple[str, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(target, args, plugins)


def test_an_error_of_the_class_itself_is_told_with_its_line() -> None:
    said = r"_target_=own_plugin.Mine: its __init__ raised TypeError: from inside \(.*own_plugin.py:13\)"
    with pytest.raises(ConfigError, match=said):
        build("own_plugin.Mine", {"size": -1})


@pytest.mark.parametrize(("source", "words"), [("1 / 0", "ZeroDivisionError.*wrong.py:1"), ("def (", "SyntaxError")])
def test_an_error_while_importing_is_told_too(here: Path, source: str, words: str) -> None:
    (here / "own_wrong.py").write_text(source)
    with pytest.raises(ConfigError, match=f"the import of own_wrong raised {words}"):
        build_own("data.tasks.mine", "own_wrong.Mine", {}, ["own_wrong"], object)
