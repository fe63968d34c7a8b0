"""What single values of persona= and identity= cannot show. Checked by the stage that reads them."""

from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError

_LISTS = ("styles", "topics", "levels", "lengths", "languages")


def check_identity(config: RunConfig) -> None:
    """Raises ConfigError naming the key that is empty or does not go with another."""
    identity, persona = config.identity, config.persona
    for key in _LISTS:
        if not getattr(identity, key):
            raise ConfigError(f"identity.{key}=[] is empty; it needs at least one entry, [plain]")
    texts = {"persona.name": persona.name, "persona.prompt": persona.prompt, "persona.language": persona.language}
    for key, value in {**texts, "identity.out": identity.out, "identity.model": identity.model}.items():
        if not value.strip():
            raise ConfigError(f"{key}= is empty; it must hold text")
    if "\n" in persona.name.strip():
        raise ConfigError("persona.name must be one line")
    prices = {"identity.price_in": identity.price_in, "identity.price_out": identity.price_out}
    unset = [key for key, value in prices.items() if value is None]
    if len(unset) == 1:
        raise ConfigError(f"{unset[0]} is not set, but the other price is; a cost needs both, or neither")
