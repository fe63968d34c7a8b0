"""Stop strings, however the text is cut."""

from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.serving.stops import StopFilter


def run(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    """What comes out; that nothing comes out too early is part of it, since it is joined as it comes."""
    watch = StopFilter(stops)
    text = "".join(watch.push(piece) for piece in pieces)
    return text + watch.finish(), watch.stopped


def slow(stops: list[str], text: str) -> tuple[str, bool]:
    """Letter by letter, by definition: the first end of a stop string, the longest of those that end there."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@settings(max_examples=300, deadline=None)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    pieces=st.lists(st.text("abc", max_size=4), max_size=8),
)
def test_the_cut_of_the_text_does_not_matter(stops: list[str], pieces: list[str]) -> None:
    assert run(stops, pieces) == slow(stops, "".join(pieces))


def test_a_possible_beginning_is_held_back_and_let_go() -> None:
    watch = StopFilter(["END."])
    assert [watch.push(piece) for piece in ("the ", "E", "N", "E", "ND", "!")] == ["the ", "", "", "EN", "", "END!"]
    assert not watch.stopped and watch.finish() == ""


def test_nothing_comes_after_the_stop() -> None:
    watch = StopFilter(["b"])
    assert watch.push("abc") == "a"
    assert watch.push("more") == "" and watch.finish() == ""
