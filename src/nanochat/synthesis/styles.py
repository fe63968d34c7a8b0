"""How a user puts a question: the styles and levels of the wishes, as changes to a plain sentence.

Notable: styles are free words of the config, so a style is recognised by a part of its name; one that is not known
changes nothing here and is for the endpoint alone.
"""

import random

# Part of a style's name -> what may stand in front of an English question, and what behind it.
_FRAMES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "friendly": (("Hi! ", "Hello friend. ", "Hope you are well. ", ""), ("", " :)", " Thanks!")),
    "curious": (("I have been wondering: ", "Now I am curious. ", "Something I always wanted to know: ", ""), ("",)),
    "formal": (("Good day. ", "Excuse me. ", "If I may ask: ", "Dear Sir or Madam, "), ("", " Kind regards.")),
    "playful": (("Riddle me this: ", "Psst! ", "Knock knock. ", "Okay, quiz time. "), ("", " Hehe.", " No cheating!")),
    "impatient": (("Quick: ", "Come on. ", "I have one minute. ", ""), (" Be brief.", " Hurry up.", " Now, please.")),
    "sceptical": (
        ("Honestly. ", "I do not trust machines, but: ", "Really now. "),
        ("", " I doubt it.", " Be honest."),
    ),
    "confused": (("Wait. ", "Sorry, I am lost. ", "Hm, I do not understand this. "), ("", " I am confused.", " Eh?")),
    "enthusiastic": (("Wow, ", "This is so cool! ", "Amazing! ", "Finally! "), ("", " I love this!", " Yay!")),
    "shy": (("Um, ", "Sorry to bother you. ", "I hope it is okay to ask: ", "Er... "), ("", " If you do not mind.")),
    "rude": (("Listen, machine. ", "Oi. ", "Hey you. ", "So, tin can: "), ("", " And no nonsense.")),
    "letter": (("My dear assistant, ", "I take up my pen to ask: ", "Esteemed machine, "), (" Yours truly.", "")),
    "text message": (("yo ", "hey ", "ok so ", ""), (" lol", " thx", "")),
}
_FOLLOWING = ("", "", "And ", "Okay. ", "I see. ", "Good. ", "Another question: ", "Interesting. ", "Hm. ", "Right. ")
_EMOJI = ("🙂", "😀", "🤔", "👋", "🙏", "✨", "🤖", "😅")
_LEVELS = ("I am {}. ", "As {}, I want to ask: ", "You should know that I am {}. ")


def ask(text: str, style: str, framed: bool, rng: random.Random) -> str:
    """The question in the style; `framed`: with English words around it, else only its marks and letters change."""
    for word, (before, behind) in _FRAMES.items():
        if framed and word in style:
            text = rng.choice(before) + text + rng.choice(behind)
    if "terse" in style:
        text = text.rstrip("?.!？。 ")
    if "lower case" in style or "text message" in style:
        text = "".join(c for c in text.lower() if c not in "?.,!;:'")
    if "typing errors" in style:
        text = _mistyped(text, rng)
    if "emoji" in style:
        text = " ".join([text, *rng.sample(_EMOJI, rng.randint(1, 3))])
    return text


def follow(text: str, rng: random.Random) -> str:
    """A question that is not the first."""
    lead = rng.choice(_FOLLOWING)
    return lead + (text[:1].lower() + text[1:] if lead == "And " and text[:2] != "I " else text)


def introduce(text: str, level: str, rng: random.Random) -> str:
    """One question in four says who asks."""
    return rng.choice(_LEVELS).format(level) + text if rng.random() < 0.25 else text


def _mistyped(text: str, rng: random.Random) -> str:
    """Two letters swapped, doubled or lost, in about one word of three."""
    return " ".join(_slip(word, rng) if len(word) > 3 and rng.random() < 0.35 else word for word in text.split(" "))


def _slip(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word) - 1)
    kind = rng.randrange(3)
    if kind == 0:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at] * 2 * (kind == 1) + word[at + 1 :]
