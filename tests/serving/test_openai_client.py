"""OpenAI's own client against the server, unchanged."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from nanochat.engine.sampling import SamplingParams
from nanochat.tokenizer.bpe import Tokenizer
from nanochat.tokenizer.chat import render_for_completion

MODEL = "sft/tiny@7"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def chat(client: OpenAI, **asked: Any) -> Any:
    return client.chat.completions.create(**{"model": MODEL, "messages": HELLO, "max_tokens": 12, **asked})


def alone(make_engine: Any, tokenizer: Tokenizer, text: str, **params: Any) -> str:
    """What the engine writes by itself."""
    prompt = render_for_completion(tokenizer, {"messages": [{"role": "user", "content": text}]})
    [ids] = make_engine().generate_batch(
        [prompt], SamplingParams(**{"max_new_tokens": 12, "temperature": 0.0, **params})
    )
    return tokenizer.decode(ids)


def test_an_answer_in_one_piece(client: OpenAI, make_engine: Any, tokenizer: Tokenizer) -> None:
    answer = chat(client)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == MODEL
    [choice] = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == alone(make_engine, tokenizer, "hello")
    assert choice.finish_reason == "length"
    prompt = len(render_for_completion(tokenizer, {"messages": HELLO}))
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        prompt,
        12,
        prompt + 12,
    )


def test_a_stream_is_the_same_answer_role_first(client: OpenAI) -> None:
    whole = chat(client).choices[0].message.content
    chunks = list(chat(client, stream=True))
    assert len({chunk.id for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage_ends_with_the_counts(client: OpenAI) -> None:
    usage = chat(client).usage
    *chunks, last = chat(client, stream=True, stream_options={"include_usage": True})
    assert last.choices == [] and last.usage == usage
    assert all(chunk.usage is None for chunk in chunks)


def test_the_wire_is_server_sent_events(client: OpenAI, api: Any) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=HELLO, max_tokens=3, stream=True
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = b"".join(response.iter_bytes()).decode()
    events = text.split("\n\n")
    assert all(event.startswith("data: {") for event in events[:-2])
    assert events[-2:] == ["data: [DONE]", ""]
    assert '"usage"' not in text


def test_n_answers_differ_and_keep_their_places(client: OpenAI) -> None:
    asked: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 5}
    whole = chat(client, **asked)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3
    assert whole.usage.completion_tokens == 36
    streamed = ["", "", ""]
    ends = []
    for chunk in chat(client, stream=True, **asked):
        [choice] = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
        ends += [choice.index] if choice.finish_reason else []
    assert streamed == texts and sorted(ends) == [0, 1, 2]


def test_a_seed_repeats_an_answer_and_none_does_not(client: OpenAI) -> None:
    def text(**asked: Any) -> str:
        return str(chat(client, temperature=1.0, **asked).choices[0].message.content)

    assert text(seed=1) == text(seed=1) != text(seed=2)
    assert text(seed=-1) == text(seed=-1)
    assert len({text() for _ in range(4)}) == 4


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_stop_string_ends_the_answer_in_front_of_it(client: OpenAI, stream: bool, as_list: bool) -> None:
    text = chat(client, temperature=1.0, seed=3, max_tokens=40).choices[0].message.content
    stop = text[10:14]
    at = text.index(stop)
    answer = chat(
        client,
        temperature=1.0,
        seed=3,
        max_tokens=40,
        stop=["\x00never", stop] if as_list else stop,
        stream=stream,
        **({"stream_options": {"include_usage": True}} if stream else {}),
    )
    if stream:
        chunks = list(answer)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text[:at]
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        usage = chunks[-1].usage
    else:
        assert answer.choices[0].message.content == text[:at]
        assert answer.choices[0].finish_reason == "stop"
        usage = answer.usage
    assert usage.completion_tokens == at + 4, "the tokens that were written to find the stop string count"


def test_sampling_parameters_reach_the_engine(client: OpenAI, make_engine: Any, tokenizer: Tokenizer) -> None:
    answer = chat(
        client, temperature=0.9, top_p=0.8, seed=4, extra_body={"top_k": 7, "min_p": 0.02, "repetition_penalty": 1.5}
    )
    expected = alone(
        make_engine, tokenizer, "hello", temperature=0.9, top_p=0.8, seed=4, top_k=7, min_p=0.02, repetition_penalty=1.5
    )
    assert answer.choices[0].message.content == expected
    greedy = chat(client, temperature=1.0, top_p=0, seed=8).choices[0].message.content
    assert greedy == chat(client).choices[0].message.content


def test_completions(client: OpenAI, make_engine: Any, tokenizer: Tokenizer) -> None:
    answer = client.completions.create(model=MODEL, prompt="once")
    prompt = [tokenizer.bos, *b"once"]
    [ids] = make_engine().generate_batch([prompt], SamplingParams(max_new_tokens=16, temperature=0.0))
    assert answer.choices[0].text == tokenizer.decode(ids)
    assert answer.usage is not None and answer.usage.prompt_tokens == 5 and answer.usage.completion_tokens == 16
    pieces = list(client.completions.create(model=MODEL, prompt="once", stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == answer.choices[0].text
    assert pieces[-1].choices[0].finish_reason == "length"
    assert client.completions.create(model=MODEL, prompt=prompt).choices[0].text == answer.choices[0].text
    many = client.completions.create(model=MODEL, prompt=["once", "twice"], n=2, max_tokens=4)
    assert [choice.index for choice in many.choices] == [0, 1, 2, 3]
    assert many.choices[0].text == answer.choices[0].text[:4] == many.choices[1].text
    assert many.choices[2].text == client.completions.create(model=MODEL, prompt="twice", max_tokens=4).choices[0].text
    assert many.usage is not None and many.usage.prompt_tokens == 5 + 6


def test_models(client: OpenAI) -> None:
    [model] = client.models.list().data
    assert model.id == MODEL and model.object == "model"
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve("nanochat").id == MODEL
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt-9")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    with pytest.raises(openai.NotFoundError):
        chat(client, model="gpt-9")


def test_errors_are_openais(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, temperature=3)
    assert error.value.type == "invalid_request_error"
    assert error.value.param == "temperature"
    assert "less than or equal to 2" in error.value.message
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, messages=[{"role": "user", "content": "x" * 300}])
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as error:
        chat(client, messages=[{"role": "user", "content": "x" * 300}], stream=True)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model=MODEL, input="x")


def test_async_client(api: Any) -> None:
    import asyncio

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="none") as client:
            stream = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5, stream=True)
            return [chunk.choices[0].delta.content or "" async for chunk in stream]

    assert len("".join(asyncio.run(ask()))) == 5


def test_the_helpers_of_the_client_work_too(client: OpenAI) -> None:
    text = chat(client).choices[0].message.content
    with client.chat.completions.stream(model=MODEL, messages=HELLO, stop=text[5:9]) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    answer = final.choices[0].message
    assert answer.content == text[:5]
    # what was answered goes back as it came
    again: list[Any] = [*HELLO, answer, {"role": "user", "content": "go on"}]
    assert chat(client, messages=again).choices[0].finish_reason == "length"
