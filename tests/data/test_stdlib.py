"""Documents of the standard library are read, never imported."""

import sys
from pathlib import Path

import pytest

from nanochat.data.stdlib import documentation, module_files, reference_topics, standard_library
from nanochat.errors import MissingError

MODULE = '''"""What it does."""
import does_not_exist

def outer(a, b=1, *rest):
    """Outer text."""
    def inner():
        """Inner text."""

class Thing:
    """A thing."""
    def method(self): pass
'''


def test_documentation_in_order_of_the_source() -> None:
    (text,) = documentation("pack.mod", MODULE)
    assert text == (
        "module pack.mod\nWhat it does.\n\npack.mod.outer(a, b=1, *rest)\nOuter text.\n\n"
        "pack.mod.outer.inner()\nInner text.\n\nclass pack.mod.Thing\nA thing."
    )
    assert list(documentation("broken", "def (:")) == []


def test_long_documentation_is_cut_between_entries() -> None:
    source = "\n".join(f'def f{i}():\n    """{"word " * 100}"""' for i in range(20))
    parts = list(documentation("m", source))
    assert len(parts) == 4
    assert all(part.startswith("m.f") for part in parts)


def test_reference_topics_with_and_without_annotation() -> None:
    for head in ("topics = ", "topics: dict[str, str] = "):
        assert list(reference_topics(head + "{'b': 'second\\n', 'a': 'first'}")) == ["first", "second"]


def test_folder_is_read_in_order_without_what_is_skipped(tmp_path: Path) -> None:
    for name in ("b.py", "a/__init__.py", "a/c.py", "test/x.py", "site-packages/y.py", "data.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"""Text of {name}."""')
    assert [name for name, _ in module_files(tmp_path)] == ["a", "a.c", "b"]
    texts = list(standard_library(tmp_path))
    assert texts[:2] == ["module a\nText of a/__init__.py.", '"""Text of a/__init__.py."""']


def test_no_library_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no standard library sources in"):
        list(standard_library(tmp_path))


def test_nothing_is_imported(tmp_path: Path) -> None:
    before = set(sys.modules)
    (tmp_path / "loud.py").write_text('"""Doc."""\nraise SystemExit')
    list(standard_library(tmp_path))
    assert not {"loud", "antigravity", "this"} & (set(sys.modules) - before)
