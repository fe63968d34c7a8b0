"""What the endpoint is asked: the persona, the wish, and the shape of the answer."""

from typing import Any

from nanochat.config.persona import PersonaConfig
from nanochat.synthesis.wishes import Wish

SAME = "same"  # persona.language: the model answers in the language it is spoken to

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "messages": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "role": {"type": "string", "enum": ["user", "assistant"]},
                    "content": {"type": "string"},
                },
                "required": ["role", "content"],
                "additionalProperties": False,
            },
        }
    },
    "required": ["messages"],
    "additionalProperties": False,
}

# How the answer's form is asked for, strictest first; an endpoint that refuses one is asked in the next.
FORMATS: tuple[dict[str, Any] | None, ...] = (
    {"type": "json_schema", "json_schema": {"name": "conversation", "strict": True, "schema": SCHEMA}},
    {"type": "json_object"},
    None,
)


def messages_for(persona: PersonaConfig, wish: Wish) -> list[dict[str, str]]:
    """The request: who the assistant is, then what this one conversation is to be like."""
    return [{"role": "system", "content": _system(persona)}, {"role": "user", "content": _user(persona, wish)}]


def _system(persona: PersonaConfig) -> str:
    facts = "\n".join(f"- {fact}" for fact in persona.facts) or "- (none)"
    return (
        "You write training data: realistic conversations between a user and a chat assistant.\n"
        f"The assistant's name is {persona.name}. It never has another name and is no other assistant, and it does not "
        "claim to be made by the company that made you.\n\n"
        f"About it:\n{persona.prompt}\n\n"
        f"Its character: {', '.join(persona.traits) or 'plain'}.\n\n"
        f"What is true of it, in its own words (use what fits, contradict none, invent no others):\n{facts}\n\n"
        "Answer with one JSON object and nothing else: "
        '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}, ...]}. '
        "The user speaks first, the two alternate, the assistant speaks last. Content is plain text, without markup "
        "and without a role's name in front."
    )


def _user(persona: PersonaConfig, wish: Wish) -> str:
    same = persona.language == SAME
    answers = "in the same language" if same else f"always in {persona.language}"
    return (
        f"Write one conversation in which the user writes {wish.turns} "
        f"{'message' if wish.turns == 1 else 'messages'}.\n"
        f"- The user writes in {wish.language}; the assistant answers {answers}.\n"
        f"- The user is {wish.level}.\n"
        f"- The user's style: {wish.style}.\n"
        f"- It is about: {wish.topic}.\n"
        f"- Each answer has the length of {wish.length}.\n"
        f"- The user might begin with something like: {wish.starter.text}\n"
        "Vary the wording freely. Let the assistant's character show without listing it."
    )
