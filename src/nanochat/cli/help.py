"""The help page: commands, groups with their options, and the keys that are used most. Reads conf/, imports little."""

from collections.abc import Mapping

from nanochat.config.conf import conf_dir

_EXAMPLES = (
    ("nanochat stage=pipeline experiment=quickstart", "tokenizer, base, mid, sft and eval on this machine, in minutes"),
    ("nanochat stage=base model.depth=26", "pretrain a 26-layer model"),
    ("nanochat plan stage=base model.depth=26", "what that would be, without training"),
    ("nanochat -m model.depth=12,16,20 optim.matrix_lr=0.01,0.02", "a sweep: six runs, each in its own process"),
    ("nanochat chat sft/quickstart", "talk to the model"),
)


def print_help(verbs: Mapping[str, str]) -> int:
    """Prints the page; returns exit code 0."""
    lines = [
        "nanochat [COMMAND] [key=value ...]",
        "",
        "Trains a small ChatGPT from nothing; every choice is a config value.",
        "",
    ]
    lines += ["Commands (without one, the stage given by stage= is run):"]
    lines += [f"  {verb:<8}{summary}" for verb, summary in verbs.items()]
    lines += ["", "Config groups (group=option):"]
    for folder in sorted(p for p in conf_dir().iterdir() if p.is_dir()):
        options = sorted(p.stem for p in folder.glob("*.yaml"))
        lines.append(f"  {folder.name:<12}{', '.join(options)}")
    lines += ["", "Keys: nanochat stage=base --cfg job shows all of them with their values; conf/ explains each.", ""]
    lines += ["Examples:"]
    width = max(len(command) for command, _ in _EXAMPLES) + 2
    lines += [f"  {command:<{width}}{text}" for command, text in _EXAMPLES]
    lines += [
        "",
        "Hydra's flags pass through: -m (sweep), --cfg job [--resolve], --config-dir DIR (your own options),",
        '-sc install=bash (tab completion: eval "$(nanochat -sc install=bash)"). HYDRA_FULL_ERROR=1 shows tracebacks.',
    ]
    print("\n".join(lines))
    return 0
