"""What the persona's own conversations must not say: that it is somebody else.

Notable: these are rules of thumb on the assistant's messages. They look for a claim ("I am", "my name is", in several
languages) with another name right behind it; a sentence that only mentions other assistants passes.
"""

import re
from functools import cache

from nanochat.config.persona import PersonaConfig
from nanochat.synthesis.parse import Refused
from nanochat.tasks.base import Conversation

# Names that models which write such data give themselves, and who makes them.
ASSISTANTS = (
    "ChatGPT", "GPT-?\\d\\w*", "GPT", "Claude", "Gemini", "Bard", "Copilot", "Llama", "LLaMA", "Mistral", "Mixtral",
    "Qwen",
    "Tongyi", "DeepSeek", "Grok", "Kimi", "Doubao", "ERNIE", "Phi-?\\d", "Command R\\+?", "Alexa", "Siri", "Cortana",
    "Bing", "Perplexity", "GLM-?\\d?", "Gemma", "Nova", "Pi",
)  # fmt: skip
MAKERS = (
    "OpenAI", "Anthropic", "Google", "DeepMind", "Meta", "Microsoft", "Mistral AI", "Alibaba", "DeepSeek", "xAI",
    "Amazon", "Apple", "Baidu", "Moonshot", "Cohere", "Tencent", "ByteDance", "Zhipu",
)  # fmt: skip
_CLAIM = (
    r"(?:\bI am|\bI'm|\bI’m|\bmy name is|\bcall me|\bthis is|\bich bin|\bich heiße|\bmein name ist|\bje suis"
    r"|\bje m'appelle|\bsoy|\bme llamo|\bmi nombre es|\bsono|\bmi chiamo|\b(?:eu )?sou|\bmeu nome é|\bme chamo"
    r"|\bik ben|\bik heet|\bjestem|\bnazywam się|\bbenim adım|\bben|\bя|\bменя зовут|我是|我叫|私は|저는|أنا)"
)
_MADE = (
    r"(?:made|created|trained|developed|built|designed|entwickelt|trainiert|développé|créé|desarrollad[oa]|cread[oa])"
)
_BETWEEN = r"[ ,:]{0,2}(?:(?:a|an|the|ein|eine|un|une|el|la|il|o|een) )?[\"'*]{0,2}"
_OWN_NAME = re.compile(
    r"\b(?:my name is|mein name ist|mi nombre es|je m'appelle|mi chiamo|me llamo)\s+[\"'*]*(\w+)", re.I
)


def check_persona(conversation: Conversation, persona: PersonaConfig) -> None:
    """Raises Refused if the assistant takes another's name or maker, or gives itself a name that is not its own."""
    claim, maker = _patterns(" ".join([persona.name, persona.prompt, *persona.facts]))
    for message in conversation["messages"]:
        if message["role"] != "assistant":
            continue
        text = message["content"]
        if claim.search(text):
            raise Refused("takes the name of another assistant")
        said = maker.search(text)
        if said and not re.search(r"\b(?:not|never|nicht|pas|no|non)\b|n't", said[0], re.I):
            raise Refused("claims another maker")
        if any(name.casefold() not in persona.name.casefold() for name in _OWN_NAME.findall(text)):
            raise Refused("gives itself another name")


@cache
def _patterns(own: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Claims of another's name and of another maker, for a persona whose text is `own`."""
    names, makers = _alternatives(ASSISTANTS, own), _alternatives(MAKERS, own)
    subject = rf"\b(?:I was|I am|I'm|I’ve been|I've been|{_CLAIM})\b"
    made = rf"{subject}[^.!?\n]{{0,40}}?{_MADE}[^.!?\n]{{0,20}}?\b(?:{makers})(?!\w)"
    return re.compile(rf"{_CLAIM}{_BETWEEN}(?:{names})(?!\w)", re.I), re.compile(made, re.I)


def _alternatives(words: tuple[str, ...], own: str) -> str:
    """The words as a pattern, but for those that the persona's own text has: they are its business."""
    foreign = [word for word in words if re.search(rf"(?<!\w){word}(?!\w)", own, re.I) is None]
    return "|".join(sorted(foreign, key=len, reverse=True)) or r"(?!)"
