"""How fast the engine writes: tokens a second, time to the first token, and the share of what the memory allows.

    python benchmarks/decode.py --depth 20 --batch 1 16 128 --context 256 512 2048 --seconds 3 --out decode.json

Random weights and prompts, no stop tokens. For each batch and context, prompts are read and then `--tokens` tokens are
written around that context, as often as the seconds allow. The rate counts the time in which all rows are live, from
the last one's first token to the first one's end; the limit is a step's bytes (weights once, keys and values of each
row at the mean context of that time) over the copy bandwidth measured first. The time to the first token is that of one
prompt, and of all prompts of the batch, from submit on.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from nanochat.engine.engine import Engine
from nanochat.engine.sampling import SamplingParams
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.plan.dims import ModelDims
from nanochat.runtime.device import synchronize
from nanochat.runtime.environment import describe_environment

HEAD_DIM = 128


class Endless:
    """A tokenizer without stop tokens and tools, which the engine asks for nothing else here."""

    bos = -2

    def special(self, name: str) -> int:
        """No id that a model could choose."""
        return -2


def main() -> None:
    """Measures, prints JSON, writes it to --out."""
    args = parse_arguments()
    model = make_model(args)
    result: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv}
    result |= {"machine": machine(args), "settings": {k: str(v) for k, v in vars(args).items()}}
    bandwidth = copy_bandwidth(args.device)
    result |= {"copy GB/s": round(bandwidth / 1e9), "weights MB": round(weight_bytes(model) / 1e6)}
    result["rows"] = []
    for batch in args.batch:
        engine = Engine(model, Endless(), args.device, max_rows=batch, plain=args.plain)  # type: ignore[arg-type]
        for context in args.context:
            row = measure(args, engine, batch, context)
            limit = bandwidth / step_bytes(model, batch, row["mean context"]) * batch
            row |= {"limit": round(limit), "share": round(row["tokens/s"] / limit, 3)}
            result["rows"].append(row)
            print(row, file=sys.stderr, flush=True)
        del engine
    text = json.dumps(result, indent=1, default=str)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["gpt", "modern"], default="gpt", help="generation of the network")
    parser.add_argument("--depth", type=int, default=20 if cuda else 2, help="layers; the width is 64 times as much")
    parser.add_argument("--vocab-size", type=int, default=65536, help="of the table and the head")
    parser.add_argument("--seq-len", type=int, default=2048, help="length that the model would be trained at")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 128], help="sequences at a time")
    parser.add_argument("--context", type=int, nargs="+", default=[256, 512, 2048], help="positions around the middle")
    parser.add_argument("--tokens", type=int, default=128, help="tokens written for each prompt")
    parser.add_argument("--seconds", type=float, default=3, help="of writing, for each batch and context")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest token")
    parser.add_argument("--top-k", type=int, default=0, help="0: the whole vocabulary")
    parser.add_argument("--top-p", type=float, default=1.0, help="1: the whole vocabulary")
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="cuda or cpu")
    parser.add_argument("--plain", action="store_true", help="operations of torch one by one, for comparison")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    return parser.parse_args()


def make_model(args: argparse.Namespace) -> GPT:
    """Weights of the size that trained ones have: none is zero, activations neither vanish nor grow."""
    width, modern = 64 * args.depth, {}
    if args.model == "modern":
        width = -(-width // HEAD_DIM) * HEAD_DIM
        modern = {"vocab_multiple": 64, "qk_scale": 1.2, "window_pattern": "SSSL", "value_embeds": True}
        modern |= {"residual_scalars": True, "smear": True, "backout": True, "init": "modern"}
    heads = -(-width // HEAD_DIM)
    shape = (args.depth, width, heads, heads, width // heads, args.vocab_size, args.seq_len)
    dtype = "bfloat16" if args.device == "cuda" else "float32"
    model = build_model(ModelDims(*shape, 10_000.0, "float32", 1e-6, 15.0, **modern), args.device, dtype, seed=0)
    generator = torch.Generator(args.device).manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and not name.startswith("wte"):
                std = weight.shape[1] ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=generator, device=args.device) * std)
    return model.eval()


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    environment = describe_environment(name)
    return {key: environment[key] for key in ("device", "python", "platform", "cpu_count", "packages")}


def copy_bandwidth(device: str) -> float:
    """Bytes a second, read and written both counted, of a copy much larger than any cache."""
    size = (4 << 30) if device == "cuda" else (256 << 20)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rates = []
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        rates.append(2 * size / (time.perf_counter() - start))
    return statistics.median(rates[3:])


def weight_bytes(model: GPT) -> int:
    """What a step reads of the weights, in the compute dtype: all matrices, and of the tables next to nothing."""
    numbers = sum(p.numel() for name, p in model.named_parameters() if "wte" not in name and "table" not in name)
    return numbers * model.wte.weight.element_size()


def step_bytes(model: GPT, batch: int, context: float) -> float:
    """What a step has to read at least."""
    dims = model.dims
    positions = sum(context if window is None else min(context, window + 1) for window in dims.windows)
    each = 2 * dims.n_kv_head * dims.head_dim * model.wte.weight.element_size()
    return weight_bytes(model) + batch * positions * each


def measure(args: argparse.Namespace, engine: Engine, batch: int, context: int) -> dict[str, Any]:
    """Rates at one batch and context."""
    length = max(1, context - args.tokens // 2)
    params = SamplingParams(
        max_new_tokens=args.tokens, temperature=args.temperature, top_k=args.top_k, top_p=args.top_p
    )
    generator = torch.Generator().manual_seed(2)
    prompts = torch.randint(args.vocab_size, (batch, length), generator=generator).tolist()
    write(engine, prompts, params)  # kernels are compiled, graphs recorded
    alone = [write(engine, prompts[:1], params).first for _ in range(3)]
    rounds = []
    while sum(each.seconds for each in rounds) < args.seconds or not rounds:
        rounds.append(write(engine, prompts, params))
    rates = [each.tokens / each.seconds for each in rounds]
    return {
        "batch": batch,
        "context": context,
        "mean context": round(statistics.mean(each.context for each in rounds), 1),
        "tokens/s": round(statistics.median(rates), 1),
        "spread": [round(min(rates), 1), round(max(rates), 1)],
        "rounds": len(rounds),
        "first token s": round(statistics.median(alone), 4),
        "first tokens of all s": round(statistics.median(each.first for each in rounds), 4),
    }


@dataclass
class Round:
    """`first`: seconds until every prompt had its first token; then `tokens` in `seconds` at this mean `context`."""

    first: float
    tokens: int
    seconds: float
    context: float


def write(engine: Engine, prompts: list[list[int]], params: SamplingParams) -> Round:
    """All prompts at once, to the end."""
    start = time.perf_counter()
    sequences = [sequence for prompt in prompts for sequence in engine.submit(prompt, params)]
    while not all(sequence.tokens for sequence in sequences):
        engine.step()
    begin, written = time.perf_counter(), sum(len(sequence.tokens) for sequence in sequences)
    while not any(sequence.finish for sequence in sequences):
        engine.step()
    seconds, after = time.perf_counter() - begin, sum(len(sequence.tokens) for sequence in sequences)
    while engine.busy:
        engine.step()
    context = len(prompts[0]) + (written + after) / 2 / len(prompts)
    return Round(begin - start, after - written, seconds, context)


if __name__ == "__main__":
    main()
