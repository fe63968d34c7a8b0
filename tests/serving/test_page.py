"""The web page in a real browser, against the real server with a network that says what a script tells it to."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from api_server import Api, api_server, make_service, until
from browser import DESKTOP, PHONE, Watched, answers, ask, finished, questions
from models import ChainGPT, chain

from nanochat.engine.engine import Engine
from nanochat.tokenizer.bpe import Tokenizer

CONTEXT = 512
HTML = ["<script>window.broken=1</script>", "<img src=x onerror='window.broken=2'>", "<style>*{display:none}</style>"]
CODE = "\n\n```python\nprint('<b>6 * 7</b>')\n```\n\n"
MORE = [f"word{i} " for i in range(40)]


# each piece of the script is a token of its own, so that it can say which one follows
PIECES = ["Hello, ", *HTML, " is ", "6*7", "So it is 42.", CODE, *MORE]


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    return Tokenizer({**{bytes([i]): i for i in range(256)}, **{t.encode(): 256 + i for i, t in enumerate(PIECES)}})


@pytest.fixture(scope="module")
def speaker(pieces: Tokenizer) -> ChainGPT:
    call = ("<|python_start|>", "6*7", "<|python_end|>", "<|output_end|>")  # the tool writes what comes before the last
    script = ("<|assistant_start|>", "Hello, ", *HTML, " is ", *call, "So it is 42.", CODE, *MORE, "<|assistant_end|>")
    ids = [256 + PIECES.index(t) if t in PIECES else pieces.special(t) for t in script]
    return chain(pieces, [*ids, 0], CONTEXT)


class SlowEngine(Engine):
    """Slow enough to be watched."""

    def step(self) -> Any:
        time.sleep(0.02)
        return super().step()


@pytest.fixture(scope="module")
def api(speaker: ChainGPT, pieces: Tokenizer) -> Iterator[Api]:
    with api_server(make_service(pieces, [lambda: SlowEngine(speaker, pieces, "cpu")], CONTEXT)) as running:
        yield running


@pytest.fixture
def watched(browser: Any, api: Api) -> Iterator[Watched]:
    context = browser.new_context(**DESKTOP, color_scheme="light")
    made = Watched(context, f"{api.url}/")
    yield made
    context.close()
    assert made.faults == []


def test_an_answer_streams_stays_text_and_is_found_again(watched: Watched) -> None:
    page = watched.page()
    assert page.locator("#model").input_value() == "sft/tiny@7"
    ask(page, "Hi <b>there</b>")
    lengths = []
    while len(set(lengths)) < 6 and len(lengths) < 500:
        lengths.append(sum(map(len, answers(page))))
        page.wait_for_timeout(10)
    assert len(set(lengths)) >= 6 and lengths[0] < lengths[-1], "it does not stream"
    finished(page)

    (answer,) = answers(page)
    assert questions(page) == ["Hi <b>there</b>"]
    assert all(html in answer for html in HTML)
    assert page.locator("#log script, #log img, #log style, #log b").count() == 0
    assert page.evaluate("window.broken") is None
    assert page.locator(".tool").inner_text().split() == ["6*7", "→", "42"]
    assert page.locator("pre code").inner_text() == "print('<b>6 * 7</b>')"
    assert answer.rstrip().endswith("word39")
    assert "tokens" in page.locator(".meta").inner_text()

    page.reload()
    finished(page)
    assert answers(page) == [answer] and questions(page) == ["Hi <b>there</b>"]
    assert page.locator(".entry.current .open").inner_text() == "Hi <b>there</b>"
    page.goto(watched.origin)  # without the conversation's address it waits in the list
    page.wait_for_selector("#welcome:not([hidden])")
    page.click(".entry .open")
    assert answers(page) == [answer]


@pytest.mark.parametrize("how", ["Escape", "button"])
def test_an_answer_can_be_stopped(watched: Watched, api: Api, how: str) -> None:
    page = watched.page()
    ask(page, "Hi")
    page.wait_for_selector(".tool")
    if how == "button":
        page.click("#send[data-shows=stop]")
    else:
        page.keyboard.press("Escape")
    finished(page)
    (stopped,) = answers(page)
    assert "Hello" in stopped and "word39" not in stopped
    assert page.locator(".notice.note:visible").inner_text() == "Stopped."
    until(lambda: api.service.live_rows == 0)
    page.wait_for_timeout(100)
    assert answers(page) == [stopped]
    page.reload()
    finished(page)
    assert answers(page) == [stopped]


@pytest.mark.slow
def test_an_answer_goes_on_while_another_conversation_is_read(watched: Watched) -> None:
    page = watched.page()
    ask(page, "first")
    page.wait_for_selector(".tool")
    page.keyboard.press("Control+Shift+O")
    page.wait_for_selector("#welcome:not([hidden])")
    assert page.evaluate("document.activeElement.id") == "draft"
    assert page.locator(".entry.running").count() == 1
    page.wait_for_selector(".entry:not(.running)")
    page.click(".entry .open")
    assert answers(page)[0].rstrip().endswith("word39")


@pytest.mark.slow
def test_a_reload_in_the_middle_keeps_what_there_was(watched: Watched) -> None:
    page = watched.page()
    ask(page, "Hi")
    page.wait_for_selector(".tool")
    page.reload()
    finished(page)
    assert answers(page)[0].startswith("Hello") and "word39" not in answers(page)[0]
    page.click("button.again")
    finished(page)
    assert len(answers(page)) == 1 and "word39" in answers(page)[0]


@pytest.mark.slow
def test_the_context_is_not_the_users_concern(watched: Watched) -> None:
    """The oldest turns go when the server says that the conversation is too long."""
    watched.allow_refusals = True
    page = watched.page()
    for text in ("a" * 150, "b" * 150, "c" * 150):
        ask(page, text)
        page.wait_for_selector(".turn:last-child .tool")
        page.keyboard.press("Escape")
        finished(page)
    assert "without the 1 oldest" in page.locator(".turn:last-child").inner_text()
    assert len(questions(page)) == 3


def test_colours_follow_the_system_and_the_choice(browser: Any, api: Api) -> None:
    def paper(page: Any) -> int:
        """Brightness of the page, 0 to 765."""
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(number) for number in colour[4:-1].split(","))

    for scheme, bright in (("light", True), ("dark", False)):
        context = browser.new_context(**DESKTOP, color_scheme=scheme)
        watched = Watched(context, f"{api.url}/")
        page = watched.page()
        assert (paper(page) > 600) is bright
        page.click("#theme")  # light, whatever the system says
        assert paper(page) > 600
        page.click("#theme")
        assert paper(page) < 150
        page.reload()
        assert paper(page) < 150 and page.locator("#theme").inner_text() == "Dark"
        page.click("#theme")
        assert (paper(page) > 600) is bright
        context.close()
        assert watched.faults == []


def test_a_phone_scrolls_in_one_direction(browser: Any, api: Api) -> None:
    context = browser.new_context(**PHONE)
    watched = Watched(context, f"{api.url}/")
    page = watched.page()
    page.fill("#draft", "unbroken" * 40)
    page.tap("#send")
    finished(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('#scroll').scrollWidth") <= 390
    assert not page.locator("#side").is_visible()
    page.tap("#menu")
    page.wait_for_selector(".entry .open")
    page.tap("#new")
    page.wait_for_selector("#welcome:not([hidden])")
    page.wait_for_timeout(350)
    assert not page.locator("#side").is_visible()
    page.fill("#draft", "a")
    page.press("#draft", "Enter")  # a touch keyboard's Enter is a new line
    assert page.input_value("#draft") == "a\n"
    page.tap("#params")
    assert page.locator("#sheet").bounding_box()["width"] <= 390
    context.close()
    assert watched.faults == []
