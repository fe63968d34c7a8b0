import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

from nanochat.checkpoint.load import load_dims, load_model, load_model_yaml, load_optimizer, load_state
from nanochat.config.model import BEFORE
from nanochat.errors import CorruptError, MismatchError, MissingError

Save = Callable[[Path, int], Path]
LOADERS = {
    "model.safetensors": load_model,
    "model.yaml": load_model_yaml,
    "state.json": load_state,
    "optim_rank_00000_of_00001.safetensors": load_optimizer,
}


class Malicious:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", LOADERS)
def test_one_changed_byte_is_found_and_the_file_named(tmp_path: Path, save: Save, name: str) -> None:
    ckpt = save(tmp_path, 1)
    LOADERS[name](ckpt)
    content = bytearray((ckpt / name).read_bytes())
    content[-2] ^= 1
    (ckpt / name).write_bytes(content)
    with pytest.raises(CorruptError, match=f"{name}.*sha256"):
        LOADERS[name](ckpt)


@pytest.mark.parametrize("name", LOADERS)
def test_a_truncated_or_missing_file_is_found_by_every_loader(tmp_path: Path, save: Save, name: str) -> None:
    ckpt = save(tmp_path, 1)
    content = (ckpt / name).read_bytes()
    (ckpt / name).write_bytes(content[:-1])
    for loader in LOADERS.values():
        with pytest.raises(CorruptError, match=f"{name} has {len(content) - 1} bytes.*{len(content)}"):
            loader(ckpt)
    (ckpt / name).unlink()
    with pytest.raises(CorruptError, match=f"{name} is missing"):
        load_model(ckpt)


def test_an_unfinished_or_absent_checkpoint_is_no_checkpoint(tmp_path: Path, save: Save) -> None:
    ckpt = save(tmp_path, 1)
    (ckpt / "manifest.json").unlink()
    with pytest.raises(MissingError, match="manifest"):
        load_model(ckpt)
    with pytest.raises(MissingError, match="runs ls"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", ".metadata", "__0_0.distcp"])
def test_pickle_is_refused_and_never_run(tmp_path: Path, name: str) -> None:
    folder, planted = tmp_path / "step_000001", tmp_path / "planted"
    folder.mkdir()
    (folder / name).write_bytes(pickle.dumps(Malicious(planted)))
    for given in (folder, folder / name):
        with pytest.raises(CorruptError, match=f"{name.lstrip('_')}.*pickle.*safetensors"):
            load_model(given)
    assert not planted.exists()
    pickle.loads((folder / name).read_bytes()).close()
    assert planted.exists(), "the bait does not work, so the test proves nothing"


@pytest.mark.parametrize("name", LOADERS)
def test_a_pickle_under_another_name_with_a_forged_manifest_is_refused(tmp_path: Path, save: Save, name: str) -> None:
    ckpt, planted = save(tmp_path, 1), tmp_path / "planted"
    content = pickle.dumps(Malicious(planted))
    (ckpt / name).write_bytes(content)
    manifest = json.loads((ckpt / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (ckpt / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CorruptError, match=name):
        LOADERS[name](ckpt)
    assert not planted.exists()


def test_a_file_that_the_manifest_does_not_name_is_never_opened(tmp_path: Path, save: Save) -> None:
    ckpt = save(tmp_path, 1)
    (ckpt / "extra.pt").write_bytes(pickle.dumps(Malicious(tmp_path / "planted")))
    assert load_model(ckpt)["wte.weight"].shape == (8, 4)
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"files": {"a": 1}}', '{"step": 1}', '{"files": []}'])
def test_a_broken_manifest_is_named(tmp_path: Path, save: Save, text: str) -> None:
    ckpt = save(tmp_path, 1)
    (ckpt / "manifest.json").write_text(text)
    with pytest.raises(CorruptError, match=r"manifest\.json is not a checkpoint manifest"):
        load_model(ckpt)


def test_yaml_cannot_make_objects(tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    ckpt, planted = save(tmp_path, 1), tmp_path / "planted"
    (ckpt / "model.yaml").write_text(f"!!python/object/apply:builtins.open ['{planted}', 'w']")
    monkeypatch.setattr("nanochat.checkpoint.load.damage", lambda *_: None)
    monkeypatch.setattr("nanochat.checkpoint.load.check_hash", lambda *_: None)
    with pytest.raises(CorruptError, match=r"model\.yaml"):
        load_dims(ckpt)
    assert not planted.exists()


def test_dimensions_of_another_version_are_refused_by_key(
    tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = save(tmp_path, 1)
    saved = yaml.safe_load((ckpt / "model.yaml").read_text())
    del saved["rope_base"]
    (ckpt / "model.yaml").write_text(yaml.safe_dump({**saved, "window": "SSSL"}))
    monkeypatch.setattr("nanochat.checkpoint.load.damage", lambda *_: None)
    monkeypatch.setattr("nanochat.checkpoint.load.check_hash", lambda *_: None)
    with pytest.raises(MismatchError, match=r"lacks rope_base and has unknown window"):
        load_dims(ckpt)


LATER = [*BEFORE, "bos_id"]


@pytest.mark.parametrize(
    ("lost", "missed"),
    [
        ([], None),
        (["document_mask", "bos_id"], None),
        (LATER, None),
        (["window_pattern"], "window_pattern"),
        (["init", "smear"], "init, smear"),
        (["window_pattern", "document_mask", "bos_id"], "window_pattern"),
        ([key for key in LATER if key != "document_mask"], "backout, init"),
    ],
)
def test_dimensions_from_before_later_keys(
    tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch, lost: list[str], missed: str | None
) -> None:
    """A file without all of the keys that came together is an old one; a file that lost some of them is refused."""
    ckpt = save(tmp_path, 1)
    saved = yaml.safe_load((ckpt / "model.yaml").read_text())
    kept = {key: value for key, value in saved.items() if key not in lost}
    rewrite(ckpt, kept, monkeypatch)
    if missed is None:
        assert asdict(load_dims(ckpt)) == saved
    else:
        with pytest.raises(MismatchError, match=f"lacks {missed}.*: it was written by another version"):
            load_dims(ckpt)


@pytest.mark.parametrize("lost", ["document_mask", "bos_id"])
def test_a_document_mask_needs_the_token_that_starts_one(
    tmp_path: Path, save: Save, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    ckpt = save(tmp_path, 1)
    saved = yaml.safe_load((ckpt / "model.yaml").read_text()) | {"document_mask": True, "bos_id": 3}
    rewrite(ckpt, saved, monkeypatch)
    assert (load_dims(ckpt).document_mask, load_dims(ckpt).bos_id) == (True, 3)
    rewrite(ckpt, {key: value for key, value in saved.items() if key != lost}, monkeypatch)
    with pytest.raises(MismatchError, match=f"lacks {lost}: it was written by another version"):
        load_dims(ckpt)


def rewrite(ckpt: Path, dims: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts another model.yaml in a checkpoint."""
    (ckpt / "model.yaml").write_text(yaml.safe_dump(dims))
    monkeypatch.setattr("nanochat.checkpoint.load.damage", lambda *_: None)
    monkeypatch.setattr("nanochat.checkpoint.load.check_hash", lambda *_: None)


def test_optimizer_state_of_another_number_of_ranks_is_refused(tmp_path: Path, save: Save) -> None:
    with pytest.raises(MismatchError, match=r"saved by 1 ranks.*by 2"):
        load_optimizer(save(tmp_path, 1), rank=0, world=2)


def test_weights_arrive_on_the_device_asked_for(tmp_path: Path, save: Save) -> None:
    assert load_model(save(tmp_path, 1), device="cpu")["wte.weight"].device == torch.device("cpu")
