"""From a problem of CORE to token sequences and the span of each that is scored.

    multiple choice      {query}{delimiter}{choice}               span: behind the tokens that all choices begin with
    schema               {context option}{delimiter}{continuation}    span: the tokens that all options end with
    language modelling   {context, trimmed}{delimiter}{continuation}  span: behind the prompt without continuation

Shots are rendered alike with their answer and followed by a blank line. Every prompt begins with bos.

Notable: the order of the problems and the shots of each are a function of the file and `max_per_task` alone, so they
are the same for every model, batch and number of ranks. What is longer than the model reads loses its beginning, and
the span moves with it.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nanochat.evals.core_bundle import CoreTask, Kind, Row

_ORDER_SEED = 1337
_SHOTS_SEED = 1234  # plus the index of the problem
Encode = Callable[[list[str]], list[list[int]]]


@dataclass(frozen=True)
class Candidate:
    """A sequence that begins with bos; its tokens from `start` on are scored, each from those before it."""

    tokens: list[int]
    start: int

    @property
    def scored(self) -> int:
        """Number of tokens scored."""
        return len(self.tokens) - self.start


@dataclass(frozen=True)
class Problem:
    """One problem as it is put to a model; `gold` is None where the single candidate is to be predicted exactly."""

    index: int
    candidates: tuple[Candidate, ...]
    gold: int | None


class Deck:
    """The problems of a task in the order in which they are asked, and the pool that their shots come from."""

    def __init__(self, task: CoreTask, rows: Sequence[Row], max_per_task: int) -> None:
        """`rows` in the order of the file; `max_per_task` -1 asks all."""
        self.task = task
        order = list(range(len(rows)))
        random.Random(_ORDER_SEED).shuffle(order)  # moves places, whatever stands on them: the same as shuffling rows
        shuffled = [rows[i] for i in order]
        self.rows = shuffled[:max_per_task] if max_per_task > 0 else shuffled
        self.lines = [i + 1 for i in order]
        self._pool = self.rows if len(self.rows) > task.shots else shuffled

    def __len__(self) -> int:
        """Number of problems asked."""
        return len(self.rows)

    def shots(self, index: int) -> list[Row]:
        """The solved examples in front of problem `index`: never itself; all others where they are too few."""
        others = [i for i in range(len(self._pool)) if i != index]
        chosen = random.Random(_SHOTS_SEED + index).sample(others, min(self.task.shots, len(others)))
        return [self._pool[i] for i in chosen]

    def prompts(self, index: int) -> list[str]:
        """The texts of problem `index`: one for each option; for language modelling without and with the answer."""
        row, delimiter = self.rows[index], self.task.delimiter
        before = "".join(f"{_solved(self.task.kind, shot, delimiter)}\n\n" for shot in self.shots(index))
        match self.task.kind:
            case Kind.multiple_choice:
                return [f"{before}{row['query']}{delimiter}{choice}" for choice in row["choices"]]
            case Kind.schema:
                return [f"{before}{option}{delimiter}{row['continuation']}" for option in row["context_options"]]
            case Kind.language_modeling:
                prompt = f"{before}{row['context'].strip()}{delimiter}"
                return [prompt.strip(), f"{prompt}{row['continuation']}"]

    def problems(self, indices: Sequence[int], encode: Encode, bos: int, longest: int) -> list[Problem]:
        """Problems ready to be scored by a model that reads `longest` tokens."""
        texts = [self.prompts(index) for index in indices]
        encoded = iter(encode([text for each in texts for text in each]))
        found = []
        for index, each in zip(indices, texts, strict=True):
            sequences = [[bos, *next(encoded)] for _ in each]
            candidates = tuple(_fitted(c, longest) for c in _spans(self.task.kind, sequences))
            gold = None if self.task.kind == Kind.language_modeling else int(self.rows[index]["gold"])
            found.append(Problem(index, candidates, gold))
        return found


def _solved(kind: Kind, row: Row, delimiter: str) -> str:
    """A shot: the problem with its answer."""
    match kind:
        case Kind.multiple_choice:
            return f"{row['query']}{delimiter}{row['choices'][row['gold']]}"
        case Kind.schema:
            return f"{row['context_options'][row['gold']]}{delimiter}{row['continuation']}"
        case Kind.language_modeling:
            return f"{row['context'].strip()}{delimiter}{row['continuation']}"


def _spans(kind: Kind, sequences: list[list[int]]) -> list[Candidate]:
    match kind:
        case Kind.multiple_choice:
            start = common_prefix(sequences)
            return [Candidate(tokens, start) for tokens in sequences]
        case Kind.schema:
            length = common_prefix([tokens[::-1] for tokens in sequences])
            return [Candidate(tokens, len(tokens) - length) for tokens in sequences]
        case Kind.language_modeling:
            without, whole = sequences
            return [Candidate(whole, min(len(without), len(whole)))]


def common_prefix(sequences: Sequence[list[int]]) -> int:
    """How many tokens all sequences begin with."""
    least, most = (
        min(sequences),
        max(sequences),
    )  # in the order of dictionaries: where these two agree, so do all between
    differing = (i for i, (one, other) in enumerate(zip(least, most, strict=False)) if one != other)
    return next(differing, min(len(least), len(most)))


def _fitted(candidate: Candidate, longest: int) -> Candidate:
    """The last `longest` tokens. The first token of a sequence cannot be scored: nothing stands before it."""
    cut = max(0, len(candidate.tokens) - longest)
    return Candidate(candidate.tokens[cut:], max(1, candidate.start - cut))
