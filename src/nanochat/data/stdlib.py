"""English and Python that every Python installation carries: the documentation strings and sources of its
standard library, and the language reference behind `help()`.

Notable: nothing is imported. Modules are read as text and parsed (`import antigravity` opens a browser, `import this`
prints); so the same version of Python gives the same documents on every machine.
"""

import ast
import os
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from nanochat.errors import MissingError

SKIPPED_PROGRAMS = frozenset(("ensurepip", "idlelib", "lib2to3", "test", "tests", "tkinter", "turtledemo", "unittest"))
SKIPPED_DATA = frozenset(("__pycache__", "dist-packages", "encodings", "lib-dynload", "pydoc_data", "site-packages"))
DOCUMENT_CHARS = 3000  # a module's documentation is cut into documents of about this size
SOURCE_CHARS = 30_000  # longer sources are left out: tables, mostly
SOURCES_EVERY = 4  # one source in four; all of them would be 8 MB of code beside 2 MB of text

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def module_files(library: Path) -> list[tuple[str, Path]]:
    """(dotted name, path) of the standard library's modules, sorted by name; private helpers included."""
    found = []
    for folder, folders, files in os.walk(library):
        folders[:] = [
            name for name in folders if name not in SKIPPED_PROGRAMS | SKIPPED_DATA and not name.startswith("config-")
        ]
        for name in files:
            path = Path(folder, name)
            if path.suffix == ".py":
                parts = path.relative_to(library).with_suffix("").parts
                found.append((".".join(parts).removesuffix(".__init__"), path))
    return sorted(found)


def standard_library(library: Path | None = None) -> Iterator[str]:
    """Documents: documentation by module, some sources, the language reference. Some may be equal.

    `library` is the folder of the standard library, found if None. MissingError if it has no sources.
    """
    library = library or Path(sysconfig.get_paths()["stdlib"])
    modules = module_files(library)
    if not modules:
        raise MissingError(
            f"data=embedded: no standard library sources in {library}; use an ordinary Python installation, or "
            f"data=text with files of your own"
        )
    for number, (name, path) in enumerate(modules):
        source = path.read_text(encoding="utf-8", errors="replace")
        yield from documentation(name, source)
        if number % SOURCES_EVERY == 0 and len(source) <= SOURCE_CHARS:
            yield source.strip()
    topics = library / "pydoc_data" / "topics.py"
    if topics.is_file():
        yield from reference_topics(topics.read_text(encoding="utf-8"))


def parse(source: str) -> ast.Module | None:
    """The syntax tree, or None for templates and other files that are no valid module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old modules hold invalid escapes
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError):
            return None


def documentation(name: str, source: str) -> Iterator[str]:
    """What a module says of itself, of its classes and functions, in documents of about DOCUMENT_CHARS."""
    tree = parse(source)
    entries = [] if tree is None else list(_entries(tree, name))
    held: list[str] = []
    size = 0
    for entry in entries:
        held.append(entry)
        size += len(entry)
        if size >= DOCUMENT_CHARS:
            yield "\n\n".join(held)
            held, size = [], 0
    if held:
        yield "\n\n".join(held)


def _entries(node: Documented, name: str) -> Iterator[str]:
    """`name(arguments)` and documentation string of a node and, in order of the source, of what it defines."""
    text = ast.get_docstring(node)
    if text:
        yield f"{_title(node, name)}\n{text}"
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _entries(child, f"{name}.{child.name}")


def _title(node: Documented, name: str) -> str:
    if isinstance(node, ast.Module):
        return f"module {name}"
    if isinstance(node, ast.ClassDef):
        return f"class {name}"
    return f"{name}({ast.unparse(node.args)})"


def reference_topics(source: str) -> Iterator[str]:
    """The values of `topics = {...}` in pydoc_data/topics.py: the language reference as plain text."""
    tree = parse(source)
    for statement in tree.body if tree is not None else []:
        value = statement.value if isinstance(statement, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict):
            topics: dict[str, str] = ast.literal_eval(value)
            yield from (text.strip() for _, text in sorted(topics.items()))
