"""What the plan must be told: the tokenizer on disk, the checkpoint to start from, the machine, the data's size."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from nanochat.checkpoint.find import ResolvedRef, list_stage, resolve_ref
from nanochat.checkpoint.manifest import read_manifest
from nanochat.config.frozen import read_yaml
from nanochat.config.model import BEFORE, ModelConfig
from nanochat.config.naming import ORIGINS, run_name, tokenizer_dir
from nanochat.config.root import RunConfig
from nanochat.config.runtime import ComputeDtype, RuntimeConfig
from nanochat.config.validate import build_group, flatten, plain
from nanochat.errors import MismatchError, MissingError
from nanochat.plan.dims import derive_dims
from nanochat.plan.facts import Facts
from nanochat.plan.shards import check_auto
from nanochat.stages.documents import all_here
from nanochat.stages.job import Job
from nanochat.stages.sources import data_manifest, estimate, measure, needs_size
from nanochat.tokenizer.bpe import TOKENIZER_FILE, Tokenizer


@dataclass(frozen=True)
class Hardware:
    """The part of the machine that the plan uses; the default plans without looking at one."""

    device: str = "cpu"
    dtype: str = "float32"
    memory: int | None = None
    compile: bool = False
    world_size: int = 1


def origin(job: Job) -> ResolvedRef | None:
    """The checkpoint that the stage starts from: `init_from`, else the stage's default; None for a fresh base run.

    Raises MissingError naming what exists and the command that makes it.
    """
    config = job.config
    if config.init_from is not None:
        return resolve_ref(job.base_dir, config.init_from)
    stages = ORIGINS.get(config.stage, ())
    run = run_name(config)
    for stage in stages:
        if run in list_stage(job.base_dir, stage):
            return resolve_ref(job.base_dir, f"{stage}/{run}")
    return resolve_ref(job.base_dir, f"{stages[0]}/{run}") if stages else None


def adopt_model(job: Job, ref: ResolvedRef) -> Job:
    """The job with the checkpoint's model config. A `model.*` override that differs is refused by key."""
    source = ref.run_dir / "config.yaml"
    if not source.is_file():
        return job
    # The group alone, since the others may be those of an older version; it had fewer keys then.
    saved = build_group(ModelConfig, {**BEFORE, **read_yaml(source).get("model", {})}, "model")
    before, wanted = flatten(saved), flatten(job.config.model)
    asked = _asked_keys(job)
    if "model" in asked:
        asked.add("model.name")
    for key in sorted(before):
        if f"model.{key}" in asked and before[key] != wanted.get(key):
            raise MismatchError(
                f"model.{key}={plain(wanted[key])}, but {ref} was trained with model.{key}={plain(before[key])}; the "
                f"model comes from the checkpoint: leave the override out, or start from another one by init_from="
            )
    return replace(job, config=replace(job.config, model=saved))


def _asked_keys(job: Job) -> set[str]:
    """The keys that the overrides name, however they are marked (+, ++, ~) or written (`+model={depth: 3}`)."""
    asked: set[str] = set()
    for override in job.overrides:
        key, _, value = override.lstrip("+~").partition("=")
        inside = yaml.safe_load(value) if value.startswith("{") else {}
        asked |= {key, *(f"{key}.{name}" for name in inside)}
    return asked


def checkpoint_mark(ref: ResolvedRef) -> str | None:
    """A hash of the hashes of weights and optimizer state: a run that was trained again under its name differs."""
    manifest = read_manifest(ref.path)
    if manifest is None:
        return None
    hashes = sorted((name, digest) for name, (_, digest) in manifest.files.items() if name.endswith(".safetensors"))
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:16]


def find_tokenizer(job: Job, ref: ResolvedRef | None) -> Path | None:
    """The folder of the tokenizer to use: the checkpoint's copy, else the trained one; None if there is none yet."""
    if ref is not None and (ref.run_dir / "tokenizer" / TOKENIZER_FILE).is_file():
        return ref.run_dir / "tokenizer"
    folder = tokenizer_dir(job.config)
    return folder if (folder / TOKENIZER_FILE).is_file() else None


def load_tokenizer(job: Job, ref: ResolvedRef | None = None) -> Tokenizer:
    """The run's tokenizer. Raises MissingError with the command that makes it, MismatchError for another size."""
    folder = find_tokenizer(job, ref)
    if folder is None:
        there = sorted(p.parent.name for p in (job.base_dir / "tokenizer").glob(f"*/{TOKENIZER_FILE}"))
        raise MissingError(
            f"tokenizer.name={job.config.tokenizer.name}: no tokenizer in {tokenizer_dir(job.config)}; there "
            f"{'are: ' + ', '.join(there) if there else 'is none yet'}; `nanochat stage=tokenizer "
            f"tokenizer.name={job.config.tokenizer.name} data=...` trains it"
        )
    tokenizer = Tokenizer.load(folder)
    if ref is None or _asked_keys(job) & {"tokenizer", "tokenizer.vocab_size"}:
        _check_size(job.config, tokenizer.vocab_size, folder)
    return tokenizer


def _check_size(config: RunConfig, size: int, folder: Path) -> None:
    if size != config.tokenizer.vocab_size:
        raise MismatchError(
            f"tokenizer.vocab_size={config.tokenizer.vocab_size}, but the tokenizer in {folder} has {size} tokens; set "
            f"tokenizer.vocab_size={size}, or train another one under a tokenizer.name of its own"
        )


def plan_facts(
    job: Job,
    hardware: Hardware,
    ref: ResolvedRef | None,
    tokenizer: Tokenizer | None,
    say: Callable[[str], None] | None = None,
    fetch: bool = True,
) -> Facts:
    """Facts for make_plan. With a checkpoint its dimensions are taken, else those that the config derives.

    `say` hears how far the count of the data is, where it takes long. What has to be fetched to be counted is
    estimated instead if `fetch` is false.
    """
    dims = None
    if ref is not None:
        from nanochat.checkpoint.load import load_dims  # pulls in torch, which a plan from nothing does not need

        dims = load_dims(ref.path)
    size, said = job.config.tokenizer.vocab_size, "tokenizer.vocab_size; no tokenizer trained yet"
    if tokenizer is not None:
        size, said = tokenizer.vocab_size, "the trained tokenizer"
    seq_len = (dims or derive_dims(job.config.model, size)).seq_len
    amount = None
    if needs_size(job.config):
        check_auto(job.config)
        counted = tokenizer is not None and (fetch or all_here(job))
        amount = measure(job, tokenizer, seq_len, say) if tokenizer and counted else estimate(job, seq_len)
    return Facts(
        vocab_size=size,
        vocab_source=said,
        device=hardware.device,
        dtype=hardware.dtype,
        device_memory=hardware.memory,
        compile=hardware.compile,
        world_size=hardware.world_size,
        dims=dims,
        init_from=str(ref) if ref is not None else None,
        init_mark=checkpoint_mark(ref) if ref is not None else None,
        data_tokens=amount.tokens if amount else None,
        data_rows=amount.rows if amount else None,
        data_source=amount.source if amount else "",
        manifest=data_manifest(job.config),
        tokenizer=tokenizer.fingerprint()[:16] if tokenizer is not None else None,
        bos_id=tokenizer.bos if tokenizer is not None else None,
    )


def preview(job: Job) -> tuple[Job, ResolvedRef | None, Tokenizer | None]:
    """The job with its checkpoint's model, the checkpoint and the tokenizer; None for what does not exist yet."""
    try:
        ref = origin(job)
    except MissingError:
        if job.config.init_from is not None:
            raise
        ref = None
    if ref is not None:
        job = adopt_model(job, ref)
    return job, ref, load_tokenizer(job, ref) if find_tokenizer(job, ref) is not None else None


def preview_facts(
    job: Job, say: Callable[[str], None] | None = None, hardware: Hardware | None = None
) -> tuple[Job, Facts]:
    """Facts for `nanochat plan`: what does not exist yet is replaced by what the config says, the machine too."""
    job, ref, tokenizer = preview(job)
    return job, plan_facts(job, hardware or named_hardware(job.config.runtime), ref, tokenizer, say, fetch=False)


def named_hardware(runtime: RuntimeConfig) -> Hardware:
    """The GPU that `runtime=h100` and the like name; nothing is looked at."""
    if runtime.gpu_memory is None:
        return Hardware()
    dtype = "bfloat16" if runtime.dtype == ComputeDtype.auto else str(runtime.dtype)
    return Hardware("cuda", dtype, round(runtime.gpu_memory * 1e9), runtime.compile is not False)
