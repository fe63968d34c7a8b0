"""The web page in a real browser: what a reader does to a conversation. Edit, answer again, rename, delete, export."""

from typing import Any

import pytest
from browser import Watched, answers, ask, eventually, finished, questions, said
from page_server import PageServer, Said, words

from nanochat.tasks.custom_json import CustomJSON


def turns(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in body["messages"]]


def test_edit_and_answer_again(watched: Watched, server: PageServer) -> None:
    page = watched.page()
    said(page, "one")
    said(page, "two")
    page.hover(".turn.user >> nth=0")
    page.click(".turn.user >> nth=0 >> .edit")
    page.fill(".editor textarea", "uno")
    page.press(".editor textarea", "Escape")
    assert questions(page) == ["one", "two"]
    page.press("#draft", "ArrowUp")  # the last message
    page.fill(".editor textarea", "dos")
    page.press(".editor textarea", "Enter")
    finished(page)
    assert questions(page) == ["one", "dos"] and answers(page) == ["You said: one", "You said: dos"]
    assert turns(server.asked[-1]) == [("user", "one"), ("assistant", "You said: one"), ("user", "dos")]
    server.answer = lambda body: words("Something else")
    page.click(".turn.assistant:last-child .again")
    eventually(page, "document.querySelector('#log').innerText.includes('Something else')")
    finished(page)
    assert answers(page) == ["You said: one", "Something else"]
    assert server.asked[-1]["seed"] != server.asked[-2]["seed"]
    page.hover(".turn.user >> nth=0")
    page.click(".turn.user >> nth=0 >> .edit")
    page.press(".editor textarea", "Enter")
    finished(page)
    assert questions(page) == ["one"] and len(answers(page)) == 1


def test_rename_delete_undo_and_export(watched: Watched) -> None:
    page = watched.page()
    said(page, "one")
    page.keyboard.press("Control+Shift+O")
    said(page, "two")
    page.hover(".entry.current")
    page.click(".entry.current .rename")
    page.fill(".entry input", "<b>Second</b>")
    page.press(".entry input", "Enter")
    assert page.locator(".entry .open").all_inner_texts() == ["<b>Second</b>", "one"]
    assert page.locator("#title").inner_text() == "<b>Second</b>"
    with page.expect_download() as download:
        page.click("#export")
    exported = CustomJSON(download.value.path().read_bytes(), "exported")
    assert [c["messages"][0]["content"] for c in exported.conversations] == ["two", "one"]
    page.hover(".entry.current")
    page.click(".entry.current .delete")
    assert page.locator(".entry .open").all_inner_texts() == ["one"] and questions(page) == []
    page.click("#toast-undo")
    assert page.locator(".entry .open").all_inner_texts() == ["<b>Second</b>", "one"]
    page.hover(".entry >> nth=1")
    page.click(".entry >> nth=1 >> .delete")
    page.reload()
    page.wait_for_selector(".entry")
    assert page.locator(".entry .open").all_inner_texts() == ["<b>Second</b>"]


@pytest.mark.slow
def test_tool_calls_are_exported_as_training_has_them(watched: Watched, server: PageServer) -> None:
    server.answer = lambda body: words("I count: [python: 'a]b'.count('b')] [output: 1] so 1. [python: oops] no")
    page = watched.page()
    said(page, "how many?")
    assert page.locator(".tool").count() == 2
    with page.expect_download() as download:
        page.click("#export")
    (conversation,) = CustomJSON(download.value.path().read_bytes(), "exported").conversations
    parts = [(part["type"], part["text"]) for part in conversation["messages"][1]["content"]]
    assert parts[:4] == [
        ("text", "I count: "),
        ("python", "'a]b'.count('b')"),
        ("python_output", "1"),
        ("text", "so 1. "),
    ]


@pytest.mark.slow
def test_parameters_are_sent_and_kept(watched: Watched, server: PageServer) -> None:
    page = watched.page()
    said(page, "one")
    first = server.asked[-1]
    assert (first["temperature"], first["top_k"], first["top_p"], first["stream"]) == (0.6, 50, 1, True)
    assert "max_tokens" not in first and first["model"] == "sft/quickstart"
    page.keyboard.press("Control+,")
    wished = {"temperature": "0.25", "top_k": "7", "top_p": "0.9", "min_p": "0.1", "repetition_penalty": "1.2"}
    for name, value in {**wished, "max_tokens": "33", "seed": "5"}.items():
        page.fill(f"#field-{name}", value)
    page.fill("#system", "Be brief.")
    page.fill("#field-temperature", "9")  # out of bounds: marked, and not taken
    assert page.get_attribute("#field-temperature", "aria-invalid") == "true"
    page.keyboard.press("Escape")
    page.reload()
    said(page, "two")
    sent = server.asked[-1]
    numbers = {name: sent[name] for name in (*wished, "max_tokens", "seed")}
    assert numbers == {name: float(value) for name, value in wished.items()} | {"max_tokens": 33, "seed": 5}
    assert turns(sent)[0] == ("system", "Be brief.")


@pytest.mark.slow
def test_keys_and_names_for_those_who_do_not_see(watched: Watched) -> None:
    page = watched.page()
    said(page, "one")
    unnamed = page.evaluate("""() => [...document.querySelectorAll("button, input, textarea, select")]
        .filter((e) => !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim()))
        .map((e) => e.outerHTML)""")
    assert unnamed == []
    assert page.locator("#status").inner_text() == "Answer: You said: one"
    page.fill("#draft", "a")
    page.press("#draft", "Shift+Enter")
    page.type("#draft", "b")
    page.press("#draft", "Enter")
    finished(page)
    assert questions(page)[-1] == "a\nb"
    page.locator(".log").click()
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "draft"


@pytest.mark.slow
def test_reading_on_is_not_disturbed_by_new_text(watched: Watched, server: PageServer) -> None:
    server.answer = lambda body: Said([f"line {i}\n" for i in range(80)], 0.01)
    page = watched.page()
    ask(page, "many")
    eventually(page, "document.querySelector('#scroll').scrollTop > 100")
    page.hover("#scroll")
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(50)
    place = page.evaluate("document.querySelector('#scroll').scrollTop")
    finished(page)
    assert page.evaluate("document.querySelector('#scroll').scrollTop") == place
    page.click("#jump")
    eventually(page, "document.querySelector('#jump').hidden")
