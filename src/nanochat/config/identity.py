"""`identity=`: how conversations about the persona are made. Read by stage=identity alone.

Notable: the roles are those of the conversations. A run of another stage reads a file of conversations, by its
content, and none of these keys (plan/plan.py leaves them out of its identity).
"""

from dataclasses import dataclass
from enum import StrEnum, auto

from nanochat.config.fields import cosmetic, identity, placement


class IdentityMode(StrEnum):
    """Who writes: a model behind an endpoint, packaged templates, or the endpoint where its key is there."""

    endpoint = auto()
    templates = auto()
    auto = "auto"


@dataclass(kw_only=True)
class IdentityConfig:
    """`count` conversations into `out`. What a conversation is about is drawn from the lists, by its number.

    `api_key_env` is the *name* of the environment variable that holds the key, null for a server that needs none.
    `requests_per_minute`, `temperature` and the prices may be null: no limit, the server's own, unknown.
    """

    mode: IdentityMode = identity()
    model: str = identity()
    temperature: float | None = identity(ge=0, le=2)
    max_turns: int = identity(ge=1, le=16)
    starters: str | None = identity()
    styles: list[str] = identity()
    topics: list[str] = identity()
    levels: list[str] = identity()
    lengths: list[str] = identity()
    languages: list[str] = identity()
    first_language: float = identity(ge=0, le=1)
    count: int = placement(ge=1)
    out: str = placement()
    append: bool = placement()
    endpoint: str = placement()
    api_key_env: str | None = placement()
    workers: int = placement(ge=1, le=256)
    requests_per_minute: float | None = placement(gt=0)
    retries: int = placement(ge=0)
    timeout: float = placement(gt=0)
    price_in: float | None = cosmetic(ge=0)
    price_out: float | None = cosmetic(ge=0)
