"""Small random models in the form of Hugging Face's transformers."""

from pathlib import Path
from typing import Any

import torch
from core_files import LAST, ROWS, SOUNDS

VOCAB = 300


def train_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    made.train_from_iterator([str(row) for uri in (SOUNDS, LAST) for row in ROWS[uri]], trainer)
    special: Any = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    import transformers

    transformers.PreTrainedTokenizerFast(tokenizer_object=made, **special).save_pretrained(folder)


def save(folder: Path, model: Any) -> Path:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # a fresh model finds everything about equally likely
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    train_tokenizer(folder)
    return folder
