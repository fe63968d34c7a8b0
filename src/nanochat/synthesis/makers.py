"""The two makers of drafts: an endpoint and the templates. And which of them it is to be."""

import threading
from collections.abc import Callable, Mapping, Sequence

import httpx

from nanochat.config.identity import IdentityConfig, IdentityMode
from nanochat.config.persona import PersonaConfig
from nanochat.errors import ConfigError, MissingError
from nanochat.synthesis.endpoint import Endpoint, Target
from nanochat.synthesis.generate import Draft, Maker
from nanochat.synthesis.limits import Pace
from nanochat.synthesis.parse import Refused, parse_conversation
from nanochat.synthesis.prompt import messages_for
from nanochat.synthesis.starters import Line
from nanochat.synthesis.templates import Writer
from nanochat.synthesis.wishes import Wish

TEMPLATES = "templates"
_ENDPOINT_PATIENCE = 20  # refusals in a row; a good model is refused one time in fifty
_TEMPLATE_PATIENCE = 2000  # templates cost nothing, and repeat themselves when they are nearly exhausted


def choose_mode(config: IdentityConfig, environment: Mapping[str, str]) -> IdentityMode:
    """`mode`, with auto decided: the endpoint if it needs no key or has one. Raises MissingError, ConfigError."""
    if config.mode != IdentityMode.templates and not config.endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"identity.endpoint={config.endpoint} is no URL; it begins with http:// or https://")
    keyless = config.api_key_env is None
    has_key = keyless or bool(environment.get(config.api_key_env or "", "").strip())
    if config.mode == IdentityMode.endpoint and not has_key:
        raise MissingError(
            f"identity.mode=endpoint, but the environment variable {config.api_key_env} "
            f"(identity.api_key_env) is not set; export it, or take identity.api_key_env=null for an endpoint without "
            f"keys, or identity.mode=templates"
        )
    if config.mode != IdentityMode.auto:
        return config.mode
    return IdentityMode.endpoint if has_key else IdentityMode.templates


def template_maker(persona: PersonaConfig, config: IdentityConfig, starters: Sequence[Line]) -> Maker:
    """Templates, one after the other, so that every run makes the same."""
    writer = Writer(persona, config, starters)
    return Maker(TEMPLATES, lambda wish: Draft(writer.write(wish)), 1, _TEMPLATE_PATIENCE)


def endpoint_maker(
    persona: PersonaConfig,
    config: IdentityConfig,
    environment: Mapping[str, str],
    stop: threading.Event,
    told: Callable[[str], None],
    transport: httpx.BaseTransport | None = None,
) -> tuple[Maker, Endpoint]:
    """The endpoint, which the caller closes."""
    name = config.api_key_env
    key = environment.get(name, "").strip() if name else None
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {name} holds no key: there are characters in it that no key has")
    target = Target(config.endpoint, config.model, config.temperature, config.timeout, config.retries, key, name)
    endpoint = Endpoint(target, Pace(config.requests_per_minute, stop), told, transport)

    def make(wish: Wish) -> Draft:
        answer = endpoint.ask(messages_for(persona, wish))
        try:
            return Draft(parse_conversation(answer.text), None, answer.tokens_in, answer.tokens_out)
        except Refused as error:
            return Draft(None, str(error), answer.tokens_in, answer.tokens_out)

    patience = max(_ENDPOINT_PATIENCE, 2 * config.workers)
    return Maker(config.model, make, config.workers, patience), endpoint
