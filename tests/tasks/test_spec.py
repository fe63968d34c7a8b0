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
        "weight": 0.5,
    }
    spec = parse_spec("data.tasks.mine", value)
    assert {name: getattr(spec, name) for name in value} == value
    assert spec.key == "data.tasks.mine"


def test_a_class_of_your_own():
    spec = parse_spec(
        "data.tasks.mine", {"_target_": "my.Task", "args": {"n": 5}, "stop": 3, "task": None, "path": None}
    )
    assert (spec.target, spec.args, spec.stop, spec.task) == ("my.Task", {"n": 5}, 3, "")
    assert parse_spec("data.tasks.mine", {"_target_": "my.Task", "args": None}).args == {}


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
        ({"task": "arithmetic", "weight": 0}, r"weight=0 must be a number above 0 or null"),
        ({"task": "arithmetic", "weight": True}, r"weight=True must be a number above 0 or null"),
        ({"task": "arithmetic", "weight": "2"}, r"weight='2' must be a number"),
        ({"task": "arithmetic", "args": {"n": 1}}, r"args=.* belongs to a class of your own, named by .*_target_"),
        ({"task": "arithmetic", "_target_": "my.Task"}, r"task=arithmetic cannot stand beside .*_target_=my.Task"),
        ({"_target_": "my.Task", "split": "train"}, r"split=train cannot stand beside .*goes into data.tasks.t.args"),
        ({"_target_": "my.Task", "args": [1]}, r"args=\[1\] must be a dict of arguments by name or null"),
        ({"_target_": "my.Task", "stop": 0}, r"stop=0 must be at least 1"),
        ({"_target": "my.Task"}, r"_target is not a field of a task; did you mean _target_"),
        ({"_target_": 3}, r"_target_=3 must be a string or null"),
    ],
)
def test_errors_name_the_key_and_the_fix(value, words):
    with pytest.raises(ConfigError, match=words):
        parse_spec("data.tasks.t", value)
