"""A checkpoint as something that answers: its model, in evaluation mode, on the machine's device."""

from nanochat.checkpoint.find import ResolvedRef
from nanochat.checkpoint.load import load_dims, load_model
from nanochat.config.runtime import AttentionBackend
from nanochat.model.attention_choice import attention_for
from nanochat.model.build import build_model
from nanochat.model.gpt import GPT
from nanochat.runtime.device import Machine


def load_for_inference(ref: ResolvedRef, machine: Machine, attention: AttentionBackend = AttentionBackend.auto) -> GPT:
    """The checkpoint's model on the machine's device, in evaluation mode.

    `attention` counts where there is no cache. It is torch's own where nothing is asked for: texts have many lengths,
    and the kernels that are faster would be compiled or planned for each. So it is for flex, which is a kernel only
    where it is compiled: what a run was trained with must not be refused when it is evaluated.
    """
    dims = load_dims(ref.path)
    model = build_model(dims, machine.device, machine.dtype, seed=0)
    model.load_state_dict(load_model(ref.path), strict=True)
    if attention not in (AttentionBackend.auto, AttentionBackend.flex):
        model.attention = attention_for(str(attention), dims, machine.device, machine.dtype, compiled=False)
    return model.eval()
