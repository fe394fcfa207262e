"""Where models are found, and which are refused."""

import os
import pickle
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.numpy import load_file, save_file

from tests.benchmarks.tiny import KINDS, pickled, write_tiny_kind
from tests.conftest import rewritten
from workbench.files import read_json, write_json
from workbench.models import (
    BUNDLED_MODEL,
    BUNDLED_SHA256,
    PICKLED,
    REFERENCE_MODEL,
    HubUnreachableError,
    ModelError,
    find_model,
    is_hub_name,
    load_tokenizer,
    must_be_fetched,
    position_limit,
    read_lineage,
)
from workbench.scoring.cross_encoder import load_cross_encoder

TYPES = "bert.embeddings.token_type_embeddings.weight"


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
    assert f"the FALLBACK for {REFERENCE_MODEL}" in str(found)
    assert "FALLBACK" not in str(find_model(BUNDLED_MODEL))


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


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


HOSTILE = {
    "code": (Bomb, "names posix.mkdir, which would be imported and run as code"),
    "code among weights": (lambda mark: {"a": torch.ones(2), "b": Bomb(mark)}, "posix.mkdir"),
    "a list": (lambda _: [torch.ones(2)], "something else than weights by name"),
    "numbers": (lambda _: {"a": 1}, "something else than weights by name"),
    "numbers for names": (lambda _: {1: torch.ones(2)}, "something else than weights by name"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(("make", "reason"), HOSTILE.values(), ids=HOSTILE)
def test_a_pickle_of_more_than_weights_runs_nothing(make, reason, zipped, tiny_model, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "unpickled"
    pickled(tiny_model, folder, make(mark), zipped)
    with pytest.raises(ModelError, match=reason):
        find_model(str(folder))
    assert not mark.exists()


def test_a_damaged_pickle_is_refused(tiny_model, tmp_path):
    folder, mark = tmp_path / "model", tmp_path / "unpickled"
    file = pickled(tiny_model, folder) / PICKLED
    whole = file.read_bytes()
    contents = [b"", whole[: len(whole) // 2], whole[len(whole) // 2 :], pickle.dumps(Bomb(mark))]
    contents.append((tiny_model / "model.safetensors").read_bytes())
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"pytorch_model\.bin .*, so it is not read"):
            find_model(str(folder))
    assert not mark.exists()
    file.rename(folder / "other.bin")
    with pytest.raises(ModelError, match=r"no weights \(of pickled ones, such as other\.bin"):
        find_model(str(folder))


def test_only_a_model_without_safetensors_is_read_from_a_pickle(tiny_model, tmp_path, monkeypatch):
    """And of a model on the Hub only then a pickle is fetched."""
    asked, plain = [], pickled(tiny_model, tmp_path / "pickled")

    def fetch(name, allow_patterns, **_):
        asked.append(PICKLED in allow_patterns)
        return str(plain if asked[-1] or name == "a/pickle" else tiny_model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert find_model("a/b").use_safetensors
    (plain / PICKLED).rename(tmp_path / "weights")
    with pytest.raises(ModelError, match="no weights"):
        find_model("a/pickle")
    assert asked == [False, False, True]
    both = tmp_path / "both"
    shutil.copytree(tiny_model, both)
    (both / PICKLED).write_bytes(b"damaged")
    assert load_cross_encoder(find_model(str(both))).predict([("a", "b")]).shape == (1,)


def test_a_model_without_config_is_none(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
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
    weights = store / "snapshots" / commit / "model.safetensors"
    with monkeypatch.context() as online:
        online.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        online.setattr("huggingface_hub.HfApi.model_info", Mock())
        assert not must_be_fetched(REFERENCE_MODEL)
        weights.unlink()  # a table of bases was made
        assert must_be_fetched(REFERENCE_MODEL)
    with pytest.raises(HubUnreachableError, match="no weights are in the local cache"):
        find_model(REFERENCE_MODEL)
    assert find_model(REFERENCE_MODEL, fallback=BUNDLED_MODEL).asked == REFERENCE_MODEL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c, w: w.update({"classifier.weight": np.zeros((3, 16))}), "it has 3 labels"),
        (lambda c, w: w.update({"score.weight": np.zeros((2, 16))}), "it has 2 labels"),
        (lambda c, w: w.update({"classifier.out_proj.weight": np.zeros((2, 16))}), "has 2 labels"),
        (lambda c, w: c.update(vocab_size=97), "config.json says 97 x 16"),
        (lambda c, w: c.update(vocab_size=7), "this vocabulary belongs to another model|says 7 x"),
        (lambda c, w: c.update(vocab_size="97"), "vocab_size: Input should be a valid integer"),
        (lambda c, w: c.update(max_position_embeddings=[1]), "max_position_embeddings: Input"),
        (lambda c, w: c.update(num_hidden_layers=9), "config.json says 9 layers"),
        (lambda c, w: c.update(type_vocab_size=1), "config.json says 1 x"),
        (
            lambda c, w: (
                c.update(type_vocab_size=1),
                w.update({TYPES: w[TYPES][:1].copy()}),
            ),
            "gives tokens of type 1, but the model has 1",
        ),
        (lambda c, w: c.update(max_position_embeddings=512), "config.json says 512 x"),
        (lambda c, w: w.pop(next(n for n in w if ".layer.1." in n)), "1 weights are missing"),
        (lambda c, w: c.update(model_type="evil"), "cannot be loaded"),
        (lambda c, w: c.update(num_attention_heads=3), "cannot be loaded"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tiny_model, tmp_path, change, reason):
    folder = rewritten(tiny_model, tmp_path / "model", change)
    for path in (tmp_path / "model").glob("tokenizer_config.json"):
        write_json(path, read_json(path) | {"model_input_names": ["input_ids", "token_type_ids"]})
    with pytest.raises(ModelError, match=reason):
        load_cross_encoder(find_model(str(folder)))


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged"),
        ("config.json", "[" * 100_000, "damaged .*recursion limit exceeded at line 1"),
        ("tokenizer_config.json", "[" * 100_000, "damaged .*recursion limit exceeded at line 1"),
        ("model.safetensors", "short", "damaged or cut short"),
    ],
)
def test_damaged_files_are_refused(tiny_model, tmp_path, file, content, reason):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / file).write_text(content)
    with pytest.raises(ModelError, match=reason):
        find_model(str(tmp_path / "model"))


@pytest.mark.parametrize("content", ["{}", "[]", "[" * 100_000, '{"a":' * 100_000, "no JSON"])
def test_a_damaged_tokenizer_is_refused(tiny_model, tmp_path, content):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model/tokenizer.json").write_text(content)
    for read in (load_tokenizer, load_cross_encoder):
        with pytest.raises(ModelError, match="cannot be loaded"):
            read(find_model(str(tmp_path / "model")))


@pytest.mark.parametrize("content", ["{}", "[1]", "[" * 100_000, '{"stages": [1]}'])
def test_a_damaged_lineage_is_refused(tiny_model, tmp_path, content):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model/lineage.json").write_text(content)
    with pytest.raises(ValueError, match=r"lineage\.json is damaged"):
        read_lineage(find_model(str(tmp_path / "model")))


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer_config.json", "1_Pooling/config.json", "other.bin"]
)
def test_a_pipe_in_a_model_folder_is_refused_before_it_is_opened(tiny_model, tmp_path, name):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    shutil.copy(folder / "model.safetensors", folder / "more.safetensors")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} is no regular file"):
        find_model(str(folder))


def test_deep_lists_in_a_config_are_refused_and_no_crash(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model/modules.json").write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ModelError, match="cannot be used"):
        find_model(str(tmp_path / "model"))


def test_what_is_known_of_a_hub_model_without_fetching_it(monkeypatch):
    assert not must_be_fetched(REFERENCE_MODEL)  # offline
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for answer, there in (({}, True), ({"side_effect": OSError}, False)):
        monkeypatch.setattr("huggingface_hub.HfApi.model_info", Mock(**answer))
        assert must_be_fetched(REFERENCE_MODEL) == there
    absent = RepositoryNotFoundError("none", response=Mock())
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", Mock(side_effect=absent))
    with pytest.raises(ModelError, match="no such model at revision 'v1'"):
        must_be_fetched(REFERENCE_MODEL, "v1")
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=absent))
    with pytest.raises(ModelError, match="no such model, or it is private"):
        find_model(REFERENCE_MODEL)


def test_a_name_on_the_hub_is_no_path_of_this_machine():
    assert is_hub_name(REFERENCE_MODEL)
    assert not is_hub_name("notebooks/none")  # a mistyped folder
    assert not is_hub_name("runs/none")  # also where there is no folder of runs yet
    assert not is_hub_name(BUNDLED_MODEL)


def test_the_bundled_model_needs_its_package(monkeypatch):
    monkeypatch.setattr("workbench.models.BUNDLED_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="install the package no-such-package"):
        find_model(BUNDLED_MODEL)


def test_the_record_of_a_location_is_plain_text(tiny_model):
    record = find_model(str(tiny_model)).record()
    assert record["path"] == str(tiny_model)
    assert all(isinstance(value, str) for value in record.values())


LATE = ("camembert", "data2vec-text", "longformer", "luke", "mpnet", "roberta", "xlm-roberta")
LATE = (*LATE, "roberta-prelayernorm", "xlm-roberta-xl", "xmod")


@pytest.mark.parametrize("kind", [*LATE, "bert", "electra", "albert", "distilbert", "gpt2"])
def test_the_positions_of_a_config_are_those_of_the_model(kind):
    """Counted in the library's own modules, of which some begin after the padding's position."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(kind, max_position_embeddings=60)
    config.num_hidden_layers, rows = 1, []
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    for part in model.modules():
        table = getattr(part, "position_embeddings", getattr(part, "wpe", None))
        if isinstance(table, torch.nn.Embedding):
            padding = getattr(part, "padding_idx", None)
            rows.append(table.num_embeddings - (0 if padding is None else padding + 1))
    assert position_limit(config.to_dict()) == min(rows) == (58 if kind in LATE else 60)
    values = config.to_dict() | {"pad_token_id": None}  # a default value need not be saved
    assert position_limit(values) == min(rows)


def test_a_model_without_a_table_of_positions_has_no_limit():
    assert position_limit({}) == position_limit({"max_position_embeddings": -1}) > 10**9


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_known_by_its_weights(kind, once, tmp_path):
    folder = tmp_path / kind
    shutil.copytree(once(f"kind-{kind}", lambda made: write_tiny_kind(made, kind)), folder)
    assert find_model(str(folder)).head
    weights = load_file(folder / "model.safetensors")
    body = {n: w for n, w in weights.items() if not n.startswith(("classifier", "score", "head"))}
    assert len(body) < len(weights)
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    assert not find_model(str(folder)).head
