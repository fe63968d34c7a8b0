"""Makes the pictures of the web page in docs/images: python tests/support/screenshots.py [FOLDER]

Notable: what is said in them is written here, not by a model; the model's name in the picture says so, and no speed
is shown.
"""

import sys
from pathlib import Path
from typing import Any

from browser import DESKTOP, PHONE, chromium, finished
from page_server import Said, page_server, words
from PIL import Image

ROOT = Path(__file__).parents[2]
COLOURS = 256  # of the palette, which makes the files small
SAID = {
    "Who are you?": "I am nanochat, a small language model. I was trained from nothing on one machine, so I know a "
    "little about many things, and I am often wrong about them.",
    "How many r are in strawberry?": "Let me count. [python: 'strawberry'.count('r')] [output: 3] There are 3 r in "
    "strawberry.",
    "Write that as a Python function.": "Here it is:\n\n```python\ndef count_letters(word: str, letter: str) -> int:\n"
    '    """How often `letter` occurs in `word`."""\n    return word.lower().count(letter.lower())\n```\n\n'
    'Then `count_letters("strawberry", "r")` gives 3.',
}
OTHERS = ("What is 12 times 7?", "Spell banana.", "Name three rivers")


def answer(body: dict[str, Any]) -> Said:
    return words(SAID.get(body["messages"][-1]["content"], "That is for another picture."), usage=False)


def talk(page: Any, *questions: str) -> None:
    for question in questions:
        page.fill("#draft", question)
        page.click("#send")
        finished(page)


def take(page: Any, path: Path) -> None:
    page.mouse.move(700, 5)
    page.evaluate("document.activeElement.blur()")
    page.wait_for_timeout(400)
    page.screenshot(path=path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path} ({path.stat().st_size // 1024} KB)")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with page_server(answer) as server, chromium() as browser:
        server.models = ["scripted/example"]
        for scheme in ("light", "dark"):
            page = browser.new_context(**DESKTOP, color_scheme=scheme).new_page()
            page.goto(server.url)
            for other in OTHERS:
                talk(page, other)
                page.click("#new")
            talk(page, *SAID)
            if scheme == "dark":
                page.click("#params")
            take(page, folder / f"page_{scheme}.png")
        page = browser.new_context(**PHONE, color_scheme="light").new_page()
        page.goto(server.url)
        talk(page, *SAID)
        take(page, folder / "page_phone.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images")
