import pytest

from nanochat.errors import ConfigError
from nanochat.tasks.hub import HubTask
from nanochat.tasks.registry import TASKS, build_task
from nanochat.tasks.spec import TaskSpec

ON_THE_HUB = {name for name, kind in TASKS.items() if issubclass(kind, HubTask)}


@pytest.mark.parametrize("name", sorted(set(TASKS) - ON_THE_HUB - {"custom_json"}))
def test_every_task_builds_and_judges_its_own_answers(name, context):
    task = build_task(TaskSpec(task=name, stop=5), context)
    assert len(task) == 5
    for index in range(5):
        answer = task[index]["messages"][-1]["content"]
        said = answer if isinstance(answer, str) else "".join(part["text"] for part in answer)
        assert task.evaluate(task[index], said)
        assert not task.evaluate(task[index], "")


def test_stop_makes_generated_tasks_longer(context):
    assert len(build_task(TaskSpec(task="spelling_bee", stop=20_000), context)) == 20_000
    assert len(build_task(TaskSpec(task="spelling_bee"), context)) == 10_000
    assert len(build_task(TaskSpec(task="spelling_bee", split="test"), context)) == 256


@pytest.mark.parametrize("name", ["spelling_bee", "simple_spelling"])
def test_short_words_have_at_most_six_letters_of_the_same_split(name, context):
    def words(subset):
        task = build_task(TaskSpec(task=name, split="test", subset=subset), context)
        return set(task.words)

    short, whole = words("short"), words(None)
    assert short == {word for word in whole if len(word) <= 6}
    assert set() < short < whole


def test_start_stop_step_choose_rows(context):
    whole = build_task(TaskSpec(task="arithmetic", stop=20), context)
    cut = build_task(TaskSpec(task="arithmetic", start=3, stop=20, step=4), context)
    assert [cut[i] for i in range(len(cut))] == [whole[row] for row in (3, 7, 11, 15, 19)]
    assert cut.fingerprint() != whole.fingerprint()
    assert build_task(TaskSpec(task="identity", stop=2), context).kind == "none"
    assert cut.kind == whole.kind == "generative"
    with pytest.raises(IndexError):
        cut[5]


def test_stop_beyond_the_end_of_a_file_is_its_end(context):
    whole = build_task(TaskSpec(task="identity"), context)
    assert len(build_task(TaskSpec(task="identity", stop=len(whole) + 10), context)) == len(whole)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TaskSpec(task="speling_bee", key="data.tasks.t"), r"data.tasks.t.task=speling_bee.*did you mean spelling_bee"),
        (TaskSpec(task="arithmetic", split="validation"), r"split=validation: arithmetic has train, test"),
        (TaskSpec(task="identity", split="test"), r"split=test: identity has train"),
        (TaskSpec(task="arithmetic", path="x"), r"path=x: arithmetic does not use"),
        (TaskSpec(task="arithmetic", subset="short"), r"subset=short: arithmetic does not use"),
        (TaskSpec(task="spelling_bee", subset="shrt", key="eval.tasks.t"), r"eval.tasks.t.subset=shrt.*mean short"),
        (TaskSpec(task="identity", start=10**6), r"start=1000000 leaves no row: identity train has \d+"),
    ],
)
def test_errors(spec, words, context):
    with pytest.raises(ConfigError, match=words):
        build_task(spec, context)
