"""One answer under way, as those who asked for it see it."""

from nanochat.engine.noise import stream_key
from nanochat.engine.row import Row, Token
from nanochat.engine.sampling import SamplingParams
from nanochat.tokenizer.bpe import Tokenizer


class Sequence:
    """The tokens that follow a prompt, so far.

    tokens   what was written, the tool's included; the stop token is the last where `finish` is "stop"
    finish   None while it goes on; "stop", "length" or "cancelled"
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_ids: list[int], params: SamplingParams, sample: int, limit: int
    ) -> None:
        """Sample number `sample` of a prompt; at most `limit` tokens will follow."""
        self.prompt_ids = prompt_ids
        self.params = params
        self.limit = limit
        self.key = stream_key(params.seed, sample)
        self.tokens: list[Token] = []
        self.finish: str | None = None if limit else "length"
        self.drawn = 0  # tokens drawn, those included that the host has not read yet
        self._row = Row(tokenizer)

    @property
    def prompt_length(self) -> int:
        """Number of tokens of the prompt."""
        return len(self.prompt_ids)

    @property
    def positions(self) -> int:
        """How many positions it may come to take."""
        return self.prompt_length + self.limit

    @property
    def leaving(self) -> bool:
        """Nothing is left to compute for it, though the last token may not have been read yet."""
        return self.finish is not None or self.drawn == self.limit

    @property
    def forced_next(self) -> int | None:
        """The next token, where the tool decides it."""
        return self._row.forced_next

    def accept(self, sampled: int) -> bool:
        """Note what the model sampled at the next position; False if the sequence has ended and nothing changes."""
        if self.finish is not None:
            return False
        token = self._row.take(sampled)
        assert token is not None
        self.tokens.append(token)
        if self._row.done:
            self.finish = "stop"
        elif len(self.tokens) == self.limit:
            self.finish = "length"
        return True
