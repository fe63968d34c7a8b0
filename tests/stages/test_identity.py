"""stage=identity as a user runs it, against a server that this test starts."""

import json
import signal
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from chat_server import Asked, ChatServer, Reply, chat_server, conversation
from victims import Hit, run

from nanochat.cluster.frozen import FrozenJob, freeze
from nanochat.config.load import Composed, compose_run
from nanochat.config.naming import with_names
from nanochat.errors import ConfigError, CorruptError, MismatchError, MissingError, NanochatError
from nanochat.tasks.custom_json import parse_jsonl
from nanochat.train import dispatch

KEY = "sk-very-secret-0123456789"
VARIABLE = "TEST_IDENTITY_KEY"


@cache
def composed(*extra: str) -> Composed:
    """Composing takes longer than what is tested here."""
    return compose_run(["stage=identity", "base_dir=BASE", "identity.count=12", *extra])


def job(base: Path, *extra: str) -> FrozenJob:
    settings = {"identity.out": f"{base}/identity_conversations.jsonl"}
    varying = [o for o in extra if o.partition("=")[0] in ("identity.out", "identity.endpoint")]
    settings |= {o.partition("=")[0]: o.partition("=")[2] for o in varying}
    config = composed(*(o for o in extra if o not in varying)).config
    values = {key.partition(".")[2]: value for key, value in settings.items()}
    config = replace(config, base_dir=str(base), identity=replace(config.identity, **values))
    return FrozenJob(with_names(config), extra)


def make(base: Path, *extra: str) -> list[dict[str, object]]:
    """Runs the stage; returns the conversations of the file."""
    each = job(base, *extra)
    dispatch(each.config, each.overrides)
    return parse_jsonl(Path(each.config.identity.out).read_bytes(), "out")


def asking(server: ChatServer, *extra: str) -> list[str]:
    own = ["identity.mode=endpoint", f"identity.endpoint={server.url}", "identity.api_key_env=null"]
    return [*own, "identity.workers=4", "identity.timeout=5", *extra]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanochat.synthesis.limits.BACKOFF", 0.01)
    monkeypatch.setattr("nanochat.stages.identity.describe_environment", lambda device: {})  # asks git
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_happy_path_and_the_key_stays_in_one_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    prices = ["identity.price_in=1.0", "identity.price_out=10.0"]
    with chat_server() as server:
        made = make(tmp_path, *asking(server, f"identity.api_key_env={VARIABLE}", *prices))
        assert len(made) == len(server.asked) == 12
        assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {KEY}"}
        assert {asked.path for asked in server.asked} == {"/v1/chat/completions"}
        assert server.asked[0].body["response_format"]["type"] == "json_schema"
        assert make(tmp_path, *asking(server, f"identity.api_key_env={VARIABLE}", *prices)) == made
        assert len(server.asked) == 12  # complete: nothing is asked for again
    result = json.loads((tmp_path / "identity" / "nanochat" / "result.json").read_text())["metrics"]
    assert result["identity/tokens read"] == 1200 and result["identity/tokens written"] == 480
    assert result["identity/dollars"] == pytest.approx((1200 * 1 + 480 * 10) / 1e6)
    shown = "".join(capfd.readouterr())
    assert "conversations 12/12" in shown and "$0.0060" in shown and "nothing to do" in shown
    assert KEY not in shown
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 8
    assert [path for path in written if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("status", [401, 500])
def test_an_endpoint_that_repeats_the_key_does_not_get_it_shown(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    told = json.dumps({"error": {"message": f"bad key {KEY} given"}}).encode()
    with (
        chat_server(lambda n, asked: Reply(status=status, body=told)) as server,
        pytest.raises(NanochatError) as caught,
    ):
        make(tmp_path, *asking(server, f"identity.api_key_env={VARIABLE}", "identity.retries=1"))
    assert f"HTTP {status}: bad key (the key) given" in str(caught.value)
    assert KEY not in str(caught.value) + "".join(capfd.readouterr())
    if status == 401:
        assert VARIABLE in str(caught.value)
        assert len(server.asked) <= 4  # a refused key is not tried again


def test_hiccups_are_overcome_and_each_number_is_asked_for_until_it_is_there(tmp_path: Path) -> None:
    troubles = {0: Reply(status=500), 1: Reply(status=429, headers={"Retry-After": "0.05"}), 2: Reply(status=503)}
    troubles[3] = Reply(delay=1.0, text=conversation("late"))

    def answer(number: int, asked: Asked) -> Reply:
        return troubles.get(number, Reply(conversation(asked.wish)))

    with chat_server(answer) as server:
        made = make(tmp_path, *asking(server, "identity.timeout=0.4"))
    assert len(made) == 12
    assert len(server.asked) == 12 + len(troubles)
    assert len(Counter(asked.wish for asked in server.asked)) == 12


def test_what_is_refused_is_counted_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [
        "Sorry, I cannot do that.",
        '{"messages": [{"role": "assistant", "content": "I begin."}]}',
        conversation("x", answer="I am ChatGPT, how can I help?"),
        conversation("twin", answer="I am nanochat, the same as ever, word for word."),
        conversation("twin", answer="I am nanochat, the same as ever; word for word!"),
    ]

    def answer(number: int, asked: Asked) -> Reply:
        return Reply(bad[number] if number < len(bad) else f"Here you are:\n```json\n{conversation(asked.wish)}\n```")

    with chat_server(answer) as server:
        made = make(tmp_path, *asking(server, "identity.workers=1"))
    assert len(made) == 12 and len(server.asked) == 16
    assert "ChatGPT" not in json.dumps(made)
    shown = capsys.readouterr().out
    for reason in ("no conversation in JSON", "not a conversation", "another assistant", "exact duplicate"):
        assert reason in shown


def test_rubbish_ends_with_an_error_and_keeps_what_was_good(tmp_path: Path) -> None:
    def answer(number: int, asked: Asked) -> Reply:
        return Reply(conversation(asked.wish) if number < 3 else "lorem ipsum")

    with chat_server(answer) as server, pytest.raises(NanochatError, match="20 answers in a row .* no conversation"):
        make(tmp_path, *asking(server, "identity.workers=1"))  # with several, a good one may be read after bad ones
    assert len(server.asked) == 3 + 20
    assert not (tmp_path / "identity_conversations.jsonl").exists()
    with chat_server() as server:
        assert len(make(tmp_path, *asking(server))) == 12
        assert len(server.asked) == 9


def test_a_response_format_that_is_not_known_is_dropped(tmp_path: Path) -> None:
    def answer(number: int, asked: Asked) -> Reply:
        if "response_format" in asked.body:
            return Reply(status=400, body=b'{"error": {"message": "response_format is not supported"}}')
        return Reply(conversation(asked.wish))

    with chat_server(answer) as server:
        assert len(make(tmp_path, *asking(server, "identity.workers=1"))) == 12
        assert len(server.asked) == 12 + 2  # json_schema, json_object, then none for good


@pytest.mark.parametrize(("after", "number"), [(False, signal.SIGKILL), (True, signal.SIGKILL), (True, signal.SIGINT)])
def test_killed_and_resumed_asks_only_for_what_is_missing(after: bool, number: int, tmp_path: Path) -> None:
    with chat_server() as server:
        options = asking(server, "identity.workers=1")
        frozen = freeze(job(tmp_path, *options), tmp_path / "job.yaml")
        hit = Hit("nanochat.synthesis.workfile:WorkFile.append", 5, number, after=after)
        code, output = run(["--frozen", str(frozen)], [hit], tmp_path / "log")
        assert code == (-9 if number == signal.SIGKILL else 130), output
        before = len(server.asked)
        kept = 5 if after else 4
        assert before == 5 + (number == signal.SIGINT and before == 6)
        if number == signal.SIGINT:
            kept = before
            assert f"{kept} of 12 conversations are kept" in output
        assert not (tmp_path / "identity_conversations.jsonl").exists()
        assert len(make(tmp_path, *options)) == 12
        assert len(server.asked) == before + 12 - kept
        wishes = Counter(asked.wish for asked in server.asked)
        assert sum(wishes.values()) - len(wishes) == before - kept  # only the one that was lost is asked for twice


def test_a_line_cut_off_by_a_kill_is_made_again(tmp_path: Path) -> None:
    made = make(tmp_path)
    work = tmp_path / "identity" / "nanochat" / "conversations.jsonl"
    whole = work.read_bytes()
    work.write_bytes(whole[:-20])
    assert make(tmp_path) == made
    assert work.read_bytes() == whole
    work.write_bytes(whole.replace(b"{", b"", 1))
    with pytest.raises(CorruptError, match="conversations.jsonl:1 is not a line"):
        make(tmp_path)


def test_without_a_key_templates_write_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path, "identity.count=30")
    assert len(made) == 30
    assert "written from templates" in capsys.readouterr().out
    assert make(tmp_path / "other", "identity.count=30") == made
    assert make(tmp_path, "identity.count=40")[:30] == made
    with pytest.raises(MissingError, match=r"identity.mode=endpoint, but .* OPENAI_API_KEY .* is not set"):
        make(tmp_path / "third", "identity.mode=endpoint")


def test_templates_do_not_fill_up_what_an_endpoint_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "identity.count=3")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(MismatchError, match="made by identity.mode=templates, and now it would be endpoint"):
        make(tmp_path)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_file_of_somebody_else_is_not_overwritten(by_hand: bool, tmp_path: Path) -> None:
    out = tmp_path / "identity_conversations.jsonl"
    if by_hand:
        tmp_path.mkdir(exist_ok=True)
        out.write_text(conversation("mine") + "\n")
    else:
        make(tmp_path, "persona=mira")
    before = out.read_bytes()
    words = "may be your own" if by_hand else "made by the run identity/Mira, of the persona Mira"
    with pytest.raises(MismatchError, match=rf"{words}.*identity.out=.*identity.append=true.*overwrite=true"):
        make(tmp_path)
    assert out.read_bytes() == before
    assert len(make(tmp_path, f"identity.out={tmp_path / 'mine.jsonl'}")) == 12
    appended = make(tmp_path, "identity.append=true")
    assert out.read_bytes().startswith(before) and len(appended) == before.count(b"\n") + 12
    assert make(tmp_path, "identity.append=true") == appended  # once only
    with out.open("a") as file:
        file.write(conversation("added later") + "\n")
    assert make(tmp_path, "identity.append=true") == [*appended, json.loads(conversation("added later"))]
    assert len(make(tmp_path, "overwrite=true")) == 12


def test_another_persona_under_the_same_run_is_refused_by_key(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(MismatchError, match=r"another persona\.facts"):
        make(tmp_path, "persona.facts=[I am new.]")
    with pytest.raises(MismatchError, match="resume=never"):
        make(tmp_path, "resume=never")
    with pytest.raises(MissingError, match="resume=must"):
        make(tmp_path, "resume=must", "run=other")


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with chat_server() as server:
        each = job(tmp_path, *asking(server, "dry_run=true"))
        dispatch(each.config, each.overrides)
        assert server.asked == []
    assert list(tmp_path.iterdir()) == []
    assert "The assistant's name is nanochat" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("identity.styles=[]", r"identity.styles=\[\] is empty"),
        ("persona.name=''", "persona.name= is empty"),
        ("identity.price_in=1", "identity.price_out is not set"),
        ("identity.endpoint=localhost:1", "identity.endpoint=localhost:1 is no URL"),
        ("persona.language=Klingon", "no template is in this language"),
    ],
)
def test_what_cannot_be_is_an_error(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, override)


def test_nobody_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(NanochatError, match="failed 2 times in a row: ConnectError"):
        make(tmp_path, "identity.mode=endpoint", "identity.endpoint=http://127.0.0.1:9/v1", "identity.api_key_env=null", "identity.retries=1")  # fmt: skip  # noqa: E501
