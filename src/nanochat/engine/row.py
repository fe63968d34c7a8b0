"""One sequence being written: watches its tokens, calls the tool, knows when it is finished.

Notable: what the tool answers is *forced*: those tokens replace the sampled ones, step by step, and are marked,
so that training on generated text can leave them out.
"""

from collections import deque
from dataclasses import dataclass

from nanochat.engine.calculator import calculate
from nanochat.tokenizer.bpe import Tokenizer


@dataclass(frozen=True)
class Token:
    """One position of generated text; `forced` if the tool wrote it instead of the model."""

    id: int
    forced: bool


class Row:
    """State of one sequence. `done` after <|assistant_end|> or <|bos|>, which are still handed out as tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """A row that stands at the end of its prompt."""
        self._tokenizer = tokenizer
        self._stops = {tokenizer.special("<|assistant_end|>"), tokenizer.bos}
        self._python_start = tokenizer.special("<|python_start|>")
        self._python_end = tokenizer.special("<|python_end|>")
        self._call: list[int] | None = None  # ids since <|python_start|>
        self._forced: deque[int] = deque()
        self.done = False

    @property
    def forced_next(self) -> int | None:
        """The token that will stand at the next position whatever the model samples there; None if it decides."""
        return self._forced[0] if self._forced else None

    def take(self, sampled: int) -> Token | None:
        """What stands at the next position, given what the model sampled there; None once done."""
        if self.done:
            return None
        token = Token(self._forced.popleft(), True) if self._forced else Token(sampled, False)
        if not token.forced:
            self._observe(token.id)
        return token

    def _observe(self, token: int) -> None:
        if token in self._stops:
            self.done = True
        elif token == self._python_start:
            self._call = []
        elif token == self._python_end and self._call is not None:
            self._forced.extend(self._answer(self._call))
            self._call = None
        elif self._call is not None:
            self._call.append(token)

    def _answer(self, call: list[int]) -> list[int]:
        """The tool's output with its delimiters; nothing if it has no answer, and the model goes on by itself."""
        tok = self._tokenizer
        result = calculate(tok.decode_bytes(call).decode("utf-8", errors="replace"))
        if result is None:
            return []
        return [tok.special("<|output_start|>"), *tok.encode(result), tok.special("<|output_end|>")]
