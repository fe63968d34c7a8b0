"""The web page in a real browser when things go wrong: a full, broken or locked server, full or damaged storage, two
tabs. All of it with `make test-all`: every test here opens pages of its own.
"""

import pytest
from browser import Watched, answers, ask, eventually, finished, questions, said
from page_server import PageServer, Said, words

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("refusal", "shown"),
    [
        (Said(status=503, error={"message": "the model is being loaded"}), "model is being loaded"),
        (Said(status=500), "The server answered 500."),
        (Said(["half "], finish=None), "The connection broke off"),
    ],
)
def test_a_failure_is_shown_and_can_be_retried(watched: Watched, server: PageServer, refusal: Said, shown: str) -> None:
    watched.allow_refusals = True
    page = watched.page()
    echo = server.answer
    server.answer = lambda body: refusal
    ask(page, "one")
    assert shown in page.locator(".notice.error").inner_text()
    server.answer = echo
    page.click(".retry")
    page.wait_for_selector(".notice.error", state="detached")
    finished(page)
    assert answers(page) == ["You said: one"] and page.locator("#send").get_attribute("aria-label") == "Send"


def test_a_full_server_is_given_the_time_it_asks_for(watched: Watched, server: PageServer) -> None:
    watched.allow_refusals = True
    page = watched.page()
    server.answer = lambda body: Said(status=429, headers={"Retry-After": "1"}, error={"message": "the queue is full"})
    ask(page, "one")
    assert "queue is full" in page.locator(".notice.error").inner_text()
    assert page.locator(".retry").is_disabled() and "Retry in 1 s" in page.locator(".retry").inner_text()
    server.answer = lambda body: words("now")
    page.click(".retry")  # waits until it can be pressed
    page.wait_for_selector(".notice.error", state="detached")
    finished(page)
    assert answers(page) == ["now"]


def test_a_server_that_is_gone(watched: Watched) -> None:
    watched.allow_refusals = True
    page = watched.page()
    page.route("**/v1/**", lambda route: route.abort())
    ask(page, "one")
    assert "cannot be reached" in page.locator(".notice.error").inner_text()


def test_the_key_is_asked_for(watched: Watched, server: PageServer) -> None:
    watched.allow_refusals = True
    server.api_key = "secret"
    page = watched.page()
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key-field", "secret")
    page.click("#key-form button[value=save]")
    eventually(page, "document.querySelector('#model').value === 'sft/quickstart'")
    assert said(page, "one") == ["You said: one"]
    assert page.evaluate("Object.keys(localStorage).filter((key) => key.includes('key'))") == []
    server.api_key = "another"
    ask(page, "two")
    page.wait_for_selector("#key-dialog[open]")
    page.fill("#key-field", "another")
    page.press("#key-field", "Enter")
    page.wait_for_selector(".notice.error", state="detached")
    eventually(page, "document.querySelectorAll('.turn.assistant .body .prose').length == 2")
    assert answers(page)[-1] == "You said: two"


@pytest.mark.parametrize("cut", [1, 7])
def test_events_may_be_cut_anywhere(watched: Watched, server: PageServer, cut: int) -> None:
    server.answer = lambda body: words("né 日本 🙂 \r\n end", cut=cut)
    assert said(watched.page(), "one") == ["né 日本 🙂 \n end"]


@pytest.mark.parametrize(
    "damage",
    [
        "for (const key of Object.keys(localStorage)) localStorage.setItem(key, '{')",
        'localStorage.setItem(\'nanochat/conversation/ab\', \'{"messages": [{"role": "x"}, null, 7], "title": 5}\')',
        "localStorage.setItem('nanochat/parameters', JSON.stringify({temperature: 'hot', top_k: -4, system: 3}))",
    ],
)
def test_damaged_storage_breaks_nothing(watched: Watched, damage: str) -> None:
    page = watched.page()
    said(page, "one")
    page.evaluate(damage)
    page.goto(watched.origin + "?again")
    assert said(page, "two") == ["You said: two"]


def test_full_storage_is_said_and_breaks_nothing(watched: Watched) -> None:
    page = watched.page()
    page.evaluate("""() => {
        let size = 1 << 22;
        for (let i = 0; size; i++) {
            try { localStorage.setItem("other" + i, "x".repeat(size)); } catch { size >>= 1; }
        }
    }""")
    assert said(page, "one") == ["You said: one"]
    assert "storage is full" in page.locator("#toast").inner_text()
    assert said(page, "two") == ["You said: one", "You said: two"]
    page.click("#new")
    page.click(".entry .open")
    assert questions(page) == ["one", "two"]


def test_no_storage_at_all_breaks_nothing(watched: Watched) -> None:
    watched.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }});"
    )
    page = watched.page()
    assert said(page, "one") == ["You said: one"]
    page.click("#theme")
    assert page.locator("#theme").inner_text() == "Light"


def test_two_tabs_keep_each_others_conversations(watched: Watched, server: PageServer) -> None:
    one, two = watched.page(), watched.page()
    said(one, "from one")
    said(two, "from two")
    for page in (one, two):
        eventually(page, "document.querySelectorAll('.entry').length == 2")
    two.click(".entry:not(.current) .open")  # now both read the first conversation
    said(two, "and from two")
    eventually(one, "document.querySelectorAll('.turn').length == 4")
    server.answer = lambda body: words("slow and steady " * 8, 0.03)
    for page in (one, two):
        ask(page, "both at once")
    for page in (one, two):
        finished(page)
    one.reload()
    one.wait_for_selector(".entry")
    titles = one.locator(".entry .open").all_inner_texts()
    assert sorted(titles) == ["from one", "from one (copy)", "from two"]


def test_a_conversation_deleted_in_another_tab_is_closed(watched: Watched) -> None:
    one = watched.page()
    said(one, "here")
    two = watched.page()
    two.hover(".entry")
    two.click(".entry .delete")
    one.wait_for_selector("#welcome:not([hidden])")
    assert one.locator(".entry").count() == 0
