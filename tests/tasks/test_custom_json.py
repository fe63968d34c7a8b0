import json
from dataclasses import replace

import pytest

from nanochat.errors import ConfigError, MissingError
from nanochat.tasks.custom_json import CustomJSON, Identity, packaged_identity, parse_jsonl, problem_of_line
from nanochat.tasks.registry import build_task
from nanochat.tasks.spec import TaskContext, TaskSpec

USER = {"role": "user", "content": "Hi"}
ASSISTANT = {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be kind."}


def line(*messages):
    return json.dumps({"messages": list(messages)})


def test_reads_conversations_and_passes_over_blank_lines():
    data = "\n".join([line(USER, ASSISTANT), "", line(SYSTEM, USER, ASSISTANT, USER, ASSISTANT), "  "]).encode()
    task = CustomJSON(data, "my.jsonl")
    assert len(task) == 2
    assert task[0] == {"messages": [USER, ASSISTANT]}
    assert len(task[1]["messages"]) == 5
    assert task.evaluate(task[0], " Hello!\n")
    assert not task.evaluate(task[0], "Bye")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{not json", "not JSON"),
        ("[1]", "no list `messages`"),
        ('{"messages": "hi"}', "no list `messages`"),
        (line(), "at least a user and an assistant"),
        (line(USER), "at least a user and an assistant"),
        (line(SYSTEM, USER), "at least a user and an assistant"),
        (line(ASSISTANT, USER), "message 1 has role 'assistant', expected 'user'"),
        (line(USER, USER), "message 2 has role 'user', expected 'assistant'"),
        (line(USER, ASSISTANT, SYSTEM), "message 3 has role 'system', expected 'user'"),
        (line(USER, {"role": "assistant", "content": " "}), r"message 2 \(assistant\) has no text"),
        (line(USER, {"role": "assistant", "content": ["x"]}), r"message 2 \(assistant\) has no text"),
        (line(USER, {"role": "assistant"}), r"message 2 \(assistant\) has no text"),
        (line(USER, "hello"), "message 2 is not an object"),
        (line({"content": "Hi"}, ASSISTANT), "message 1 has role None"),
        ("[" * 100_000, "nested|not JSON"),
    ],
)
def test_malformed_lines_are_named(bad, words):
    data = "\n".join([line(USER, ASSISTANT), "", bad, line(USER, ASSISTANT), bad]).encode()
    with pytest.raises(ConfigError, match=rf"my.jsonl:3: .*({words}).* 2 lines are wrong of 4"):
        parse_jsonl(data, "my.jsonl")


def test_an_answer_may_be_parts_with_tool_calls():
    parts = [{"type": "python", "text": "1+1"}, {"type": "python_output", "text": "2"}, {"type": "text", "text": "2"}]
    task = CustomJSON(line(USER, {"role": "assistant", "content": parts}).encode(), "my.jsonl")
    assert task[0]["messages"][1]["content"] == parts
    for wrong in ([], [{"type": "text", "text": " "}], [{"type": "image", "text": "x"}], [{"type": "text", "text": 3}]):
        with pytest.raises(ConfigError, match=r"message 2 \(assistant\) has no text"):
            CustomJSON(line(USER, {"role": "assistant", "content": wrong}).encode(), "my.jsonl")
    with pytest.raises(ConfigError, match=r"message 1 \(user\) has no text"):
        CustomJSON(line({"role": "user", "content": parts}, ASSISTANT).encode(), "my.jsonl")
    # what a language model is asked to write are plain texts
    assert problem_of_line(line(USER, {"role": "assistant", "content": parts}).encode()) is not None


def test_one_bad_line_and_bad_utf8():
    with pytest.raises(ConfigError, match=r"my.jsonl:1: not UTF-8.* 1 line is wrong of 1"):
        parse_jsonl(b'{"messages": "\xff\xfe"}', "my.jsonl")
    assert problem_of_line(b"\xef\xbb\xbf" + line(USER, ASSISTANT).encode()) is None  # a byte order mark is harmless


def test_empty_file():
    with pytest.raises(ConfigError, match=r"my.jsonl: the file is empty"):
        parse_jsonl(b"\n\n", "my.jsonl")


def test_from_spec(tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_text(line(USER, ASSISTANT))
    context = TaskContext(base_dir=tmp_path)
    assert len(build_task(TaskSpec(task="custom_json", path=str(path)), context)) == 1
    with pytest.raises(ConfigError, match=r"data.tasks.mine.path is not set"):
        build_task(TaskSpec(task="custom_json", key="data.tasks.mine"), context)
    with pytest.raises(MissingError, match=r"data.tasks.path=.*none.jsonl: no such file"):
        build_task(TaskSpec(task="custom_json", path=str(tmp_path / "none.jsonl")), context)
    with pytest.raises(MissingError, match=r"path=.* is a folder; give one JSONL file"):
        build_task(TaskSpec(task="custom_json", path=str(tmp_path)), context)


def test_identity_looks_in_four_places(tmp_path):
    spec = TaskSpec(task="identity")
    packaged = Identity.from_spec(spec, TaskContext(base_dir=tmp_path))
    assert "packaged" in packaged.notes[0]
    assert len(packaged) == len(packaged_identity().splitlines())
    found = tmp_path / "identity_conversations.jsonl"
    found.write_text(line(USER, ASSISTANT))
    task = Identity.from_spec(spec, TaskContext(base_dir=tmp_path))
    assert str(found) in task.notes[0]
    assert len(task) == 1
    own = tmp_path / "own.jsonl"
    own.write_text("\n".join([line(USER, ASSISTANT)] * 3))
    assert len(Identity.from_spec(spec, TaskContext(base_dir=tmp_path, identity=str(own)))) == 3
    several = TaskSpec(task="identity", path=str(found), key="data.tasks.more")
    assert (
        len(build_task(several, TaskContext(base_dir=tmp_path, identity=str(own)))) == 1
    )  # the entry's own file first
    with pytest.raises(MissingError, match=r"data.tasks.more.path=none.jsonl: no such file"):
        build_task(replace(several, path="none.jsonl"), TaskContext(base_dir=tmp_path))
    with pytest.raises(MissingError, match=r"data.identity=.*none"):
        Identity.from_spec(spec, TaskContext(base_dir=tmp_path, identity="none.jsonl"))


def test_fingerprint_follows_the_contents():
    one = CustomJSON(line(USER, ASSISTANT).encode(), "a")
    assert one.fingerprint() == CustomJSON(line(USER, ASSISTANT).encode(), "b").fingerprint()
    assert one.fingerprint() != CustomJSON(line(USER, SYSTEM | ASSISTANT, USER).encode(), "a").fingerprint()
