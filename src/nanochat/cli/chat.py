"""`nanochat chat [REF]`: talk to a model in the terminal, streaming, tool calls shown.

Notable: with -p stdout gets the answer and nothing else, so it fits into a pipe. A Ctrl-C during an answer sets a flag
that is looked at between tokens; a second one does not wait for the token. What a model writes cannot steer the
terminal: control characters are shown as pictures there.
"""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from nanochat.checkpoint.find import ResolvedRef, newest_chat_ref, resolve_ref
from nanochat.cli.flags import Parser
from nanochat.config.runtime import ComputeDtype, Device, inference_runtime
from nanochat.errors import ConfigError, NanochatError

_DEFAULT_BASE = "~/.cache/nanochat"
_INTERRUPTED = 130
# C0 and DEL become their pictures, C1 a replacement character; newline and tab stay
_PICTURES = {i: 0x2400 + i for i in range(32) if chr(i) not in "\n\t"} | {127: 0x2421}
_PICTURES |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)


def main(argv: Sequence[str]) -> int:
    """One answer with -p, else a conversation; returns the exit code."""
    options = _parse(argv)
    base = Path(options.base_dir).expanduser().absolute()
    ref = resolve_ref(base, options.ref) if options.ref else newest_chat_ref(base)
    if not options.ref:
        say(f"({ref})")
    prompt = None if options.prompt is None else _prompt(options.prompt)
    talk = Talk(ref, options)
    if prompt is not None:
        return 0 if talk.answer(prompt) else _INTERRUPTED
    return _converse(talk, ref)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="nanochat chat", description="Talk to a model.")
    add = parser.add_argument
    add("ref", nargs="?", help="stage/run[@step], a stage, or a path; default: the newest of rl, sft, mid, base")
    add("-p", "--prompt", help="print the answer to this and end; - reads it from stdin")
    add("--system", help="a system message in front of the conversation")
    add("-t", "--temperature", type=float, default=0.6, help="0 takes the likeliest token (default 0.6)")
    add("-k", "--top-k", type=int, default=50, help="draw from so many tokens (default 50; 0: all)")
    add("--top-p", type=float, default=1.0, help="draw from the likeliest tokens up to this share (default 1: all)")
    add("--min-p", type=float, default=0.0, help="only tokens with this share of the likeliest one's (default 0: all)")
    add("--repetition-penalty", type=float, default=1.0, help="above 1 avoids what was said (default 1)")
    add("-n", "--max-new-tokens", type=int, default=256, help="length of an answer at most (default 256)")
    add("--seed", type=int, default=42, help="of the sampling (default 42)")
    add("--device", choices=[str(d) for d in Device], default="auto", help="(default auto)")
    add("--dtype", choices=[str(d) for d in ComputeDtype], default="auto", help="of the computation (default auto)")
    add("--base-dir", default=os.environ.get("NANOCHAT_BASE_DIR") or _DEFAULT_BASE, help="where the runs are")
    return parser.parsed(argv)


def _prompt(given: str) -> str:
    """The text of -p, from stdin if it is `-`. ConfigError if there is none."""
    text = sys.stdin.buffer.read().decode("utf-8", errors="replace").rstrip("\n") if given == "-" else given
    if not text.strip():
        raise ConfigError(f"-p {given!r}: the prompt is empty; give a text, or - and a text on stdin")
    return whole(text)


class Talk:
    """A loaded model, a conversation with it and the parameters of its answers."""

    def __init__(self, ref: ResolvedRef, options: argparse.Namespace) -> None:
        """Loads the checkpoint. ConfigError before that if a parameter means nothing."""
        from nanochat.engine.sampling import SamplingParams, check_params

        self.params = SamplingParams(
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k or None,
            top_p=options.top_p,
            min_p=options.min_p,
            repetition_penalty=options.repetition_penalty,
            seed=options.seed,
        )
        check_params(self.params)
        self._load(ref, options)

    def _load(self, ref: ResolvedRef, options: argparse.Namespace) -> None:
        from nanochat.engine.chat import ChatSession
        from nanochat.engine.engine import Engine
        from nanochat.runtime.device import detect
        from nanochat.stages.inference import load_for_inference
        from nanochat.tokenizer.bpe import Tokenizer

        runtime = inference_runtime(Device(options.device), ComputeDtype(options.dtype))
        machine = detect(runtime)
        tokenizer = Tokenizer.load(ref.run_dir / "tokenizer")
        engine = Engine(load_for_inference(ref, machine), tokenizer, machine.device)
        self.session = ChatSession(engine, tokenizer, system=options.system, notify=say)

    def answer(self, text: str) -> bool:
        """Prints the answer as it is made; False if Ctrl-C ended it. It stays in the history as far as it got."""
        plain = not sys.stdout.isatty()
        with _interruptible() as pressed, suppress(KeyboardInterrupt):
            for piece in self.session.reply(text, self.params, stopped=lambda: bool(pressed)):
                print(piece if plain else piece.translate(_PICTURES), end="", flush=True)
        print(flush=True)
        if self.session.finish == "length":
            say(f"(cut off after {self.params.max_new_tokens} tokens or at the end of the context)")
        return not pressed


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Within the block the first Ctrl-C is noted in the list, the second raises KeyboardInterrupt."""
    pressed: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            raise KeyboardInterrupt

    former = signal.signal(signal.SIGINT, handle)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, former)


def _converse(talk: Talk, ref: ResolvedRef) -> int:
    from nanochat.cli.chat_commands import Commands

    with suppress(ImportError):  # not on every system; input() edits lines by it
        import readline  # noqa: F401
    signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"{ref}. /help lists the commands, Ctrl-C stops an answer, /quit or Ctrl-D ends.")
    commands = Commands(talk)
    while not commands.done:
        try:
            print()
            text = whole(input("you: ")).strip()
            if text.startswith("/"):
                commands.run(text)
            elif text:
                print("nanochat: ", end="", flush=True)
                talk.answer(text)
        except EOFError:
            print()
            break
        except KeyboardInterrupt:
            print("\n(/quit or Ctrl-D ends)")
        except NanochatError as error:
            sys.stdout.flush()
            say(f"error: {' '.join(str(error).split())}")
    return 0


def whole(text: str) -> str:
    """Bytes of the terminal or command line that are no UTF-8 become replacement characters."""
    return text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def say(text: str) -> None:
    """For the user's eyes, never part of an answer."""
    print(text, file=sys.stderr, flush=True)
