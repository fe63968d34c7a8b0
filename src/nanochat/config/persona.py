"""`persona=`: who the model is to be. Read by stage=identity, which makes conversations of it."""

from dataclasses import dataclass

from nanochat.config.fields import identity


@dataclass(kw_only=True)
class PersonaConfig:
    """`prompt` describes the model to the one that writes the conversations; `traits` are single words or short
    phrases, `facts` whole sentences in the first person, which templates quote.

    `language`: same, it answers in the language it is spoken to, or the name of the one it always answers in.
    """

    name: str = identity()
    prompt: str = identity()
    traits: list[str] = identity()
    facts: list[str] = identity()
    language: str = identity()
