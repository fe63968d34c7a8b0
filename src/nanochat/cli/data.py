"""`nanochat data`: downloads, verifies and lists a corpus, and says how many shards a run needs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nanochat.cli.fetching import Display
from nanochat.cli.listing import list_embedded, list_files, list_shards, verify_shards
from nanochat.config.arguments import split_args
from nanochat.config.data import CorpusConfig, DataKind, ShardsConfig
from nanochat.config.load import compose_run
from nanochat.config.naming import with_names
from nanochat.config.root import Stage
from nanochat.data.places import find_place
from nanochat.data.shards import ShardFolder
from nanochat.errors import ConfigError, Interrupted, NanochatError
from nanochat.plan.early import check_sizes
from nanochat.plan.plan import make_plan
from nanochat.plan.shards import Shards, tokenizer_shards
from nanochat.stages.facts import preview_facts
from nanochat.stages.job import Job
from nanochat.stages.routing import stage_jobs

_FLAGS = {"--list": "show what is there, fetch nothing", "--verify": "read all that is there, fetch and delete nothing"}
_NUMBERS = re.compile(
    r"\b[0-9a-f]{12}\b|\d+"
)  # what two reasons differ by that are one: hashes, sizes, names of shards
_USAGE = """nanochat data [key=value ...] [--list | --verify]

Downloads what is missing of a corpus, in parallel; partial files are continued. As many training shards as
data.num_shards says (auto: as many as the run needs), and the one for validation:

  nanochat data data=fineweb_edu data.num_shards=240
  nanochat data data=fineweb_edu model.depth=20
  nanochat data stage=pipeline experiment=large
  nanochat data data=text data.root=FOLDER

"""


@dataclass(frozen=True)
class _Wish:
    """A corpus of shards, how many of them, and for which stages."""

    job: Job
    data: ShardsConfig
    shards: Shards


def main(argv: Sequence[str]) -> int:
    """Runs `nanochat data ...`; the exit code is not 0 if a shard failed or is damaged."""
    asked = {word for word in argv if word in _FLAGS}
    rest = [word for word in argv if word not in _FLAGS]
    if {"--help", "-h"} & set(rest):
        print(_USAGE + "\n".join(f"  {flag:<10}{said}" for flag, said in _FLAGS.items()))
        return 0
    if len(asked) > 1:
        raise ConfigError("--list and --verify: give one of them; --verify lists too")
    return _run(_job(rest), next(iter(asked), None))


def _job(words: Sequence[str]) -> Job:
    arguments = split_args(words)
    if arguments.flags:
        raise ConfigError(f"{arguments.flags[0]} is no flag of nanochat data; it has {' and '.join(_FLAGS)}")
    composed = compose_run(arguments.overrides, arguments.config_dirs)
    return Job(with_names(composed.config), tuple(composed.overrides), arguments.config_dirs)


def _run(job: Job, flag: str | None) -> int:
    data = job.config.data
    wishes = _wishes(job)
    if wishes:
        return max(_serve(wish, flag) for wish in wishes)
    if not isinstance(data, CorpusConfig):
        raise ConfigError(
            f"stage={job.config.stage} reads a mixture of conversations, not a corpus; `nanochat mix` shows it, and "
            f"`nanochat data data=fineweb_edu` is about a corpus"
        )
    if data.kind == DataKind.embedded:
        return list_embedded(job.base_dir, job.config.seed)
    return list_files(data, decode=flag == "--verify")


def _wishes(job: Job) -> list[_Wish]:
    """The corpora of shards that the run, or the stages of the pipeline, read; each once, at its largest."""
    jobs = stage_jobs(job) if job.config.stage == Stage.pipeline else [job]
    found: dict[tuple[str, str | None], _Wish] = {}
    for each in jobs:
        data = each.config.data
        if not isinstance(data, ShardsConfig):
            continue
        wish = _Wish(each, data, needed_shards(each))
        before = found.get((data.dataset, data.root))
        if before is None or (wish.shards.number or 0) > (before.shards.number or 0):
            found[data.dataset, data.root] = wish
    return list(found.values())


def needed_shards(job: Job) -> Shards:
    """Of a tokenizer by its characters, of a base run by its plan."""
    if job.config.stage == Stage.tokenizer:
        return tokenizer_shards(job.config)
    check_sizes(job.config)
    job, facts = preview_facts(job)
    rule = next(rule for rule in make_plan(job.config, facts).rules if rule.name == "training shards")
    return Shards(rule.value, rule.rule)


def _serve(wish: _Wish, flag: str | None) -> int:
    display = Display()
    assert wish.shards.number is not None
    folder = ShardFolder(wish.data, wish.shards.number, wish.job.config.hub_root, watch=display.watch)
    stage = f"stage={wish.job.config.stage}" + (f" {wish.job.run}" if wish.job.config.stage == Stage.base else "")
    print(f"{wish.data.dataset} in {folder.root}")
    print(f"{stage} reads {wish.shards.number:,} training shards, {wish.shards.rule}; and one for validation")
    if flag == "--list":
        return list_shards(folder)
    if flag == "--verify":
        return verify_shards(folder)
    return _fetch(wish, folder, display)


def _fetch(wish: _Wish, folder: ShardFolder, display: Display) -> int:
    """Everything that is missing; what failed is named in the end, and what came is kept."""
    missing = folder.missing()
    if missing:
        place = find_place(wish.data.source, wish.job.config.hub_root, wish.data.dataset)
        print(f"fetching {len(missing):,} of {len(folder.shards):,} files from {place.where}")
    try:
        with display.shown(len(missing)), folder:
            failed = folder.join()
    except KeyboardInterrupt:
        left = folder.missing()
        raise Interrupted(
            f"stopped: {len(folder.shards) - len(left):,} of {len(folder.shards):,} shards are there, {len(left):,} "
            f"are not; what came of them is kept, and the same command goes on"
        ) from None
    code = list_shards(folder)
    if failed:
        raise _failure(failed, len(folder.shards))
    return code


def _failure(failed: dict[str, NanochatError], total: int) -> NanochatError:
    """One paragraph: the shards by name, each reason once, as it was given for the first of them."""
    alike: dict[str, list[str]] = {}
    for name, error in failed.items():
        alike.setdefault(_NUMBERS.sub("", str(error)), []).append(name)
    said = "; ".join(f"{_names(names)}: {failed[names[0]]}" for names in alike.values())
    kept = f", and {total - len(failed):,} are there and stay" if total > len(failed) else ""
    return NanochatError(f"{len(failed)} of {total:,} shards failed{kept}. {said}")


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"
