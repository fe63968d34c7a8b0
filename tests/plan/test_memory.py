"""What the plan predicts of memory, against counts by hand and against what it is derived from."""

from dataclasses import replace
from typing import Any

import pytest

from nanochat.config.load import compose_run
from nanochat.errors import ConfigError
from nanochat.model.head import _CHUNK
from nanochat.optim.muon import STACK_ELEMENTS
from nanochat.plan.dims import ModelDims, count_params, derive_dims
from nanochat.plan.facts import Facts
from nanochat.plan.memory import CHUNK, CONTEXT, SPARE, STACK, Training, fits, most_rows, predict
from nanochat.plan.plan import Plan, make_plan

BASE = compose_run([]).config
GPT = derive_dims(BASE.model, 65_536)  # d20
MODERN = derive_dims(compose_run(["model=modern", "model.depth=12"]).config.model, 32_768)
HOW = Training(rows=32, several=True, dtype="bfloat16", compile=True, recompute="cheap", muon=True)


def test_constants_are_those_of_the_code() -> None:
    assert (STACK_ELEMENTS, _CHUNK["cuda"]) == (STACK, CHUNK)


def test_what_lasts_is_counted_exactly() -> None:
    memory, counts = predict(GPT, HOW), count_params(GPT)
    wide = (counts.matrices + counts.unembedding) * 4
    rope = 2 * 10 * 2048 * 128 * 4
    assert memory.weights == wide + counts.embedding * 2 + rope
    assert memory.gradients == wide + counts.embedding * 2
    assert memory.optimizer == counts.matrices * 4 + counts.unembedding * 8 + counts.embedding * 4
    assert predict(GPT, replace(HOW, several=False)).gradients == 0
    adamw = predict(GPT, replace(HOW, muon=False))
    assert adamw.optimizer - memory.optimizer == counts.matrices * 4
    half = predict(GPT, replace(HOW, dtype="float16"))  # where tables are fp32
    assert half.weights - memory.weights == counts.embedding * 2


@pytest.mark.parametrize("dims", [GPT, MODERN], ids=["gpt", "modern"])
def test_what_is_kept_grows_by_ten_tensors_a_block(dims: ModelDims) -> None:
    tensor = 32 * 2048 * dims.n_embd * 2
    more = predict(replace(dims, n_layer=dims.n_layer + 2, window_pattern=None, value_embeds=False), HOW).kept
    less = predict(replace(dims, window_pattern=None, value_embeds=False), HOW).kept
    assert (more - less) / 2 / tensor == pytest.approx(10, abs=0.1)
    lean = replace(HOW, recompute="blocks")
    assert predict(dims, lean).kept < predict(dims, HOW).kept / 4
    assert predict(dims, replace(HOW, recompute="nothing")).kept > 1.9 * predict(dims, HOW).kept


def test_the_most_rows_are_the_most_that_fit() -> None:
    for size in (24, 40, 80, 141):
        rows = most_rows(GPT, HOW, size * 10**9, 256)
        assert 256 % rows == 0 and fits(GPT, replace(HOW, rows=rows), size * 10**9)
        assert not fits(GPT, replace(HOW, rows=2 * rows), size * 10**9)
        assert predict(GPT, replace(HOW, rows=rows)).peak + CONTEXT <= size * 10**9 * (1 - SPARE)
    assert most_rows(GPT, HOW, 5 * 10**9, 256) == 0
    assert most_rows(GPT, HOW, 10**12, 7) == 7  # all at once
    assert most_rows(GPT, HOW, 40 * 10**9, 257) > 8  # no equal pieces: what fits


def planned(*overrides: str, **facts: Any) -> Plan:
    gpu = {"device": "cuda", "dtype": "bfloat16", "compile": True, "device_memory": 80 * 10**9}
    config = compose_run(overrides).config
    return make_plan(config, Facts(vocab_size=65_536, vocab_source="", **(gpu | facts)))


def shown(plan: Plan) -> dict[str, Any]:
    return {rule.name: rule.value for rule in plan.rules}


def test_the_rows_of_a_plan() -> None:
    rows = shown(planned())
    assert float(rows["memory"].split()[0]) == pytest.approx(
        sum(
            float(rows[f"memory, {part}"].split()[0]) for part in ("weights", "optimizer", "gradients", "kept", "work")
        ),
        abs=0.03,
    )
    assert rows["rows that 80 GB hold"] == 32 and "rows that 24 GB hold" not in rows
    anywhere = shown(planned(device="cpu", dtype="float32", compile=False, device_memory=None))
    assert [anywhere[f"rows that {size} GB hold"] for size in (24, 40, 80, 141)] == sorted(
        anywhere[f"rows that {size} GB hold"] for size in (24, 40, 80, 141)
    )
    assert anywhere["memory"] == rows["memory"]  # a CPU plans for a GPU


def test_a_run_that_cannot_fit_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"device_batch_size=256 needs about .* GB.*has 80.00 GB.*=32 fits"):
        planned("train.device_batch_size=256")
    with pytest.raises(
        ConfigError, match=r"runtime.activation_checkpointing=true with train.device_batch_size=\d+ fits"
    ):
        planned("model.max_seq_len=32768", "train.device_batch_size=2", device_memory=24 * 10**9)
    with pytest.raises(ConfigError, match="not one row fits"):
        planned("model.depth=26", device_memory=6 * 10**9)
    assert planned("train.device_batch_size=256", device="cpu").recipe  # a CPU is not judged


def test_a_run_that_may_not_fit_is_warned_of() -> None:
    need = planned().placement.memory
    assert any("device_batch_size=32 needs about" in said for said in planned(device_memory=need).warnings)
    assert not planned(device_memory=need * 5 // 4).warnings
    assert planned("train.device_batch_size=256", compile=False).warnings  # rough, so it refuses nothing


def test_what_is_recomputed_is_decided_by_the_key_and_the_compiler() -> None:
    assert planned().placement.recompute_cheap
    assert not planned(compile=False).placement.recompute_cheap
    assert not planned("runtime.recompute_cheap=false", "train.device_batch_size=8").placement.recompute_cheap
    assert planned("runtime.recompute_cheap=true", compile=False).placement.recompute_cheap
