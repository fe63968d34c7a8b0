"""The tokenizer without merges: a token a byte. It stands in where a mixture is counted and none is trained yet."""

from nanochat.tokenizer.bpe import Tokenizer

BYTES_A_TOKEN = 4  # of a trained one, on English conversations; only for estimates


def bytes_tokenizer() -> Tokenizer:
    """Ids 0 to 255 are UTF-8 bytes, then the special tokens."""
    return Tokenizer({bytes([byte]): byte for byte in range(256)})
