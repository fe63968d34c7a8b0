"""A config on disk is the config."""

from pathlib import Path

import pytest

from nanochat.config.frozen import read_config, read_yaml, write_config
from nanochat.config.load import compose_run
from nanochat.errors import ConfigError, CorruptError, MissingError


@pytest.mark.parametrize("stage", ["base", "mid", "sft", "eval"])
def test_what_is_written_is_read(stage: str, tmp_path: Path) -> None:
    config = compose_run([f"stage={stage}", "run='a=b'", "tags=['ä','#x']", "optim.eps=1e-12"]).config
    write_config(config, tmp_path / "deep" / "config.yaml")
    assert read_config(tmp_path / "deep" / "config.yaml") == config


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    with pytest.raises(MissingError, match=str(path)):
        read_config(path)
    path.write_text("a: [\n")
    with pytest.raises(CorruptError, match=r"config.yaml is not YAML.*line 2"):
        read_yaml(path)
    path.write_text("- 1\n")
    with pytest.raises(CorruptError, match="no mapping"):
        read_yaml(path)
    path.write_text("!!python/object/apply:os.system ['touch /tmp/never']\n")
    with pytest.raises(CorruptError):
        read_yaml(path)


def test_a_key_from_another_version_is_named(tmp_path: Path) -> None:
    write_config(compose_run([]).config, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("matrix_lr", "matrix_rate"))
    with pytest.raises(ConfigError, match=r"optim.matrix_rate is not a key; did you mean optim.matrix_lr"):
        read_config(tmp_path / "config.yaml")
