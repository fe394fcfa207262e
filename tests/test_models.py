import shutil

import pytest

from workbench.files import write_json
from workbench.models import (
    BUNDLED_MODEL,
    BUNDLED_SHA256,
    REFERENCE_MODEL,
    HubUnreachableError,
    ModelError,
    find_model,
    load_tokenizer,
    read_lineage,
)


def test_the_bundled_model_is_checked_by_its_hash(monkeypatch):
    found = find_model(BUNDLED_MODEL)
    assert found.kind == "bundled"
    assert found.sha256 == BUNDLED_SHA256
    monkeypatch.setattr("workbench.models.BUNDLED_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="expected 0000"):
        find_model(BUNDLED_MODEL)


def test_the_bundled_vocabulary_is_that_of_the_reference_base():
    assert load_tokenizer(find_model(BUNDLED_MODEL)).get_vocab_size() == 30_522


def test_without_the_hub_nothing_stands_in_unless_asked():
    with pytest.raises(HubUnreachableError, match="cannot be reached"):
        find_model(REFERENCE_MODEL)


def test_a_stand_in_says_so():
    found = find_model(REFERENCE_MODEL, fallback=BUNDLED_MODEL)
    assert (found.name, found.asked) == (BUNDLED_MODEL, REFERENCE_MODEL)
    assert f"STANDING IN for {REFERENCE_MODEL}" in str(found)
    assert "STANDING IN" not in str(find_model(BUNDLED_MODEL))


def test_a_folder_and_a_run_are_found(tiny_model, tmp_path):
    assert find_model(str(tiny_model)).kind == "folder"
    run = tmp_path / "run"
    run.mkdir()
    (run / "status.json").write_text("{}")
    with pytest.raises(ModelError, match="no model yet"):
        find_model(str(run))
    shutil.copytree(tiny_model, run / "model")
    write_json(run / "model/lineage.json", {"stages": [{"stage": "one"}]})
    found = find_model(str(run))
    assert (found.kind, found.path) == ("run", run / "model")
    assert read_lineage(found) == [{"stage": "one"}]
    assert read_lineage(find_model(str(tiny_model))) == []


def test_pickled_weights_are_refused(tiny_model, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights \(pytorch_model.bin\)"):
        find_model(str(folder))
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        find_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        find_model(str(folder))


@pytest.mark.parametrize("name", ["bundled:other", "no/such/folder", "just-a-word", "../up"])
def test_names_that_mean_nothing_are_refused(name):
    with pytest.raises(ModelError, match=name.replace("/", r"\/")):
        find_model(name)


def test_a_model_without_a_fast_tokenizer_is_refused(tiny_model, tmp_path):
    folder = tmp_path / "slow"
    shutil.copytree(tiny_model, folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing"):
        load_tokenizer(find_model(str(folder)))


def test_a_cached_hub_model_is_loaded_with_its_commit(tiny_model, tmp_path, monkeypatch):
    commit = "c5ee24cb16019beea0893ab7796b1df96625c6b8"
    store = tmp_path / f"models--{REFERENCE_MODEL.replace('/', '--')}"
    shutil.copytree(tiny_model, store / "snapshots" / commit)
    (store / "refs").mkdir()
    (store / "refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    import huggingface_hub._snapshot_download as download

    monkeypatch.setattr(download.constants, "HF_HUB_CACHE", str(tmp_path))
    found = find_model(REFERENCE_MODEL)
    assert (found.kind, found.revision) == ("hub", commit)
    assert "from the Hub" in str(found)
