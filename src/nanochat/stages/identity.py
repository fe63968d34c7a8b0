"""The identity stage: conversations about the persona, which mid and sft read.

Everything is kept in the run folder while it is made; `identity.out` appears when it is whole.
"""

import os
import shutil
import time
from typing import Any

import yaml

from nanochat.config.checks_identity import check_identity
from nanochat.config.frozen import write_config
from nanochat.config.identity import IdentityMode
from nanochat.reporting.tables import markdown_table, render_table
from nanochat.runtime.environment import describe_environment
from nanochat.runtime.lock import hold
from nanochat.stages.identity_plan import identity_examples, identity_rows, out_path
from nanochat.stages.job import Job
from nanochat.stages.session import write_result
from nanochat.synthesis.diversity import distinct, repeated_openings
from nanochat.synthesis.project import Made, Project
from nanochat.tracking.atomic import write_json
from nanochat.tracking.console import Console

_ADVICE = (
    "written from templates; for livelier ones export a key under the name in identity.api_key_env and say by "
    "identity.endpoint= and identity.model= which OpenAI-compatible service writes them"
)


def run_identity(job: Job) -> None:
    """Makes what is missing of `identity.count` conversations. Raises Interrupted, MismatchError, MissingError."""
    config, folder = job.config, job.run_dir
    check_identity(config)
    project = Project(folder, out_path(job), config.persona, config.identity, config.seed, os.environ)
    if config.dry_run:
        print(render_table([f"identity/{job.run}", "value", "rule"], identity_rows(job)))
        print(f"\n{identity_examples(job, project)}\n\ndry_run=true: nothing was asked for and nothing written")
        return
    began = time.monotonic()
    with hold(folder):
        if config.overwrite and folder.exists():
            shutil.rmtree(folder)
        project.open(config.resume, config.overwrite)
        _describe(job)
        console = Console(folder / "log.txt", is_main=True)
        made = project.make(console, job.again)
        if not made.new:
            console.say(f"{project.out} is complete; nothing to do (overwrite=true makes it again)")
            return
        project.publish(made)
        _report(job, project, made, console, time.monotonic() - began)


def _describe(job: Job) -> None:
    """What the run is, written before it begins."""
    write_config(job.config, job.run_dir / "config.yaml")
    (job.run_dir / "overrides.yaml").write_text(yaml.safe_dump(list(job.overrides)), encoding="utf-8")
    write_json(job.run_dir / "environment.json", [describe_environment("none")])


def _report(job: Job, project: Project, made: Made, console: Console, seconds: float) -> None:
    rows = _rows(project, made)
    console.say(render_table(["identity", "value"], rows))
    table = markdown_table(["identity", "value"], rows)
    (job.run_dir / "report.md").write_text(f"# identity/{job.run}\n\n{table}\n", encoding="utf-8")
    write_result(job.run_dir, len(made.conversations), {f"identity/{key}": value for key, value in rows}, seconds)
    if project.mode == IdentityMode.templates:
        console.say(_ADVICE)
    if project.out != job.base_dir / "identity_conversations.jsonl":
        console.say(f"mid and sft read it with data.identity={project.out}")
    console.say(f"done: {project.out}")


def _rows(project: Project, made: Made) -> list[tuple[str, Any]]:
    tally, conversations = made.tally, made.conversations
    rows: list[tuple[str, Any]] = [("conversations", len(conversations)), ("written by", str(project.mode))]
    rows += [(f"refused: {reason}", number) for reason, number in tally.refused.most_common()]
    rows += [("messages", sum(len(c["messages"]) for c in conversations))]
    rows += [(f"distinct {n}-grams of words", distinct(conversations, n)) for n in (2, 4)]
    rows += [("openings that another has too", repeated_openings(conversations))]
    if project.mode == IdentityMode.endpoint:
        rows += [("tokens read", tally.tokens_in), ("tokens written", tally.tokens_out), ("dollars", tally.cost)]
    return [*rows, ("lines of the file", made.content.count(b"\n")), ("file", str(project.out))]
