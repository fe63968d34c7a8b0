"""A small random network behind a server, and OpenAI's client or a browser in front of it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from api_server import Api, api_server, make_service
from browser import DESKTOP, Watched, chromium
from models import ChainGPT, Typist, chain, random_model
from openai import OpenAI
from page_server import PageServer, page_server, words

from nanochat.engine.engine import Engine
from nanochat.plan.dims import ModelDims
from nanochat.tokenizer.bpe import Tokenizer

CONTEXT = 256
MODEL = "sft/tiny@7"


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer({bytes([i]): i for i in range(256)})


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer) -> Typist:
    torch.set_num_threads(1)
    dims = ModelDims(2, 32, 4, 2, 8, tokenizer.vocab_size, CONTEXT, 10_000.0, "float32", 1e-6, 15.0)
    return random_model(dims)


@pytest.fixture(scope="session")
def make_engine(model: Typist, tokenizer: Tokenizer) -> Callable[[], Engine]:
    return lambda: Engine(model, tokenizer, "cpu", max_rows=32)


@pytest.fixture(scope="session")
def alphabet(tokenizer: Tokenizer) -> ChainGPT:
    """Answers with the alphabet, again and again."""
    letters = [*b"abcdefghijklmnopqrstuvwxyz"]
    return chain(tokenizer, [tokenizer.special("<|assistant_start|>"), *letters, letters[0]], CONTEXT)


@pytest.fixture(scope="session")
def api(make_engine: Callable[[], Engine], tokenizer: Tokenizer) -> Iterator[Api]:
    """One server for all tests that only ask."""
    with api_server(make_service(tokenizer, [make_engine], CONTEXT)) as running:
        yield running


@pytest.fixture(scope="session")
def client(api: Api) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def server() -> Iterator[PageServer]:
    """Says back what it was told, unless a test has it say something else."""
    with page_server(lambda body: words(f"You said: {body['messages'][-1]['content']}")) as running:
        yield running


@pytest.fixture
def watched(browser: Any, server: PageServer) -> Iterator[Watched]:
    context = browser.new_context(**DESKTOP, accept_downloads=True)
    made = Watched(context, server.url)
    yield made
    context.close()
    assert made.faults == []
