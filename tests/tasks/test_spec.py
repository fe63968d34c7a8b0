import pytest

from nanochat.errors import ConfigError
from nanochat.tasks.spec import TaskSpec, parse_spec


def test_defaults():
    assert parse_spec("data.tasks.bee", {"task": "spelling_bee"}) == TaskSpec(task="spelling_bee")


def test_all_fields():
    value = {
        "task": "custom_json",
        "split": "test",
        "subset": "main",
        "repeat": 3,
        "start": 2,
        "stop": 10,
        "step": 4,
        "path": "a.jsonl",
    }
    spec = parse_spec("data.tasks.mine", value)
    assert {name: getattr(spec, name) for name in value} == value
    assert spec.key == "data.tasks.mine"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("spelling_bee", r"data.tasks.t='spelling_bee'.*dict"),
        ({}, r"data.tasks.t.task is not set"),
        ({"task": None}, r"data.tasks.t.task is not set"),
        ({"task": "arithmetic", "repeats": 2}, r"data.tasks.t.repeats .*did you mean repeat"),
        ({"task": "arithmetic", "key": "x"}, r"data.tasks.t.key"),
        ({"task": "arithmetic", "repeat": 0}, r"data.tasks.t.repeat=0 must be at least 1"),
        ({"task": "arithmetic", "repeat": None}, r"data.tasks.t.repeat=None must be a whole number\."),
        ({"task": "arithmetic", "repeat": True}, r"repeat=True must be a whole number"),
        ({"task": "arithmetic", "stop": "10"}, r"stop='10' must be a whole number or null"),
        ({"task": "arithmetic", "stop": 1.5}, r"stop=1.5"),
        ({"task": "arithmetic", "start": -1}, r"start=-1 must be at least 0"),
        ({"task": "arithmetic", "start": 5, "stop": 5}, r"stop=5 must be above data.tasks.t.start=5"),
        ({"task": 3}, r"data.tasks.t.task=3 must be a string"),
        ({"task": "custom_json", "path": 3}, r"path=3 must be a string or null"),
    ],
)
def test_errors_name_the_key_and_the_fix(value, words):
    with pytest.raises(ConfigError, match=words):
        parse_spec("data.tasks.t", value)
