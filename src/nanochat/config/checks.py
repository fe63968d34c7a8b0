"""What a single value cannot show: names that must be folder names, keys that contradict each other."""

import re
from itertools import pairwise

from nanochat.config.data import CorpusConfig, DataKind, Packing
from nanochat.config.root import RunConfig, Stage
from nanochat.config.schedule import StepConfig
from nanochat.errors import ConfigError

_CORPUS_STAGES = (Stage.tokenizer, Stage.base, Stage.pipeline)
_MIXTURE_STAGES = (Stage.mid, Stage.sft)
_MAX_NAME = 200  # characters; file systems take 255 bytes
# Letters first, so that `.`, `..`, hidden folders and flags are out; `/` and `@` have a meaning in a REF.
_NAME = re.compile(r"[^\W_][^/\\@\x00-\x1f]*")


def check_config(config: RunConfig) -> None:
    """Raises ConfigError naming the keys that cannot be as they are."""
    for key, name in (("run", config.run), ("sweep", config.sweep), ("tokenizer.name", config.tokenizer.name)):
        if name is not None:
            check_name(key, name)
    if not config.base_dir.strip():
        raise ConfigError("base_dir= is empty; it must be the folder that everything is written below")
    _check_data(config)
    _check_schedule(config)
    _check_eval(config)
    if config.stage == Stage.base and config.train.init_optimizer and config.init_from is None:
        raise ConfigError(
            "train.init_optimizer=true takes the optimizer's state from a checkpoint, and this run starts from "
            "nothing; give init_from=base/RUN, or train.init_optimizer=false"
        )


def check_name(key: str, name: str) -> None:
    """A name becomes one folder below base_dir, and a part of a REF."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{key}={name} is not a folder name; it must begin with a letter or a digit and hold no / \\ or @ "
            f"(base_dir= says where the folders are)"
        )
    if len(name.encode()) > _MAX_NAME:
        raise ConfigError(f"{key}={name[:40]}... is too long; it must be at most {_MAX_NAME} bytes")


def _check_data(config: RunConfig) -> None:
    data = config.data
    if config.stage in _CORPUS_STAGES and not isinstance(data, CorpusConfig):
        raise ConfigError(
            f"stage={config.stage} reads a corpus, and data=mid and data=sft are mixtures of conversations; take "
            f"data=embedded or data=text"
        )
    if config.stage in _MIXTURE_STAGES and isinstance(data, CorpusConfig):
        raise ConfigError(
            f"stage={config.stage} reads a mixture of conversations, and data.kind={data.kind} is a corpus; take "
            f"data={config.stage}, or an option of your own"
        )
    if not isinstance(data, CorpusConfig):
        return
    if data.packing in (Packing.pad, Packing.bestfit_pad):
        raise ConfigError(
            f"data.packing={data.packing} pads rows and is for conversations; a corpus takes stream or bestfit"
        )
    unused = {"data.root": data.root, "data.num_shards": data.num_shards}
    for key, value in unused.items():
        if data.kind == DataKind.embedded and value is not None:
            raise ConfigError(f"{key}={value} is not read by data=embedded; did you mean data=text {key}={value}?")


def _check_schedule(config: RunConfig) -> None:
    schedule = config.schedule
    if not isinstance(schedule, StepConfig):
        return
    times, factors = schedule.milestones, schedule.factors
    if len(times) != len(factors):
        raise ConfigError(
            f"schedule.milestones has {len(times)} values and schedule.factors {len(factors)}; each milestone needs "
            f"its factor"
        )
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise ConfigError(f"schedule.milestones={times} must rise from one to the next")
    if any(later > earlier for earlier, later in pairwise([1.0, *factors])):
        raise ConfigError(f"schedule.factors={factors} must not rise: a rate that grows again undoes the decay")


def _check_eval(config: RunConfig) -> None:
    options = config.eval
    if options.core_max_per_task == 0:
        raise ConfigError(
            "eval.core_max_per_task=0 asks for CORE without a problem; it must be at least 1, or -1 for all; "
            "eval.core_every=-1 leaves CORE out"
        )
    if options.hf_model is None:
        return
    key = f"eval.hf_model={options.hf_model}"
    if config.stage != Stage.eval:
        raise ConfigError(f"{key} is read by stage=eval only; stage={config.stage} trains a model of its own")
    if config.init_from is not None:
        raise ConfigError(f"{key} and init_from={config.init_from} name two models to evaluate; give one of them")
    others = {"eval.every": options.every > 0, "eval.sample_every": options.sample_every > 0}
    asked = [name for name, wanted in {**others, "eval.tasks": bool(options.tasks)}.items() if wanted]
    if options.core_every <= 0 or asked:
        said = f"{', '.join(asked)} cannot be" if asked else "eval.core_every=-1 asks for nothing to be"
        raise ConfigError(f"{key}: CORE alone is measured of such a model, and {said}; take eval=core")
