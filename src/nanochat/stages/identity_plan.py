"""What stage=identity would do: how many conversations, by whom, at what price, and what they may look like."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nanochat.config.checks_identity import check_identity
from nanochat.config.identity import IdentityMode
from nanochat.stages.job import Job
from nanochat.synthesis.makers import choose_mode, template_maker
from nanochat.synthesis.project import Project
from nanochat.synthesis.prompt import messages_for
from nanochat.synthesis.starters import load_starters
from nanochat.synthesis.wishes import make_wish
from nanochat.synthesis.workfile import WORK_FILE, count_accepted

_PROMPT_CHARS_PER_TOKEN = 4.0  # English, in common vocabularies
_TOKENS_PER_TURN = 110  # written for one question, its answer and their JSON, of a few sentences
_SHOWN = 3  # conversations of a dry run
_SAMPLE = 50  # prompts that the length is estimated from


def out_path(job: Job) -> Path:
    """`identity.out`, absolute."""
    return Path(os.path.abspath(Path(job.config.identity.out).expanduser()))  # noqa: PTH100 - links stay as they are


def identity_rows(job: Job) -> list[list[Any]]:
    """Name, value and rule of each number. Raises what the stage itself would raise against the config."""
    config, identity = job.config, job.config.identity
    check_identity(config)
    mode = choose_mode(identity, os.environ)
    there = min(count_accepted(job.run_dir / WORK_FILE), identity.count)
    rows: list[list[Any]] = [
        ["persona", config.persona.name, "persona.name"],
        ["conversations", identity.count, "identity.count"],
        ["of them there already", there, f"{job.run_dir / WORK_FILE}"],
        ["written by", f"{identity.model} at {identity.endpoint}" if _asks(mode) else "templates", _why(job, mode)],
    ]
    if _asks(mode):
        rows += _estimate(job, identity.count - there)
    return [*rows, ["file", str(out_path(job)), "identity.out"]]


def _asks(mode: IdentityMode) -> bool:
    return mode == IdentityMode.endpoint


def _why(job: Job, mode: IdentityMode) -> str:
    identity = job.config.identity
    if identity.mode != IdentityMode.auto:
        return "identity.mode"
    if mode == IdentityMode.templates:
        return f"identity.mode=auto, and ${identity.api_key_env} is not set"
    return "identity.mode=auto, and " + (
        f"${identity.api_key_env} is set" if identity.api_key_env else "the endpoint needs no key"
    )


def _estimate(job: Job, missing: int) -> Sequence[list[Any]]:
    """Requests, tokens, dollars and the shortest time, for what is missing."""
    identity = job.config.identity
    starters = load_starters(identity.starters)
    wishes = [make_wish(number, identity, starters, job.config.seed) for number in range(_SAMPLE)]
    chars = sum(len(m["content"]) for wish in wishes for m in messages_for(job.config.persona, wish)) / _SAMPLE
    turns = sum(wish.turns for wish in wishes) / _SAMPLE
    read = round(missing * chars / _PROMPT_CHARS_PER_TOKEN)
    written = round(missing * turns * _TOKENS_PER_TURN)
    rows: list[list[Any]] = [
        ["requests, at least", missing, "one a conversation; refused ones and repetitions come on top"],
        ["tokens read, about", read, f"{chars:.0f} characters a prompt, {_PROMPT_CHARS_PER_TOKEN:g} a token"],
        ["tokens written, about", written, f"{turns:.1f} questions a conversation, {_TOKENS_PER_TURN} tokens each"],
    ]
    if identity.price_in is not None and identity.price_out is not None:
        dollars = (read * identity.price_in + written * identity.price_out) / 1e6
        rows.append(["dollars, about", f"{dollars:.2f}", "identity.price_in, identity.price_out"])
    else:
        rows.append(["dollars, about", "unknown", "identity.price_in, identity.price_out are not both set"])
    if identity.requests_per_minute is not None:
        rows.append(
            ["minutes, at least", f"{missing / identity.requests_per_minute:.1f}", "identity.requests_per_minute"]
        )
    return rows


def identity_examples(job: Job, project: Project) -> str:
    """The request for the first conversation; with templates the first few conversations."""
    persona, options = job.config.persona, job.config.identity
    if project.mode == IdentityMode.endpoint:
        shown = [messages_for(persona, project.wish(0))]
    else:
        maker = template_maker(persona, options, project.starters)
        drafts = [maker.make(project.wish(number)) for number in range(_SHOWN)]
        shown = [draft.conversation["messages"] for draft in drafts if draft.conversation is not None]
    return "\n\n".join("\n".join(f"{m['role']}: {m['content']}" for m in messages) for messages in shown)
