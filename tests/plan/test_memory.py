"""What the plan predicts of memory, against counts by hand and against what it is derived from."""

import re
from dataclasses import replace
from typing import Any

import pytest

from nanochat.config.load import compose_run
from nanochat.model.head import _CHUNK
from nanochat.optim.muon import STACK_ELEMENTS
from nanochat.plan.dims import ModelDims, count_params, derive_dims
from nanochat.plan.facts import Facts
from nanochat.plan.memory import CHUNK, CONTEXT, SPARE, STACK, Training, fits, most_rows, predict
from nanochat.plan.memory_rules import how_trained
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


def test_a_matrix_may_be_more_than_a_stack() -> None:
    """One wide layer and hardly anything else: the update is the largest moment."""
    wide = replace(GPT, n_layer=1, n_embd=8192, n_head=64, n_kv_head=64, vocab_size=512)
    memory = predict(wide, replace(HOW, rows=1, recompute="blocks"))
    assert memory.kept + memory.work == 16 * 4 * 8192**2 > 16 * STACK


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
    rows = shown(planned("runtime.recompute_cheap=true"))
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
    assert "on a GPU in bfloat16, compiled" in next(
        r.rule for r in planned(device="cpu", compile=False, device_memory=None).rules if r.name == "memory"
    )


def test_small_networks_are_measured_in_smaller_units() -> None:
    size, unit = shown(planned("debug=tiny"))["memory, kept"].split()
    assert unit == "MB" and 0 < float(size) < 100


def test_what_does_not_fit_comes_with_what_would() -> None:
    for size, overrides, wanted in (
        (80, ["train.device_batch_size=256"], r"device_batch_size=256 needs about .* GB.*has 80.00 GB.*=32 fits"),
        (
            24,
            ["model.max_seq_len=32768", "train.device_batch_size=2"],
            r"checkpointing=true with train.device_.*=\d+ fits",
        ),
        (6, ["model.depth=26"], "not one row fits"),
    ):
        found = planned(*overrides, device_memory=size * 10**9).misfit
        assert found is not None and found.certain and re.search(wanted, found.said)
    assert planned("train.device_batch_size=256", device="cpu").misfit is None  # a CPU is not judged


def test_a_run_that_may_not_fit_is_not_refused() -> None:
    need = planned("runtime.recompute_cheap=true").placement.memory
    found = planned(device_memory=need).misfit
    assert found is not None and not found.certain and "device_batch_size=32 needs about" in found.said
    assert planned(device_memory=need * 5 // 4).misfit is None
    rough = planned("train.device_batch_size=256", compile=False).misfit
    assert rough is not None and not rough.certain


def test_what_is_recomputed_is_decided_by_the_key_and_the_compiler() -> None:
    assert not planned(compile=False).placement.recompute_cheap
    assert not planned("runtime.recompute_cheap=false", "train.device_batch_size=8").placement.recompute_cheap
    assert planned("runtime.recompute_cheap=true", compile=False).placement.recompute_cheap
    assert planned(device_memory=None).placement.recompute_cheap  # nothing to decide by
    on_cpu = {"device": "cpu", "dtype": "float32", "device_memory": None}
    assert planned(compile=True, **on_cpu).placement.recompute_cheap
    assert not planned(compile=False, **on_cpu).placement.recompute_cheap
    whole = planned("runtime.activation_checkpointing=true")
    assert whole.placement.activation_checkpointing and recompute_row(whole)[0] == "blocks"


def recompute_row(plan: Plan) -> tuple[str, str]:
    return next((rule.value, rule.rule) for rule in plan.rules if rule.name == "recompute")


def test_nothing_is_recomputed_where_all_fits() -> None:
    """The run's memory is that of the decision, and what would fit at most that of the smaller need."""
    tight, roomy = (planned("runtime.fused_kernels=false", device_memory=size * 10**9) for size in (80, 141))
    assert tight.placement.recompute_cheap and not roomy.placement.recompute_cheap
    value, said = recompute_row(tight)
    assert value == "cheap" and re.search(r"^nothing would need \d+ of 80 GB", said)
    assert re.search(r"^keeping everything takes \d+ of 141 GB$", recompute_row(roomy)[1])
    assert roomy.placement.memory > tight.placement.memory and roomy.misfit is None and tight.misfit is None
    assert roomy.recipe.hash == tight.recipe.hash
    assert shown(roomy)["rows that 141 GB hold"] > shown(tight)["rows that 80 GB hold"]


def test_the_largest_micro_batch_comes_before_the_decision() -> None:
    most = ("train.device_batch_size=auto", "runtime.fused_kernels=false")
    plan, lean = planned(*most), planned(*most, "runtime.recompute_cheap=true")
    assert plan.placement == lean.placement and plan.placement.recompute_cheap
    few = planned("train.device_batch_size=auto", "train.total_batch_size=16384", device_memory=141 * 10**9)
    assert (few.placement.device_rows, few.placement.recompute_cheap) == (8, False)  # all there are


@pytest.mark.parametrize(("recompute", "fused", "tensors"), [("cheap", True, 10), ("nothing", True, 14)])
def test_fused_kernels_keep_less(recompute: str, fused: bool, tensors: int) -> None:
    how, plain = replace(HOW, recompute=recompute, fused=fused), replace(GPT, n_layer=22)
    matrices = 2 * 12 * GPT.n_embd**2 * (recompute == "nothing")
    block = (predict(plain, how).kept - predict(GPT, how).kept) / 2 - matrices * 2 / 2
    assert block / (32 * 2048 * GPT.n_embd * 2) == pytest.approx(tensors, abs=0.05)
    assert predict(GPT, how).kept <= predict(GPT, replace(how, fused=False)).kept


def test_fused_kernels_are_expected_where_compiled() -> None:
    config = compose_run([]).config
    facts = Facts(vocab_size=65_536, vocab_source="", device="cuda", dtype="bfloat16", compile=True)
    assert how_trained(config, facts, 32, True).fused
    assert not how_trained(config, replace(facts, compile=False), 32, True).fused
    assert not how_trained(compose_run(["runtime.fused_kernels=false"]).config, facts, 32, True).fused
