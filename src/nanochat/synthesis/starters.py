"""Lines grouped under headings `[about language]`: the packaged first messages and answers, and a user's own file."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from nanochat.errors import ConfigError, MissingError


@dataclass(frozen=True)
class Line:
    """One first message or answer. `about` and `language` are None above the first heading."""

    text: str
    about: str | None = None
    language: str | None = None


def parse_lines(text: str, name: str) -> list[Line]:
    """The lines of a file in the form of resources/starters.txt; # is a remark. ConfigError names file and line."""
    lines: list[Line] = []
    about = language = None
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("["):
            words = line.strip("[]").split()
            if not line.endswith("]") or len(words) != 2:
                raise ConfigError(
                    f"{name}:{number}: {line} is no heading; it is written [about language]: [name English]"
                )
            about, language = words
        elif line and not line.startswith("#"):
            lines.append(Line(line, about, language))
    return lines


def packaged(name: str) -> list[Line]:
    """The lines of a packaged file."""
    return parse_lines((files("nanochat.synthesis") / "resources" / name).read_text(encoding="utf-8"), name)


def load_starters(path: str | None) -> list[Line]:
    """The first messages: `identity.starters`, else the packaged ones. MissingError, ConfigError for a bad file."""
    if path is None:
        return packaged("starters.txt")
    file = Path(path).expanduser()
    if not file.is_file():
        raise MissingError(f"identity.starters={path}: no such file (looked for {file.absolute()})")
    try:
        lines = parse_lines(file.read_text(encoding="utf-8"), path)
    except UnicodeDecodeError as error:
        raise ConfigError(f"identity.starters={path} is not UTF-8 (byte {error.start + 1})") from error
    if not lines:
        raise ConfigError(f"identity.starters={path} holds no line; give one first message a line")
    return lines


def in_language(lines: list[Line], language: str) -> list[Line]:
    """The lines in a language and those without one; all English ones where there are none, else all."""
    own = [line for line in lines if line.language in (language, None)]
    return own or [line for line in lines if line.language == "English"] or lines
