"""`nanochat mix`: a mixture before it is trained on: its tasks, tokens, steps, and conversations with the loss mask."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.cli.plan import jobs_of
from nanochat.config.arguments import Arguments, split_args
from nanochat.config.data import MixtureConfig, Supervise
from nanochat.config.load import compose_run
from nanochat.config.overrides import values_of
from nanochat.config.root import RunConfig, Stage
from nanochat.errors import ConfigError
from nanochat.reporting.mix import packing_note, sampled_note, show_conversation, task_table, warnings
from nanochat.stages.job import Job
from nanochat.stages.mix import Look, look_into, notes, passes, some_conversations, steps_note
from nanochat.train import run

_MIXTURES = (Stage.mid, Stage.sft)
_SAMPLES = 4
_USAGE = """nanochat mix [key=value ...] [--exact] [--samples N]

Shows the mixture of conversations that a stage would be trained on; trains nothing. For each task: rows, tokens,
supervised tokens, repeats, what is dropped or truncated; then how rows are filled, the steps of a pass, and some
conversations with the tokens marked that the model learns to write. The stage is sft if none is said:

  nanochat mix stage=mid
  nanochat mix stage=sft data.tasks.spelling_bee.repeat=3 --samples 8

--exact counts every conversation; without it the numbers marked ~ come from a sample of each task."""


@dataclass(frozen=True)
class _Asked:
    """The verb's own flags, and the words that are left."""

    exact: bool
    samples: int
    words: list[str]


def main(argv: Sequence[str]) -> int:
    """Prints the mixture of a stage, or those of a pipeline. ConfigError if it has nothing to learn from."""
    asked = _own_flags(argv)
    arguments = split_args(asked.words)
    if "--help" in arguments.flags:
        print(_USAGE)
        return 0
    if arguments.multirun:
        raise ConfigError("mix shows one mixture; leave -m out and give each key one value")
    if arguments.flags:
        return run(asked.words)  # --cfg and the like show the config
    for number, job in enumerate(_jobs(arguments)):
        text = _describe(look_into(job, asked.exact, _say), asked.samples)
        try:
            print(text if number == 0 else f"\n{text}", flush=True)
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            break
    return 0


def _own_flags(argv: Sequence[str]) -> _Asked:
    """Takes --exact and --samples N, which may stand anywhere, out of the words."""
    exact, samples, rest, words = False, _SAMPLES, [], iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        if word == "--exact":
            exact = True
        elif name == "--samples":
            value = value if equals else next(words, "")
            if not value.isdecimal():
                raise ConfigError(f"--samples {value}: it takes a number of conversations, 0 or more: --samples 8")
            samples = int(value)
        else:
            rest.append(word)
    return _Asked(exact, samples, rest)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _jobs(arguments: Arguments) -> list[Job]:
    """The stage that is asked for, or those of the pipeline that read a mixture."""
    overrides = list(arguments.overrides)
    given = values_of(("stage",), overrides).get("stage")
    if given is None or given not in (*_MIXTURES, Stage.pipeline):
        rest = [word for word in overrides if not word.startswith("stage=")]
        overrides = [f"stage={_stage_of(given, rest, arguments.config_dirs)}", *rest]
    found = [job for job in jobs_of(overrides, arguments.config_dirs) if job.config.stage in _MIXTURES]
    if not found:
        raise ConfigError("no stage of the pipeline reads a mixture; mid and sft do: pipeline.stages='[base,sft]'")
    for job in found:
        _check_mixture(job.config)
    return found


def _stage_of(given: str | None, overrides: list[str], config_dirs: Sequence[str]) -> Stage:
    """mid or sft: by the data option where there is one, else sft."""
    data = values_of(("data",), overrides).get("data")
    if data is None:
        if given is not None:
            raise ConfigError(f"stage={given} reads no mixture; write nanochat mix stage=mid or stage=sft")
        return Stage.sft
    if data in _MIXTURES:
        return Stage(data)
    chosen = compose_run(["stage=mid", f"data={data}"], config_dirs).config.data
    return Stage.sft if isinstance(chosen, MixtureConfig) and chosen.supervise == Supervise.assistant else Stage.mid


def _check_mixture(config: RunConfig) -> None:
    if not isinstance(config.data, MixtureConfig):
        raise ConfigError(
            f"data is a corpus ({config.data.kind}), not a mixture of conversations; take data=mid or data=sft"
        )


def _describe(look: Look, samples: int) -> str:
    """All that is said about a stage's mixture."""
    on_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if on_terminal else None
    data = look.job.config.data
    assert isinstance(data, MixtureConfig)
    lines = [*_heading(look), task_table(look.train, passes(look.docs), look.unit, width), *sampled_note(look.train)]
    lines += [packing_note(look.train, str(data.packing), look.row_size, look.unit), steps_note(look), *notes(look)]
    lines += warnings(look.train, "data.tasks")
    if look.val is not None and look.val_docs is not None:
        lines += ["\ndata.val_tasks:", task_table(look.val, passes(look.val_docs), look.unit, width)]
        lines += warnings(look.val, "data.val_tasks")
    colour = on_terminal and not os.environ.get("NO_COLOR")
    if samples:
        lines.append(f"\nsupervised tokens are {'green, the others dim' if colour else 'in [[ ]]'}:")
    lines += ["\n" + show_conversation(look.tokenizer, one, colour) for one in some_conversations(look, samples)]
    return "\n".join(lines)


def _heading(look: Look) -> list[str]:
    config, data = look.job.config, look.job.config.data
    assert isinstance(data, MixtureConfig)
    title = f"{config.stage}/{look.job.run}: data.tasks, order={data.order}, supervise={data.supervise}"
    if look.folder is not None:
        return [f"{title}; tokenizer {look.folder}"]
    return [
        title,
        f"no tokenizer {config.tokenizer.name} yet: the counts are UTF-8 bytes. Four are taken for a token, so the "
        f"context of {look.seq_len:,} tokens for {look.row_size - 1:,} bytes",
    ]
