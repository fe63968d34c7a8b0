"""How fast each kernel of attention is, forward and backward together, and how far it is from float64.

    python benchmarks/attention.py --batch 16 --heads 12 --window 512 --seconds 3 --out attention.json

Random normal queries, keys and values in the layout of training, (batch, time, heads, width). Each kernel computes each
of `--sights`: causal, the same with a window, with documents of about `--document` tokens, and with both. What is timed
is what a layer does, compiled unless `--eager`; what all layers share, the mask or its tiles, is made before. FLOPs are
those of the pairs that are seen: 4 * width * heads a pair forward, 2.5 times that backward. The error is the largest
distance from plain attention in float64, over the largest number, of the result and of the three gradients, on one row.
A kernel that cannot is listed with the reason.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanochat.errors import ConfigError
from nanochat.model.attention_backends import Sight, attend, document_numbers, look, sight_mask
from nanochat.model.attention_choice import AttentionFacts, choose_attention
from nanochat.runtime.device import synchronize
from nanochat.runtime.environment import describe_environment

KERNELS = ["flash4", "flex", "cudnn", "flash", "efficient", "sdpa", "plain"]
DTYPES = ["bfloat16", "float16", "float32"]
SIGHTS = ["causal", "window", "documents", "both"]
START = 0  # the token that starts a document
Run = Callable[[Tensor, Tensor, Tensor, Sight], Tensor]


def main() -> None:
    """Measures, prints JSON, writes it to --out."""
    args = parse_arguments()
    result: dict[str, Any] = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "command": sys.argv}
    result |= {"machine": machine(args), "settings": {k: str(v) for k, v in vars(args).items()}, "rows": []}
    idx_BT = tokens(args)
    for sight in args.sights:
        pairs = seen_pairs(args, sight, idx_BT)
        for kernel in args.kernels:
            row = {"sight": sight, "kernel": kernel} | measure(args, kernel, sight, idx_BT, pairs)
            result["rows"].append(row)
            print(row, file=sys.stderr, flush=True)
    text = json.dumps(result, indent=1, default=str)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS, help="names of runtime.attention")
    parser.add_argument("--sights", nargs="+", choices=SIGHTS, default=SIGHTS, help="what a query may look at")
    parser.add_argument("--batch", type=int, default=16 if cuda else 2, help="rows")
    parser.add_argument("--seq-len", type=int, default=2048 if cuda else 256, help="positions of a row")
    parser.add_argument("--heads", type=int, default=12 if cuda else 2, help="query heads")
    parser.add_argument("--kv-heads", type=int, help="key and value heads; default: as many as query heads")
    parser.add_argument("--head-dim", type=int, default=128 if cuda else 32, help="width of a head")
    parser.add_argument("--window", type=int, default=512 if cuda else 64, help="how far back a query looks")
    parser.add_argument("--document", type=int, default=600 if cuda else 60, help="mean length of a document")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16" if cuda else "float32", help="of q, k, v")
    parser.add_argument("--device", default="cuda" if cuda else "cpu", help="cuda or cpu")
    parser.add_argument("--eager", action="store_true", help="no torch.compile")
    parser.add_argument("--seconds", type=float, default=3, help="of each kernel and sight")
    parser.add_argument("--out", type=Path, help="file for the JSON")
    return parser.parse_args()


def machine(args: argparse.Namespace) -> dict[str, Any]:
    """What the numbers depend on."""
    name = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    environment = describe_environment(name)
    return {key: environment[key] for key in ("device", "python", "platform", "cpu_count", "packages")}


def tokens(args: argparse.Namespace) -> Tensor:
    """Rows of ids of which one in `--document` starts a document."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(args.document, (args.batch, args.seq_len), generator=generator).to(args.device)


def sight_of(args: argparse.Namespace, kernel: str, sight: str, idx_BT: Tensor) -> Sight:
    """What the kernel may look at, in the form that it reads."""
    window = args.window if sight in ("window", "both") else None
    documents_BT = document_numbers(idx_BT, START) if sight in ("documents", "both") else None
    return look(kernel, idx_BT.shape[1], window, documents_BT, idx_BT.device)


def seen_pairs(args: argparse.Namespace, sight: str, idx_BT: Tensor) -> int:
    """Pairs of a query and a key that it sees, in all rows."""
    window = args.window if sight in ("window", "both") else None
    if sight in ("causal", "window"):
        return len(idx_BT) * int(sight_mask(idx_BT.shape[1], window, None, idx_BT.device).sum())
    numbers_BT = document_numbers(idx_BT, START)
    return sum(int(sight_mask(idx_BT.shape[1], window, row[None], idx_BT.device).sum()) for row in numbers_BT)


def measure(args: argparse.Namespace, kernel: str, sight: str, idx_BT: Tensor, pairs: int) -> dict[str, Any]:
    """Times and errors of one kernel at one sight, or why there are none."""
    capability = torch.cuda.get_device_capability() if args.device == "cuda" else None
    facts = AttentionFacts(args.device, args.dtype, args.head_dim, not args.eager, capability)
    try:
        choose_attention(kernel, facts, sight in ("window", "both"), sight in ("documents", "both"))
        run = attend if args.eager else compiled()
        times = time_of(args, run, sight_of(args, kernel, sight, idx_BT))
        errors = error_of(args, run, kernel, sight, idx_BT[:1])
    except ConfigError as error:
        return {"cannot": str(error)}
    except Exception as error:  # kernels fail in many ways; the others are measured all the same
        return {"cannot": f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]}
    each = statistics.median(times)
    flops = 3.5 * 4 * args.head_dim * args.heads * pairs
    return {
        "ms": round(1e3 * each, 4),
        "spread": [round(1e3 * min(times), 4), round(1e3 * max(times), 4)],
        "rounds": len(times),
        "TFLOP/s": round(flops / each / 1e12, 4),
        "error": {name: float(f"{error:.3g}") for name, error in zip(("y", "dq", "dk", "dv"), errors, strict=True)},
    }


def compiled() -> Run:
    """Attention in a graph of its own, made for the first shapes that it gets."""
    torch.compiler.reset()
    return torch.compile(attend, dynamic=False, fullgraph=True)


def inputs(args: argparse.Namespace, rows: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, keys, values and the gradient of the result."""
    generator = torch.Generator(args.device).manual_seed(4)
    kv_heads = args.kv_heads or args.heads
    shapes = [(rows, args.seq_len, heads, args.head_dim) for heads in (args.heads, kv_heads, kv_heads, args.heads)]
    dtype = getattr(torch, args.dtype)
    q, k, v, grad = (torch.randn(s, device=args.device, generator=generator).to(dtype) for s in shapes)
    return q, k, v, grad


def forward_backward(run: Run, q: Tensor, k: Tensor, v: Tensor, grad: Tensor, sight: Sight) -> list[Tensor]:
    """The result and the gradients of q, k and v."""
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
    y = run(q, k, v, sight)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), grad)]


def time_of(args: argparse.Namespace, run: Run, sight: Sight) -> list[float]:
    """Seconds of a forward and backward pass, each the mean of a round of ten, after three that do not count."""
    given = inputs(args, args.batch)
    for _ in range(3):
        forward_backward(run, *given, sight)
    times: list[float] = []
    end = time.perf_counter() + args.seconds
    while not times or time.perf_counter() < end:
        synchronize(args.device)
        start = time.perf_counter()
        for _ in range(10):
            forward_backward(run, *given, sight)
        synchronize(args.device)
        times.append((time.perf_counter() - start) / 10)
    return times


def error_of(args: argparse.Namespace, run: Run, kernel: str, sight: str, idx_BT: Tensor) -> list[float]:
    """Largest distance over largest number, of the result and the gradients, on these rows."""
    given = inputs(args, len(idx_BT))
    found = forward_backward(run, *given, sight_of(args, kernel, sight, idx_BT))
    q, k, v, grad = (x.double() for x in given)
    exact = forward_backward(attend, q, k, v, grad, sight_of(args, "plain", sight, idx_BT))
    return [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]


if __name__ == "__main__":
    main()
