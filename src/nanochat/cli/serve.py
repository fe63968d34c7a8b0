"""`nanochat serve [REF]`: the API and the web page of a model, on a port of this machine."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nanochat.checkpoint.find import ResolvedRef, newest_chat_ref, resolve_ref
from nanochat.cli.flags import Parser
from nanochat.config.runtime import ComputeDtype, Device, inference_runtime
from nanochat.errors import ConfigError, MissingError

if TYPE_CHECKING:
    from nanochat.serving.guard import Access
    from nanochat.serving.service import Service

_DEFAULT_BASE = "~/.cache/nanochat"
_KEY = "NANOCHAT_API_KEY"
_PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def main(argv: Sequence[str]) -> int:
    """Serves until Ctrl-C, which is no failure; returns the exit code."""
    options = _parse(argv)
    _check_packages()
    access = _access(options)
    base = Path(options.base_dir).expanduser().absolute()
    ref = resolve_ref(base, options.ref) if options.ref else newest_chat_ref(base)
    from nanochat.serving.app import create_app
    from nanochat.serving.server import listen, run, url_of

    listener = listen(options.host, options.port)
    with listener:
        url = url_of(listener)
        _warn(access)
        _say(f"loading {ref}")
        service = _service(ref, options)
        run(
            create_app(service, access),
            service,
            listener,
            lambda: _say(f"{ref} is at {url} (API: {url}/v1; Ctrl-C ends)"),
        )
    _say("ended")
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="nanochat serve", description="An OpenAI-compatible API and a web page.")
    add = parser.add_argument
    add("ref", nargs="?", help="stage/run[@step], a stage, or a path; default: the newest")
    add("--port", type=int, default=8000, help="0 takes a free one (default 8000)")
    add("--host", default="127.0.0.1", help="where to listen; 0.0.0.0: everywhere (default 127.0.0.1)")
    add("--api-key", help=f"clients have to send it (default: ${_KEY}, which other users of the machine cannot see)")
    add("--allow-origin", action="append", default=[], metavar="URL", help="a web page of another host that may ask")
    add("--replicas", default="auto", help="copies of the model; auto: one for each GPU, else one (default auto)")
    add("--device", choices=[str(d) for d in Device], default="auto")
    add("-t", "--temperature", type=float, default=0.6, help="of requests that name none (default 0.6)")
    add("-k", "--top-k", type=int, default=50, help="of requests that name none (default 50; 0: all)")
    add("--max-rows", type=int, default=32, help="answers written at the same time by a replica (default 32)")
    add("--max-queue", type=int, default=64, help="answers that may wait for each replica, then 429 (default 64)")
    add("--max-tokens", type=int, help="of one answer (default: what the context holds)")
    add("--max-turns", type=int, default=256, help="messages of a conversation (default 256)")
    add("--max-choices", type=int, default=8, help="answers to one request (default 8)")
    add("--max-body-bytes", type=int, default=1 << 20, help="of a request, then 413 (default 1048576)")
    add("--base-dir", default=os.environ.get("NANOCHAT_BASE_DIR") or _DEFAULT_BASE)
    options = parser.parsed(argv)
    _check_bounds(options)
    return options


def _check_bounds(options: argparse.Namespace) -> None:
    bounds = {"max_rows": 1, "max_queue": 0, "max_tokens": 1, "max_turns": 1, "max_choices": 1, "max_body_bytes": 1}
    for name, least in {**bounds, "top_k": 0}.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} {value} must be at least {least}")
    if not 0 <= options.temperature <= 2:
        raise ConfigError(f"--temperature {options.temperature} must be from 0 to 2")


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise MissingError(f"nanochat serve needs {', '.join(missing)}: pip install 'nanochat[serve]'")


def _access(options: argparse.Namespace) -> "Access":
    from nanochat.serving.guard import Access, check_origin

    if options.api_key is not None and not options.api_key.strip():
        raise ConfigError("--api-key is empty; leave it out for a server without one")
    key = options.api_key or os.environ.get(_KEY) or None
    for origin in options.allow_origin:
        check_origin(origin, key)
    return Access(host=options.host, api_key=key and key.strip(), origins=tuple(options.allow_origin))


def _warn(access: "Access") -> None:
    if not access.local and access.api_key is None:
        text = f"warning: {access.host} can be reached by others and there is no key: anybody may ask; set {_KEY}"
        print(text, file=sys.stderr, flush=True)


def _service(ref: ResolvedRef, options: argparse.Namespace) -> "Service":
    from nanochat.checkpoint.load import load_dims
    from nanochat.cli.replicas import engine_makers
    from nanochat.runtime.device import detect
    from nanochat.serving.limits import Defaults, Limits
    from nanochat.serving.service import Service
    from nanochat.tokenizer.bpe import Tokenizer

    machine = detect(inference_runtime(Device(options.device), ComputeDtype.auto))
    tokenizer = Tokenizer.load(ref.run_dir / "tokenizer")
    limits = {name: getattr(options, name) for name in vars(options) if name.startswith("max_")}
    return Service(
        model=str(ref),
        aliases=(f"{ref.stage}/{ref.run}", "nanochat"),
        tokenizer=tokenizer,
        context=load_dims(ref.path).seq_len,
        engines=engine_makers(ref, machine, tokenizer, options.replicas, options.max_rows),
        limits=Limits(**limits),
        defaults=Defaults(temperature=options.temperature, top_k=options.top_k or None),
        created=int(ref.path.stat().st_mtime),
    )
