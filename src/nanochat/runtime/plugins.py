"""A user's own class by its name, `my_package.module.MyClass`.

Notable: only the config of this run can name one, and only under a module prefix that `plugins` lists; nothing that
is read from a checkpoint gets here. The current folder can be imported from, after everything that is installed, so
that a file in it never stands in for a module of a package.
"""

import importlib
import inspect
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nanochat.errors import ConfigError, NanochatError, nearest

T = TypeVar("T")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Within the block an exception of the user's own code becomes a ConfigError: `what`, the exception, the line."""
    try:
        yield
    except NanochatError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise ConfigError(
            f"{what} raised {said} ({frame.filename}:{frame.lineno}); HYDRA_FULL_ERROR=1 shows the way there."
        ) from error


def build_own(key: str, target: str, args: Mapping[str, Any], plugins: Iterable[str], base: type[T]) -> T:
    """`target(**args)`, which must derive from `base`. ConfigError names `key` and what is wrong.

    `key` is where `_target_` and `args` stand in the config.
    """
    kind = load_class(f"{key}._target_", target, tuple(plugins))
    if not issubclass(kind, base):
        raise ConfigError(f"{key}._target_={target} does not derive from {base.__module__}.{base.__name__}.")
    missing = sorted(getattr(kind, "__abstractmethods__", ()))
    if missing:
        raise ConfigError(f"{key}._target_={target} lacks what {base.__name__} asks for: {', '.join(missing)}.")
    try:
        inspect.signature(kind).bind(**args)
    except TypeError as error:
        takes = ", ".join(inspect.signature(kind).parameters) or "nothing"
        raise ConfigError(f"{key}.args={dict(args)}: {error}; {target} takes {takes}.") from error
    with told(f"{key}._target_={target}: its __init__"):
        return kind(**args)


def load_class(key: str, target: str, plugins: tuple[str, ...]) -> type[Any]:
    """The class of that name. ConfigError if `plugins` does not allow it, or it is not there."""
    module_name, _, name = target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{key}={target} must name a module and a class in it, like my_package.module.MyClass.")
    if not any(module_name == prefix or module_name.startswith(f"{prefix}.") for prefix in plugins):
        listed = ",".join((*plugins, module_name.partition(".")[0]))
        raise ConfigError(
            f"{key}={target}: classes come only from the modules in plugins={list(plugins)}; allow this one by "
            f"plugins='[{listed}]'."
        )
    module = _import(key, module_name)
    kind = getattr(module, name, None)
    if not inspect.isclass(kind):
        classes = [word for word, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(f"{key}={target}: {module_name} has no class {name}; {nearest(name, classes)}")
    return kind


def _import(key: str, module_name: str) -> Any:
    """The module; the current folder is searched last."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    with told(f"{key}: the import of {module_name}"):
        try:
            return importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise ConfigError(f"{key}: {module_name} needs a module that is not there: {error.name}.") from error
            raise ConfigError(
                f"{key}: there is no module {module_name} (looked in {here} and in what is installed)."
            ) from error
