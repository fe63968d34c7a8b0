"""How people ask how often a letter is in a word. Written for this project."""

import random

CANONICAL = "How many {letter} are in {word}?"

PHRASINGS = (
    CANONICAL,
    "How many {letter} are in the word {word}?",
    "How many {letter} are there in {word}?",
    "How many {letter}s are in {word}?",
    "How many {letter}s are there in {word}?",
    "How many {letter}s does {word} have?",
    "How many {letter} does the word {word} contain?",
    "How many {letter} can you find in {word}?",
    "How many {letter} do you see in {word}?",
    "How many times is {letter} in {word}?",
    "How many times does {letter} appear in {word}?",
    "How many times does {letter} occur in the word {word}?",
    "How many times does the letter {letter} come up in {word}?",
    "How many times do I write {letter} when I write {word}?",
    "How many letters {letter} are in {word}?",
    "How many of the letters in {word} are {letter}?",
    "How often is {letter} in {word}?",
    "How often does {letter} show up in {word}?",
    "How often does the letter {letter} occur in {word}?",
    "How often do you need {letter} to spell {word}?",
    "Count the {letter} in {word}.",
    "Count the {letter}s in {word}.",
    "Count the letter {letter} in the word {word}.",
    "Count how often {letter} is used in {word}.",
    "Count every {letter} you find in {word}.",
    "Please count the {letter} in {word}.",
    "Please count how many {letter} there are in {word}.",
    "Can you count the {letter} in {word}?",
    "Can you count the letter {letter} in {word} for me?",
    "Can you tell me how many {letter} are in {word}?",
    "Could you count the {letter} in the word {word}?",
    "Could you check how many {letter} {word} has?",
    "Would you count the {letter} in {word}?",
    "Do you know how many {letter} are in {word}?",
    "Tell me how many {letter} are in {word}.",
    "Tell me the number of {letter} in {word}.",
    "Find the number of {letter} in {word}.",
    "Find all {letter} in {word} and count them.",
    "Give me the number of times {letter} is in {word}.",
    "What is the number of {letter}s in {word}?",
    "What is the count of {letter} in {word}?",
    "What number of {letter} does {word} have?",
    "In {word}, how many {letter} are there?",
    "In the word {word}, how many letters are {letter}?",
    "In {word}, how often do you see {letter}?",
    "Look at {word}. How many {letter} are in it?",
    "Look at the word {word} and count its {letter}.",
    "Take the word {word}. How often does it have {letter}?",
    "My word is {word}. How many {letter} does it have?",
    "I wrote {word}. How many {letter} did I write?",
    "I want to know how many {letter} are in {word}.",
    "I wonder how many {letter} {word} has.",
    "Let us count the {letter} in {word}.",
    "Quick question: how many {letter} are in {word}?",
    "Word: {word}. Letter: {letter}. How many?",
    "Number of {letter} in {word}?",
    "Number of times {letter} is in {word}",
    "{word}: how many {letter}?",
    "{word} has how many {letter}?",
    "Spell {word} and count the {letter}.",
)

# How a letter and a word are set off from the sentence; plain ones are the most frequent.
LETTER_STYLES = ("{}", "{}", "'{}'", '"{}"')
WORD_STYLES = ("{}", "{}", "{}", "'{}'", '"{}"')


def phrase(word: str, letter: str, rng: random.Random) -> str:
    """The question in a wording drawn from `rng`: template, quotes, at times all small or without its last mark."""
    template = rng.choice(PHRASINGS)
    if rng.random() < 0.2:
        template = template[0].lower() + template[1:]
    if rng.random() < 0.2:
        template = template.rstrip("?.")
    return template.format(letter=rng.choice(LETTER_STYLES).format(letter), word=rng.choice(WORD_STYLES).format(word))
