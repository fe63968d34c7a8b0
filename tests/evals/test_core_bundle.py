import json
import zipfile
from pathlib import Path

import pytest
from core_files import CORE_YAML, META, ROWS, files, write_folder, write_zip

from nanochat.errors import CorruptError, MissingError
from nanochat.evals.core_bundle import Bundle, CoreTask, Kind

GOOD = json.dumps(ROWS["say/sounds.jsonl"][0])


def test_a_folder_and_its_zip_are_the_same(tmp_path: Path) -> None:
    folder, packed = Bundle(write_folder(tmp_path / "b")), Bundle(write_zip(tmp_path / "b.zip"))
    assert folder.tasks == packed.tasks and folder.fingerprint == packed.fingerprint
    assert [folder.rows(task) for task in folder.tasks] == [packed.rows(task) for task in packed.tasks]
    assert {path.name for path in tmp_path.iterdir()} == {"b", "b.zip"}  # nothing was unpacked
    packed.check()


def test_what_is_read(tmp_path: Path) -> None:
    sounds, refer, last = Bundle(write_folder(tmp_path)).tasks
    assert sounds == CoreTask("sounds", "say/sounds.jsonl", Kind.multiple_choice, 4, "\nAnswer: ", 33.3 / 100)
    assert (refer.shots, refer.delimiter, refer.baseline, refer.kind) == (0, " ", 0.5, Kind.schema)
    assert (last.shots, last.kind) == (2, Kind.language_modeling)


def test_a_change_of_a_file_changes_the_fingerprint(tmp_path: Path) -> None:
    former = Bundle(write_folder(tmp_path)).fingerprint
    (tmp_path / "eval_data" / "refer.jsonl").write_text(json.dumps(ROWS["refer.jsonl"][0]) + "\n")
    assert Bundle(tmp_path).fingerprint != former


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sounds": f"{GOOD}\n\nnonsense\n"}, "sounds.jsonl:3 (sounds) is not a JSON object: 'nonsense'"),
        ({"sounds": "[1]\n"}, "sounds.jsonl:1 (sounds) is not a JSON object"),
        ({"sounds": '{"query": "a", "choices": ["b"], "gold": 1}\n'}, "sounds.jsonl:1 (sounds) has gold=1"),
        ({"sounds": '{"query": "a", "choices": ["b", "c"], "gold": true}\n'}, "has gold=True, which must be 0 to 1"),
        ({"sounds": '{"query": "a", "choices": ["b", 3], "gold": 0}\n'}, "has no list of texts `choices`"),
        ({"sounds": '{"choices": ["b", "c"], "gold": 0}\n'}, "has no text `query`"),
        ({"refer": '{"context_options": [], "continuation": "a", "gold": 0}\n'}, "has no list of texts `context_opti"),
        ({"last": '{"context": "a"}\n'}, "last.jsonl:1 (last) has no text `continuation`"),
        ({"last": "\n \n"}, "(last) has no problems in it"),
    ],
)
def test_faults_of_problems(tmp_path: Path, change: dict[str, str], said: str) -> None:
    for bundle in (Bundle(write_folder(tmp_path, files(**change))), Bundle(write_zip(tmp_path / "z", files(**change)))):
        with pytest.raises(CorruptError) as error:
            bundle.check()
        assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("say/last.jsonl", "../../secret.jsonl", "core.yaml:11 (last) dataset_uri=../../secret.jsonl must be the path"),
        ("say/last.jsonl", "/etc/passwd", "dataset_uri=/etc/passwd must be the path of a file below eval_data/"),
        ("say/last.jsonl", "..\\\\x", "must be the path of a file below"),
        ("language_modeling", "language_modelling", "icl_task_type=language_modelling is not known; did you mean lang"),
        ("label: last", "label: least", "core.yaml:11 least has no row in"),
        ("label: last", "label: refer", "core.yaml:11 label refer occurs twice"),
        ("- label: last", "- name: last", "core.yaml:11 has no label"),
        ("[2, 5]", "[]", "num_fewshot=[] must be a whole number"),
        ("[2, 5]", "-1", "num_fewshot=-1 must be a whole number"),
        ("icl_tasks:", "tasks:", "core.yaml has no list icl_tasks"),
        ("icl_tasks:", "icl_tasks: [", "core.yaml is not YAML"),
    ],
)
def test_faults_of_core_yaml(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in CORE_YAML
    with pytest.raises(CorruptError) as error:
        Bundle(write_folder(tmp_path, files(core_yaml=CORE_YAML.replace(old, new))))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",50,", ",100,", "eval_meta_data.csv:4 (refer) Random baseline=100 must be a percentage"),
        (",50,", ",half,", "Random baseline=half"),
        ("Random baseline", "Baseline", 'eval_meta_data.csv:1 has no columns "Eval Task" and "Random baseline"'),
    ],
)
def test_faults_of_the_table(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(CorruptError) as error:
        Bundle(write_folder(tmp_path, files(meta=META.replace(old, new))))
    assert said in str(error.value)


@pytest.mark.parametrize("lacking", ["core_yaml", "meta", "last"])
def test_missing_files(tmp_path: Path, lacking: str) -> None:
    content = files(**{lacking: None})
    with pytest.raises(MissingError, match="has no"):
        Bundle(write_folder(tmp_path / "b", content)).check()
    with pytest.raises(MissingError, match="has no"):
        Bundle(write_zip(tmp_path / "b.zip", content)).check()


def test_a_zip_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(b"PK but not really")
    with pytest.raises(CorruptError, match="no zip that can be read"):
        Bundle(path)


def test_a_zip_with_a_damaged_file(tmp_path: Path) -> None:
    """Its directory is whole; the CRC of one file is not."""
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files().items():
            archive.writestr(name, text)
    path.write_bytes(path.read_bytes().replace(b"ran away", b"ran again", 1))
    with pytest.raises(CorruptError, match="cannot be read"):
        Bundle(path).check()


def test_a_zip_without_a_folder_around(tmp_path: Path) -> None:
    assert len(Bundle(write_zip(tmp_path / "b.zip", top="")).tasks) == 3
