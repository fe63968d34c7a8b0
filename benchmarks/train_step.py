"""How fast a step of training is: a run's own model, optimizer, objective and loop, on tokens that are there already.

    python benchmarks/train_step.py --model gpt --depth 20 --batch 32 --accumulation 4 --seconds 30 --out step.json
    python benchmarks/train_step.py --model modern --depth 12 --accumulation 8 --data ~/shards --profile

Tokens are drawn like words (Zipf), in documents that begin with bos; --data takes those of a text. Never zeros: rows of
an embedding that all tokens share, and products of zeros, have speeds of their own. The first steps, which compile, are
left out of the rate and listed for themselves. Utilisation is given against the datasheet and against a matmul measured
here, which is what this very device does at this temperature. --profile says where the time of a step goes.
"""

import argparse
import gc
import json
import os
import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()  # before torch is imported

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.autograd import DeviceType  # noqa: E402

from nanochat.config.load import compose_run  # noqa: E402
from nanochat.data.batches import MicroBatch, StepBatch  # noqa: E402
from nanochat.data.corpus import FileDocuments  # noqa: E402
from nanochat.errors import NanochatError  # noqa: E402
from nanochat.model.flash4_ahead import compiled_ahead  # noqa: E402
from nanochat.plan.facts import Facts  # noqa: E402
from nanochat.plan.plan import Plan, make_plan  # noqa: E402
from nanochat.runtime.device import Machine, detect, synchronize  # noqa: E402
from nanochat.runtime.environment import describe_environment  # noqa: E402
from nanochat.runtime.malloc import keep_freed_memory  # noqa: E402
from nanochat.stages.training_stage import assemble, attention_of  # noqa: E402
from nanochat.tokenizer.train import train_bpe  # noqa: E402
from nanochat.training.hooks import StepInfo  # noqa: E402
from nanochat.training.loop import Parts, train_loop  # noqa: E402

WARMUP = 3  # steps that compile or fill caches
POOL = 4  # different steps, taken in turn
PROFILED = 3  # steps
OWN = "tokens of the benchmark"  # of the phases of the start the one that a run has not
# Kernels by what they do; the first pattern that is found decides. What the compiler fuses comes first: its kernels are
# named after all that is in them. Its templates (triton_tem) are products and attention.
CLASSES = {
    "fused": r"^(triton_(?!tem)|cpp_fused)",
    "attention": r"flash|fmha|attention|sdpa|cudnn_.*(fprop|bprop)",
    "products": r"gemm|nvjet|cutlass|cublas|xmma|mm\b|_mm|linear",
    "copies": r"memcpy|memset|copy_|_to_copy",
    "embedding": r"embedding|index",
}


def main() -> None:
    """Measures, prints JSON, writes it to --out."""
    args, watch = parse_arguments(), Watch()
    keep_freed_memory()
    config = compose_run(overrides(args)).config
    machine = detect(config.runtime)
    plan = make_plan(config, facts_of(machine, args.vocab_size))
    watch.lap("config and plan")
    attention = attention_of(config, plan, machine)
    watch.lap("attention")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        watch.lap("model")  # what is said is said between the two

    with compiled_ahead(attention, plan.recipe.dims, machine.dtype):
        source = Pool(args, plan, pin=machine.device == "cuda")
        watch.lap(OWN)
        _, parts = assemble(config, plan, machine, source, say)  # type: ignore[arg-type]
        watch.lap("optimizer")
        steps = train(parts, plan, watch, at_least=WARMUP + max(1, args.steps), seconds=args.seconds)
    result: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv}
    result |= {"machine": describe(machine), "said": said, "loss": [round(info.loss, 4) for info in steps]}
    result |= rates(steps, plan, machine) | watch.said() | compiler(machine) | memory(plan, machine)
    if args.profile:
        result["profile"] = profile(parts, plan)
    text = json.dumps(result, indent=1, default=str)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt", help="option of the model group: gpt or modern")
    parser.add_argument("--optim", help="option of the optim group; without it that of the model's generation")
    parser.add_argument("--depth", type=int, default=12 if cuda else 2, help="layers")
    parser.add_argument("--batch", type=int, default=32 if cuda else 2, help="rows of a micro-batch")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches of a step")
    parser.add_argument("--seq-len", type=int, default=2048 if cuda else 256, help="tokens of a row")
    parser.add_argument("--vocab-size", type=int, help="without it 65536 for gpt, 32768 for modern")
    parser.add_argument("--attention", default="auto", help="backend: runtime.attention")
    parser.add_argument("--fp8", action="store_true", help="large products in 8 bits")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=cuda, help="torch.compile")
    parser.add_argument(
        "--recompute", choices=["auto", "nothing", "cheap", "blocks"], default="auto", help="in backward"
    )
    parser.add_argument("--device", default="auto", help="cuda, mps or cpu")
    parser.add_argument("--seconds", type=float, default=30, help="of steps, after those that compile")
    parser.add_argument("--steps", type=int, default=8, help="at least, after those that compile")
    parser.add_argument("--data", type=Path, help="folder of parquet files with the text to train on")
    parser.add_argument("--profile", action="store_true", help="where the time of a step goes")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further overrides of the config")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    args = parser.parse_args()
    if args.data and not any(args.data.glob("*.parquet")):
        parser.error(f"--data {args.data} holds no .parquet file")
    args.vocab_size = args.vocab_size or (32768 if args.model == "modern" else 65536)
    args.optim = args.optim or ("muon_modern" if args.model == "modern" else "muon_adamw")
    return args


def overrides(args: argparse.Namespace) -> list[str]:
    """The command line of a run that is the same."""
    rows = args.batch * args.accumulation
    cheap = {"auto": "null", "cheap": "true"}.get(args.recompute, "false")
    return [
        *(f"model={args.model}", f"optim={args.optim}", f"model.depth={args.depth}"),
        # Without its warm-up a fresh modern network makes full-size steps of rounding noise, each run others.
        *(["schedule=modern"] if args.optim == "muon_modern" else []),
        *(f"model.max_seq_len={args.seq_len}", f"tokenizer.vocab_size={args.vocab_size}"),
        *(f"train.total_batch_size={rows * args.seq_len}", f"train.device_batch_size={args.batch}"),
        *("train.num_iterations=1000", f"runtime.device={args.device}", f"runtime.attention={args.attention}"),
        *(f"runtime.compile={args.compile}".lower(), f"runtime.fp8={args.fp8}".lower()),
        *(f"runtime.activation_checkpointing={args.recompute == 'blocks'}".lower(), f"runtime.recompute_cheap={cheap}"),
        *args.set,
    ]


def facts_of(machine: Machine, vocab_size: int) -> Facts:
    """What a run would find."""
    return Facts(
        vocab_size=vocab_size,
        vocab_source="--vocab-size",
        device=machine.device,
        dtype=machine.dtype,
        compile=machine.compile,
        device_memory=machine.memory,
        bos_id=0,
    )


class Pool:
    """A source whose steps exist before the clock runs."""

    def __init__(self, args: argparse.Namespace, plan: Plan, pin: bool) -> None:
        """Makes POOL different steps."""
        rows, length = plan.recipe.rows, plan.recipe.dims.seq_len
        ids = text_tokens(args, POOL * rows * length + 1) if args.data else words(args, POOL * rows * length + 1)
        inputs, targets = ids[:-1].view(POOL, rows, length), ids[1:].view(POOL, rows, length)
        self._steps = []
        for step in range(POOL):
            pieces = zip(inputs[step].split(args.batch), targets[step].split(args.batch), strict=True)
            batch = StepBatch(rows * length, [MicroBatch(*(x.contiguous() for x in p)) for p in pieces], 0.0, [])
            self._steps.append(batch.pinned() if pin else batch)
        self._next = 0

    def next_step(self, unless: Callable[[], object]) -> StepBatch:
        """The next of the pool."""
        self._next += 1
        return self._steps[self._next % POOL]


def words(args: argparse.Namespace, count: int) -> torch.Tensor:
    """Ids by Zipf's law, the frequent ones spread over the vocabulary; about every 700th starts a document."""
    generator = np.random.default_rng(0)
    odds = 1 / (np.arange(args.vocab_size - 1) + 2.7)
    ids = 1 + generator.permutation(args.vocab_size - 1)[generator.choice(len(odds), count, p=odds / odds.sum())]
    ids[generator.random(count) < 1 / 700] = 0
    return torch.from_numpy(ids)


def text_tokens(args: argparse.Namespace, count: int) -> torch.Tensor:
    """Tokens of the folder's text, by a tokenizer trained on a part of it."""
    documents = FileDocuments(sorted(args.data.glob("*.parquet")), args.data)
    texts = [documents[i] for i in range(min(len(documents), 20_000))]
    tokenizer = train_bpe((text[:2000] for text in texts), args.vocab_size)
    ids: list[int] = []
    while len(ids) < count:
        for text in texts:
            ids += [tokenizer.bos, *tokenizer.encode(text)]
            if len(ids) >= count:
                break
    return torch.tensor(ids[:count])


class Watch:
    """Seconds of each phase of the start, from the start of the process on."""

    def __init__(self) -> None:
        """The first phase has just ended."""
        self._ended = time.perf_counter()
        self.phases = {"imports": self._ended - BEGAN + before_imports()}

    def lap(self, phase: str) -> None:
        """What went on since the last call was this; a phase may have several."""
        now = time.perf_counter()
        self.phases[phase] = self.phases.get(phase, 0.0) + now - self._ended
        self._ended = now

    def said(self) -> dict[str, Any]:
        """All phases, and the sum of those of a run."""
        total = sum(seconds for phase, seconds in self.phases.items() if phase != OWN)
        rounded = {phase: round(seconds, 2) for phase, seconds in self.phases.items()}
        return {"start s": rounded, "start to first step s": round(total, 2)}


def before_imports() -> float:
    """Seconds from the start of the process to BEGAN, to 0.01; 0 where Linux is not there to say it."""
    with suppress(OSError, ValueError):
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        age = float(Path("/proc/uptime").read_text().split()[0]) - started
        return max(0.0, age - (time.perf_counter() - BEGAN))
    return 0.0


def train(parts: Parts, plan: Plan, watch: Watch, at_least: int, seconds: float) -> list[StepInfo]:
    """The loop until enough steps took enough time."""
    infos: list[StepInfo] = []

    def enough() -> str | None:
        timed = sum(info.seconds for info in infos[WARMUP:])
        return "enough" if len(infos) >= at_least and timed >= seconds else None

    def report(info: StepInfo) -> None:
        infos.append(info)
        if len(infos) == 1:
            watch.lap("first step")

    train_loop(parts, start=0, total=plan.recipe.steps, hooks=[], report=report, interrupted=enough)
    return infos


def compiler(machine: Machine) -> dict[str, Any]:
    """What torch.compile did, by its own account: seconds (phases contain others), and what its caches knew."""
    if not machine.compile:
        return {}
    from torch._dynamo import utils

    spent = {name: round(sum(times), 2) for name, times in utils.compilation_time_metrics.items()}
    longest = dict(sorted(spent.items(), key=lambda item: -item[1])[:16])
    counted = {**utils.counters["aot_autograd"], **utils.counters["inductor"]}
    return {"compiler s": longest, "compiler cache": {name: n for name, n in counted.items() if "cache" in name}}


def rates(steps: list[StepInfo], plan: Plan, machine: Machine) -> dict[str, Any]:
    """Tokens and FLOPs a second; median, and the spread of the steps."""
    recipe, timed = plan.recipe, sorted(info.seconds for info in steps[WARMUP:])
    median = statistics.median(timed)
    flops = recipe.batch_tokens / median * recipe.flops_per_token
    ceiling = matmul_flops(machine)
    return {
        "tokens/s": round(recipe.batch_tokens / median, 1),
        "spread": [round(recipe.batch_tokens / timed[-1], 1), round(recipe.batch_tokens / timed[0], 1)],
        "steps": len(timed),
        "seconds": round(sum(timed), 2),
        "step s": round(median, 5),
        "model TFLOP/s": round(flops / 1e12, 3),
        "MFU, datasheet": round(flops / machine.peak_flops, 4) if machine.peak_flops else None,
        "MFU, matmul": round(flops / ceiling, 4),
        "matmul TFLOP/s": round(ceiling / 1e12, 3),
        "compile s": round(sum(info.seconds - median for info in steps[:WARMUP]), 2),
    }


def matmul_flops(machine: Machine) -> float:
    """FLOP/s of a large product in the compute dtype, the best of a few."""
    size = 8192 if machine.device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=machine.device).to(getattr(torch, machine.dtype)) for _ in range(2))
    found = []
    for _ in range(8):
        synchronize(machine.device)
        start = time.perf_counter()
        for _ in range(4):
            torch.mm(a, b)
        synchronize(machine.device)
        found.append(4 * 2 * size**3 / (time.perf_counter() - start))
    return statistics.median(found[2:])


def memory(plan: Plan, machine: Machine) -> dict[str, Any]:
    """The peak beside what the plan says; a CPU does not know its own."""
    predicted = plan.placement.memory
    parts = {rule.name: rule.value for rule in plan.rules if rule.name.startswith("memory")}
    said: dict[str, Any] = {"peak GB, predicted": round(predicted / 1e9, 3), "parts, predicted": parts}
    if machine.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
        said |= {"peak GB": round(peak / 1e9, 3), "measured / predicted": round(peak / predicted, 3)}
    return said


def profile(parts: Parts, plan: Plan) -> dict[str, Any]:
    """Milliseconds a step by class of kernel, and the longest kernels."""
    cuda = parts.device == "cuda"
    kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=kinds) as profiler:
        train_loop(parts, start=0, total=PROFILED, hooks=[], report=lambda info: None, interrupted=lambda: None)
        synchronize(parts.device)
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        micro = event.self_device_time_total if cuda else event.self_cpu_time_total
        if micro and not (cuda and (event.device_type == DeviceType.CPU or event.is_user_annotation)):
            times[event.key] += micro / 1000 / PROFILED
    classes: Counter[str] = Counter()
    for name, milliseconds in times.items():
        classes[kernel_class(name)] += milliseconds
    gc.collect()
    rounded = lambda pairs: {name[:160]: round(ms, 3) for name, ms in pairs}  # noqa: E731
    return {"ms a step": rounded(classes.most_common()), "longest": rounded(times.most_common(60))}


def kernel_class(name: str) -> str:
    """By name; what no pattern knows is `other`."""
    return next((kind for kind, pattern in CLASSES.items() if re.search(pattern, name.lower())), "other")


def describe(machine: Machine) -> dict[str, Any]:
    """What the numbers depend on."""
    environment = describe_environment(machine.name)
    known = {key: environment[key] for key in ("device", "python", "platform", "cpu_count", "packages")}
    return known | {
        "dtype": machine.dtype,
        "compile": machine.compile,
        "commit": (environment["git"] or {}).get("commit"),
    }


if __name__ == "__main__":
    try:
        main()
    except NanochatError as error:
        sys.exit(f"error: {error}")
