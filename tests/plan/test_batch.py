"""Rows of a step, their split over ranks and micro-batches, lanes, and what an automatic batch is."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanochat.config.load import compose_run
from nanochat.config.root import RunConfig
from nanochat.errors import ConfigError
from nanochat.plan.batch import Batch, default_lanes, derive_batch
from nanochat.plan.dims import count_params, derive_dims
from nanochat.plan.early import check_sizes
from nanochat.plan.facts import Facts

BASE = compose_run([]).config
FACTS = Facts(vocab_size=65_536, vocab_source="")
GIGABYTE = 10**9


def with_train(config: RunConfig = BASE, **train: object) -> RunConfig:
    return replace(config, train=replace(config.train, **train))  # type: ignore[arg-type]


def batch(config: RunConfig, facts: Facts = FACTS) -> Batch:
    return derive_batch(config, derive_dims(config.model, facts.vocab_size), facts)


def test_rows_and_micro_batches() -> None:
    made = batch(BASE)
    assert (made.rows, made.tokens, made.device_rows, made.accumulation) == (256, 524_288, 32, 8)
    assert batch(with_train(device_batch_size=1000)).device_rows == 256  # no more than there are
    examples = with_train(total_batch_size=None, target_examples_per_step=30, device_batch_size=4)
    assert (batch(examples).rows, batch(examples).accumulation) == (30, 8)


@pytest.mark.parametrize(
    ("ranks", "device", "accumulation"), [(1, 32, 8), (2, 32, 4), (3, 32, 3), (8, 32, 1), (512, 1, 1)]
)
def test_uneven_ranks(ranks: int, device: int, accumulation: int) -> None:
    """256 rows on 3 ranks: 86 for the busiest, in 3 micro-batches of at most 32."""
    made = batch(BASE, replace(FACTS, world_size=ranks))
    assert (made.rows, made.tokens) == (256, 524_288)  # never changed by where it runs
    assert (made.device_rows, made.accumulation) == (device, accumulation)


@given(rows=st.integers(1, 500), ranks=st.integers(1, 16), device=st.integers(1, 64))
def test_every_row_has_a_place(rows: int, ranks: int, device: int) -> None:
    config = with_train(total_batch_size=rows * 2048, device_batch_size=device)
    made = batch(config, replace(FACTS, world_size=ranks))
    busiest = -(-rows // ranks)
    assert made.rows == rows and made.device_rows <= device
    assert (made.accumulation - 1) * made.device_rows < busiest <= made.accumulation * made.device_rows


@pytest.mark.parametrize(
    ("size", "legal"), [(1000, "nearest legal: 2048"), (5000, "4096 or 6144"), (524_289, "524288 or 526336")]
)
def test_a_batch_that_is_no_multiple_of_the_context(size: int, legal: str) -> None:
    with pytest.raises(ConfigError) as caught:
        batch(with_train(total_batch_size=size))
    said = str(caught.value)
    assert f"train.total_batch_size={size}" in said and "model.max_seq_len=2048" in said and legal in said


def test_no_batch_at_all() -> None:
    with pytest.raises(ConfigError, match=r"train.total_batch_size and train.target_examples_per_step are both null"):
        batch(with_train(total_batch_size=None))


@pytest.mark.parametrize(("gigabytes", "rows"), [(80, 32), (141, 64), (40, 16), (24, 8), (16, 4), (5, 1)])
def test_an_automatic_device_batch_is_the_most_that_fits(gigabytes: int, rows: int) -> None:
    """No less than the original guide's table, which has 32, 32, 16, 4, 2, 1."""
    facts = replace(FACTS, device="cuda", dtype="bfloat16", compile=True, device_memory=gigabytes * GIGABYTE)
    assert batch(with_train(device_batch_size="auto"), facts).device_rows == rows
    short = replace(BASE, model=replace(BASE.model, max_seq_len=512))
    least = rows * 4 if gigabytes > 5 else 1
    assert batch(with_train(short, device_batch_size="auto"), facts).device_rows >= least


def test_an_automatic_device_batch_on_a_cpu() -> None:
    assert batch(with_train(device_batch_size="auto")).device_rows == 8192 // 2048


def test_an_automatic_batch_grows_with_the_horizon() -> None:
    """B = 2^19 * (D / D_ref)^0.383, to the nearest power of two; D_ref = ratio * scaling parameters of d12."""
    options = ["train.total_batch_size=auto", "train.param_count=scaling", "train.target_param_data_ratio=12"]
    for depth in (4, 12, 20, 26):
        config = compose_run([*options, f"model.depth={depth}"]).config
        sizes = [count_params(derive_dims(replace(BASE.model, depth=d), 65_536)).scaling for d in (depth, 12)]
        ideal = 2**19 * (sizes[0] / sizes[1]) ** 0.383
        made = batch(config)
        assert made.tokens == 2 ** round(math.log2(ideal)) and "nearest power of two" in made.rule
    assert batch(compose_run([*options, "model.depth=12"]).config).tokens == 2**19
    assert batch(compose_run([*options, "model.depth=26"]).config).tokens == 2**20


@pytest.mark.parametrize("overrides", [["model.gqa_ratio=5"], ["model.head_dim=80"]])
def test_the_reference_model_is_legal_where_the_own_is(overrides: list[str]) -> None:
    """d12 has 6 heads, which a ratio of 5 does not divide, and no 10 heads of 80; that is no concern of a d20."""
    config = compose_run(["train.total_batch_size=auto", *overrides]).config
    assert math.log2(batch(config).tokens).is_integer()


def test_an_automatic_batch_needs_a_horizon_in_tokens() -> None:
    lost = with_train(total_batch_size="auto", target_param_data_ratio=None, num_epochs=1)
    with pytest.raises(ConfigError, match=r"train.total_batch_size=auto follows from the horizon"):
        batch(lost)


@pytest.mark.parametrize(
    ("rows", "lanes"), [(1, 1), (3, 1), (6, 2), (24, 8), (32, 32), (96, 32), (256, 64), (4096, 64)]
)
def test_lanes_divide_the_rows(rows: int, lanes: int) -> None:
    assert default_lanes(rows) == lanes


def test_impossible_sizes_are_seen_early() -> None:
    for overrides, said in (
        (["model.depth=9"], "model.depth=9"),
        (["train.total_batch_size=1000"], "train.total_batch_size=1000"),
        (["model.gqa_ratio=3"], "legal: 1, 2, 5, 10"),
    ):
        with pytest.raises(ConfigError, match=said):
            check_sizes(compose_run(overrides).config)
    check_sizes(BASE)
    check_sizes(compose_run(["stage=sft", "model.depth=9"]).config)  # the model comes from the checkpoint
