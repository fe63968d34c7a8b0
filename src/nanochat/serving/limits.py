"""What one client may ask, what all may ask together, and what a request gets that does not say."""

from dataclasses import dataclass

MAX_STOPS = 16  # stop strings of a request
MAX_STOP_CHARS = 256  # of each: so much text may have to be held back
LEAST_PENALTY = 0.01  # a repetition_penalty: logits divided by less overflow, which ends the engine


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the service. A row is one answer being written; a request with n=4 needs four."""

    max_body_bytes: int = 1 << 20
    max_turns: int = 256  # messages of a conversation
    max_tokens: int | None = None  # of one answer; None: as many as the context holds
    max_choices: int = 8  # answers a request (n, times the number of prompts)
    max_rows: int = 32  # answers written at the same time, each replica
    max_queue: int = 64  # further answers that may wait, each replica
    body_seconds: float = 30.0  # for a client to send its body
    grace_seconds: float = 3.0  # for running answers when the server is told to end


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How an answer is drawn if the request does not say: as `nanochat chat` does."""

    temperature: float = 0.6
    top_k: int | None = 50
    completion_tokens: int = 16  # of /v1/completions, as the OpenAI API has it
