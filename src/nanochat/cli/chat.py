"""`nanochat chat [REF]`: talk to a model in the terminal, streaming, tool calls shown."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nanochat.checkpoint.find import ResolvedRef, newest_chat_ref, resolve_ref
from nanochat.config.runtime import ComputeDtype, Device, RuntimeConfig

_DEFAULT_BASE = "~/.cache/nanochat"
_HELP = "/clear forgets the conversation, /quit or Ctrl-D ends; Ctrl-C stops an answer"


def main(argv: Sequence[str]) -> int:
    """One answer with -p, else a conversation; returns the exit code."""
    options = _parse(argv)
    base = Path(options.base_dir).expanduser().absolute()
    ref = resolve_ref(base, options.ref) if options.ref else newest_chat_ref(base)
    if not options.ref:
        print(f"({ref})", file=sys.stderr)
    talk = _Talk(ref, options)
    if options.prompt is not None:
        talk.answer(options.prompt)
        return 0
    return _converse(talk, ref)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nanochat chat", description="Talk to a model.")
    parser.add_argument("ref", nargs="?", help="stage/run[@step], a stage, or a path; default: the newest")
    parser.add_argument("-p", "--prompt", help="print the answer to this and end")
    parser.add_argument(
        "-t", "--temperature", type=float, default=0.6, help="0 takes the likeliest token (default 0.6)"
    )
    parser.add_argument("-k", "--top-k", type=int, default=50, help="draw from so many tokens (default 50; 0: all)")
    parser.add_argument(
        "-n", "--max-new-tokens", type=int, default=256, help="length of an answer at most (default 256)"
    )
    parser.add_argument("--seed", type=int, default=42, help="of the sampling (default 42)")
    parser.add_argument("--device", choices=[str(d) for d in Device], default="auto")
    parser.add_argument("--base-dir", default=os.environ.get("NANOCHAT_BASE_DIR") or _DEFAULT_BASE)
    words = [f"--base-dir={w.partition('=')[2]}" if w.startswith("base_dir=") else w for w in argv]
    return parser.parse_args(words)


class _Talk:
    """A loaded model with a conversation."""

    def __init__(self, ref: ResolvedRef, options: argparse.Namespace) -> None:
        from nanochat.engine.chat import ChatSession
        from nanochat.engine.engine import Engine
        from nanochat.engine.sampling import SamplingParams
        from nanochat.runtime.device import detect
        from nanochat.stages.inference import load_for_inference
        from nanochat.tokenizer.bpe import Tokenizer

        runtime = RuntimeConfig(
            device=Device(options.device),
            dtype=ComputeDtype.auto,
            compile=False,
            activation_checkpointing=False,
            num_threads=None,
        )
        machine = detect(runtime)
        tokenizer = Tokenizer.load(ref.run_dir / "tokenizer")
        engine = Engine(load_for_inference(ref, machine), tokenizer, machine.device)
        self.params = SamplingParams(
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature,
            top_k=options.top_k or None,
            seed=options.seed,
        )
        self.session = ChatSession(engine, tokenizer, notify=lambda text: print(text, file=sys.stderr))

    def answer(self, text: str) -> None:
        """Prints the answer as it is made. Ctrl-C ends the answer, which stays in the history as far as it got."""
        pieces = self.session.reply(text, self.params)
        try:
            for piece in pieces:
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pieces.close()  # type: ignore[attr-defined]
        print(flush=True)


def _converse(talk: _Talk, ref: ResolvedRef) -> int:
    print(f"{ref}. {_HELP}")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    while True:
        try:
            text = input("\nyou: ").strip()
        except EOFError:
            print()
            return 0
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit ends)")
            continue
        if text in ("/quit", "/exit"):
            return 0
        if text == "/clear":
            talk.session.clear()
            print("(forgotten)")
        elif text.startswith("/"):
            print(_HELP)
        elif text:
            print("nanochat: ", end="", flush=True)
            talk.answer(text)
