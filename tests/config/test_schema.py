"""The schemas as a whole: roles, words, and that conf/ and they agree."""

from dataclasses import dataclass, field, fields
from enum import Enum

import pytest

from nanochat.config.conf import conf_dir
from nanochat.config.fields import Role, group, identity
from nanochat.config.keys import Field, all_fields, all_keys, schemas_of
from nanochat.config.options import option_names
from nanochat.config.root import RunConfig
from nanochat.config.variants import VARIANTS

FIELDS = list(all_fields())


def roleless(found: Field) -> bool:
    """Whether nothing says what a change of the field does to a run."""
    if found.is_group:
        return found.metadata.get("group") is not True
    return not isinstance(found.metadata.get("role"), Role)


@pytest.mark.parametrize("found", FIELDS, ids=lambda f: f"{f.owner.__name__}:{f.key}")
def test_every_field_has_a_role(found: Field) -> None:
    assert not roleless(found)


def test_an_unmarked_field_is_noticed() -> None:
    @dataclass(kw_only=True)
    class Inner:
        marked: int = identity()
        plain: int = 3

    @dataclass(kw_only=True)
    class Outer:
        inner: Inner = group()  # noqa: RUF009 - as the schemas do
        other: Inner = field()
        bare: str = field()

    unmarked = [f.key for f in all_fields(Outer) if roleless(f)]
    assert unmarked == ["inner.plain", "other", "other.plain", "bare"]


# Where and how fast it runs, and what is only measured, saved, called or asked for; all the rest is what the run is.
PLACEMENT = {"base_dir", "data.root", "data.word_list", "data.identity", "train.device_batch_size", "hub_root"}
PLACEMENT |= {
    f"data.{name}" for name in ("workers", "prefetch", "token_cache", "source", "downloads", "timeout", "retries")
}
PLACEMENT |= {f"runtime.{name}" for name in ("device", "dtype", "compile", "attention", "fp8", "num_threads")}
PLACEMENT |= {
    f"runtime.{name}" for name in ("activation_checkpointing", "recompute_cheap", "fused_kernels", "gpu_memory")
}
PLACEMENT |= {"identity." + name for name in ("count", "out", "append", "endpoint", "api_key_env", "workers")}
PLACEMENT |= {"identity." + name for name in ("requests_per_minute", "retries", "timeout")}
COSMETIC = {
    "identity.price_in",
    "identity.price_out",
    "run",
    "dry_run",
    "resume",
    "overwrite",
    "sweep",
    "tags",
    "stages",
    "plugins",
    "train.save_every",
}
COSMETIC_GROUPS = ("eval", "tracking", "pipeline")


def test_roles_are_as_written_here() -> None:
    """A field that changes its role lets runs resume that should not, or refuses those that should."""
    for found in FIELDS:
        if not found.is_group:
            cosmetic = found.key in COSMETIC or found.key.partition(".")[0] in COSMETIC_GROUPS
            wanted = Role.cosmetic if cosmetic else Role.placement if found.key in PLACEMENT else Role.identity
            assert found.metadata["role"] == wanted, found.key


def test_no_field_has_a_default() -> None:
    """Values live in conf/, in one place."""
    for found in FIELDS:
        declared = {f.name: f for f in fields(found.owner)}[found.key.rpartition(".")[2]]
        assert repr(declared.default) == "<dataclasses._MISSING_TYPE object>" or "MISSING" in repr(declared.default)


def test_enum_names_are_their_values() -> None:
    """OmegaConf reads and writes the names, everything else the values."""
    enums = {o for f in FIELDS for o in (f.hint, *getattr(f.hint, "__args__", ())) if isinstance(o, type)}
    found = [e for e in enums if issubclass(e, Enum)]
    assert len(found) > 8
    for each in found:
        assert all(member.name == member.value for member in each), each


def test_keys_are_listed_once() -> None:
    keys = all_keys()
    assert len(keys) == len(set(keys))
    assert {"model.depth", "optim.momentum.start", "data.tasks", "data.root", "schedule.milestones", "run"} <= set(keys)


@pytest.mark.parametrize("base", VARIANTS, ids=lambda b: b.__name__)
def test_every_variant_extends_its_base(base: type) -> None:
    assert all(issubclass(cls, base) for cls in schemas_of(base))


@pytest.mark.parametrize("name", ["optim", "schedule", "objective"])
def test_every_named_variant_is_an_option(name: str) -> None:
    hints = {f.key: f.hint for f in FIELDS}
    assert {str(choice) for choice in VARIANTS[hints[name]][1]} <= set(option_names(name))


def test_every_group_of_the_schema_has_a_folder_or_a_default() -> None:
    groups = {f.name for f in fields(RunConfig) if f.metadata.get("group")}
    folders = {p.name for p in conf_dir().iterdir() if p.is_dir()}
    assert groups - folders == {"train", "pipeline"}  # set by the stage, and by config.yaml
