"""The walk from plain dicts to dataclasses: types, unions, enums, bounds; and back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.fields import Role
from nanochat.config.keys import Field, all_fields
from nanochat.config.load import compose_run
from nanochat.config.root import RunConfig
from nanochat.config.validate import build_run_config, check_value, flatten, plain
from nanochat.errors import ConfigError

FIELDS = {f.key: f for f in all_fields() if not f.is_group}
BOUNDED = [f for f in all_fields() if f.metadata.get("bounds")]


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    composed: dict[str, Any] = plain(compose_run([]).config)
    return composed


def put(data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A deep copy with one key changed."""
    head, _, rest = key.partition(".")
    return {**data, head: put(data.get(head, {}), rest, value) if rest else value}


def refused(data: dict[str, Any], key: str, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build_run_config(put(data, key, value))
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_config_survives_the_way_there_and_back(data: dict[str, Any]) -> None:
    config = build_run_config(data)
    assert isinstance(config, RunConfig) and plain(config) == data
    assert flatten(config)["optim.momentum.end"] == 0.95
    roles = [flatten(config, role) for role in Role]
    assert sum(map(len, roles)) == len(flatten(config))


@pytest.mark.parametrize("found", BOUNDED, ids=lambda f: f"{f.owner.__name__}:{f.key}")
def test_bounds_are_where_they_are_said_to_be(found: Field) -> None:
    """One value outside of each bound is refused with key, value and bound, one inside passes."""
    is_list = "list" in str(found.hint)
    is_int = found.hint is int or "int" in str(found.hint)
    for name, bound in found.metadata["bounds"].items():
        tiny = 1 if is_int else 1e-9 * max(1.0, abs(bound))
        low = name in ("ge", "gt")
        outside = bound if name in ("gt", "lt") else bound - tiny if low else bound + tiny
        value = int(outside) if is_int else float(outside)
        with pytest.raises(ConfigError, match="out of range") as caught:
            check_value(found.key, [value] if is_list else value, found.hint, found.metadata)
        said = str(caught.value)
        assert said.startswith(found.key) and f"={value}" in said
        assert (str(bound) if isinstance(bound, int) else f"{bound:g}") in said
        if name in ("ge", "le"):
            inside = int(bound) if is_int else float(bound)
            assert check_value(found.key, [inside] if is_list else inside, found.hint, found.metadata) is not None


@pytest.mark.parametrize("key", ["optim.matrix_lr", "train.target_flops", "optim.grad_clip"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), float("-inf")])
def test_numbers_are_finite(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        check_value(key, value, FIELDS[key].hint, FIELDS[key].metadata)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.depth", "four", "model.depth=four has the wrong type; it must be a whole number, at least 1"),
        ("model.depth", 2.5, "model.depth=2.5 has the wrong type"),
        ("model.depth", True, "model.depth=true has the wrong type"),
        ("model.depth", None, "model.depth=null is not allowed"),
        ("model.depth", [4], "model.depth=[4] has the wrong type"),
        ("model.round_width", "maybe", "it must be true or false"),
        ("runtime.compile", 3, "it must be true, false or null"),
        ("train.total_batch_size", "lots", "it must be a whole number, auto or null, at least 1"),
        ("train.device_batch_size", "lots", "it must be a whole number or auto, at least 1"),
        ("train.device_batch_size", 2.5, "train.device_batch_size=2.5"),
        ("train.device_batch_size", 0, "train.device_batch_size=0 is out of range"),
        ("runtime.device", "gpu", "runtime.device=gpu is not an option; it must be one of auto, cpu, cuda, mps"),
        ("resume", None, "resume=null is not allowed; it must be one of auto, must, never"),
        ("tags", "a", "it must be a list of texts"),
        ("tags", [1], "tags[0]=1 has the wrong type; it must be text"),
        ("eval.tasks", 3, "it must be a dict"),
        ("optim.momentum", 0.9, "optim.momentum=0.9 must be a group of keys"),
        ("optim.momentum.strt", 0.9, "did you mean optim.momentum.start?"),
        ("optim.name", "adam", "optim.name=adam is not an option; did you mean adamw"),
        ("data.supervise", "all", "data=mid or data=mid_generated"),
        ("modl", {}, "did you mean model?"),
        ("model.depth", "???", "model.depth has no value"),
        ("seed", 2**63, "less than 9223372036854775808"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(data: dict[str, Any], key: str, value: Any, said: str) -> None:
    assert said in refused(data, key, value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("train.total_batch_size", "auto", "auto"),
        ("train.total_batch_size", None, None),
        ("train.target_flops", 10**18, 1e18),
        ("runtime.compile", None, None),
        ("tags", [], []),
    ],
)
def test_unions_take_each_of_their_kinds(data: dict[str, Any], key: str, value: Any, wanted: Any) -> None:
    assert flatten(build_run_config(put(data, key, value)))[key] == wanted


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers())))
def test_whatever_is_given_is_converted_or_refused(value: Any) -> None:
    """No other exception, and what comes out is of the declared type."""
    for key in ("model.depth", "optim.matrix_lr", "train.device_batch_size", "resume", "run", "schedule.milestones"):
        try:
            result = check_value(key, value, FIELDS[key].hint, FIELDS[key].metadata)
        except ConfigError as error:
            assert str(error).startswith(key)
        else:
            assert result is None or result == value or str(result) == value
