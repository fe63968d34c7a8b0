"""Did the quickstart learn to count? Reads what the counting evaluation left, says how many answers were right, and
exits 1 below 60 %.

    nanochat stage=eval init_from=sft/quickstart data=sft_generated eval=counting run=quickstart-check
    python examples/quickstart_check.py [RESULT]

RESULT is another result.json with that metric. Most letters occur once in a short word, so a model that always
answers 1 gets about three quarters right: only well above that is it counting.
"""

import json
import os
import sys
from pathlib import Path

METRIC = "eval/chat/counting"
PROBLEMS = 50  # conf/eval/counting.yaml
NEEDED = 0.6


def main() -> int:
    """Prints the verdict; returns the exit code."""
    base_dir = Path(os.environ.get("NANOCHAT_BASE_DIR") or "~/.cache/nanochat").expanduser()
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else base_dir / "eval" / "quickstart-check" / "result.json"
    try:
        accuracy = json.loads(path.read_text(encoding="utf-8"))["metrics"][METRIC]
    except OSError:
        print(f"error: there is no {path}; the commands that make it stand at the top of {__file__}", file=sys.stderr)
        return 1
    except (ValueError, KeyError, TypeError):
        print(f"error: {path} has no {METRIC}; it is made by eval=counting", file=sys.stderr)
        return 1
    verdict = "enough" if accuracy >= NEEDED else f"at least {NEEDED:.0%} are needed"
    print(f"{round(accuracy * PROBLEMS)} of {PROBLEMS} held-out counting questions right ({accuracy:.0%}): {verdict}")
    return 0 if accuracy >= NEEDED else 1


if __name__ == "__main__":
    sys.exit(main())
