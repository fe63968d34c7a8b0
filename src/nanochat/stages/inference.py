"""A checkpoint as something that answers: its model, in evaluation mode, on the machine's device."""

from nanochat.checkpoint.find import ResolvedRef
from nanochat.checkpoint.load import load_dims, load_model
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.runtime.device import Machine


def load_for_inference(ref: ResolvedRef, machine: Machine) -> GPT:
    """The checkpoint's model on the machine's device, in evaluation mode."""
    dims = load_dims(ref.path)
    model = build_model(dims, machine.device, machine.dtype, seed=0)
    model.load_state_dict(load_model(ref.path), strict=True)
    return model.eval()
