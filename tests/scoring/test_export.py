import json
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from tests.scoring.test_cross_encoder import LEFT, edited, made_up
from workbench.cli import main
from workbench.models import find_model
from workbench.scoring.backends import (
    EXPORTED,
    BackendError,
    OnnxModel,
    choose_backend,
    open_backend,
)
from workbench.scoring.cross_encoder import ModelScorer
from workbench.scoring.export import export_model
from workbench.scoring.score_file import ScoringRequest, open_scorer


@pytest.fixture(scope="module")
def exported(sharp_model, tmp_path_factory):
    """A copy of the sharp model, exported by the command in both ways."""
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    folder = tmp_path_factory.mktemp("exported") / "model"
    shutil.copytree(sharp_model, folder)
    assert main(["export", str(folder), "--to", "onnx-int8", "--max-length", "64"]) == 0
    return folder


def test_the_exported_model_gives_the_logits_and_8_bits_nearly(exported):
    pairs = made_up(300)
    location = find_model(str(exported))
    exact = ModelScorer.load(location, 64).score(pairs)
    plain, rounded = (
        ModelScorer.load(location, 64, backend=backend).score(pairs)
        for backend in ("onnx", "onnx-int8")
    )
    assert plain == pytest.approx(exact, abs=float(exact.std()) / 1000)
    assert 0.9 < np.corrcoef(rounded, exact)[0, 1] < 0.999999  # a rough model of 16 columns


def test_an_exported_model_is_cut_where_the_model_was_trained_to_cut(
    sharp_model, tmp_path, monkeypatch
):
    """Also on the left; a larger number changes nothing, and the files say so themselves."""
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    folder = edited(sharp_model, tmp_path / "model", tokenizer_config=LEFT)
    pairs = made_up(40, longest=60)
    onnx = pytest.importorskip("onnx")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    location = find_model(str(folder))
    export_model(location, "onnx-int8")
    assert not [*(tmp_path / "temporary").iterdir()]  # nothing is left behind
    exact = ModelScorer.load(location).score(pairs)
    for name in EXPORTED:
        assert OnnxModel(folder, name).max_length == 24
    for length in (None, 24, 512):
        found = ModelScorer.load(location, length, backend="onnx").score(pairs)
        assert found == pytest.approx(exact, abs=1e-4)
        request = ScoringRequest(str(folder), "", backend="onnx", max_length=length)
        found = open_scorer(request).score(pairs)
        assert found == pytest.approx(exact, abs=1e-4)
    for length in (-5, 0, 3):  # no room for a text
        program = onnx.load(folder / EXPORTED["onnx"])
        onnx.helper.set_model_props(program, {"max_length": str(length)})
        onnx.save(program, folder / EXPORTED["onnx"])
        with pytest.raises(BackendError, match=rf"is damaged \(max_length {length}\); write it:"):
            OnnxModel(folder)
    (folder / EXPORTED["onnx"]).write_bytes(b"short")
    with pytest.raises(BackendError, match="is damaged"):
        OnnxModel(folder)


def test_an_export_that_computes_something_else_is_removed_and_fails(
    exported, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "model"
    shutil.copytree(exported, folder)

    def other(name, *given, **options):
        return lambda pairs: open_backend(name, *given, **options)(pairs) + (name == "onnx")

    monkeypatch.setattr("workbench.scoring.export.open_backend", other)
    assert main(["export", str(folder), "--max-length", "64"]) == 1
    assert "failed: " in (told := capsys.readouterr().err)
    assert "logits are off by up to 1.0" in told
    assert not list(folder.glob("onnx/*.onnx"))
    assert (folder / "model.safetensors").is_file()


def test_auto_looks_at_exported_models_too(exported):
    scorer = ModelScorer.load(find_model(str(exported)), 64)
    _, record = choose_backend(scorer.model, made_up(60), folder=exported)
    assert {"onnx", "onnx-int8"} <= {one["backend"] for one in record["checks"]}


def test_the_file_runs_in_a_process_that_knows_neither_workbench_nor_torch(exported):
    code = """
import sys, json, numpy as np, onnxruntime, tokenizers
tokenizer = tokenizers.Tokenizer.from_file(sys.argv[1] + "/tokenizer.json")
tokenizer.enable_padding()
rows = tokenizer.encode_batch([("怎么开通会员", "如何办理"), ("a", "b c d e f")])
session = onnxruntime.InferenceSession(sys.argv[1] + "/onnx/model.onnx")
ids, mask = [row.ids for row in rows], [row.attention_mask for row in rows]
given = {"input_ids": ids, "attention_mask": mask}
logits = session.run(["logits"], {name: np.array(value) for name, value in given.items()})[0]
assert not {"torch", "workbench", "transformers"} & set(sys.modules)
print(json.dumps(logits[:, 0].tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(exported)],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    exact = ModelScorer.load(find_model(str(exported)), 64).score(
        [("怎么开通会员", "如何办理"), ("a", "b c d e f")]
    )
    assert json.loads(done.stdout) == pytest.approx(exact.tolist(), rel=1e-3)


def test_what_is_missing_is_said(tiny_model, tmp_path, monkeypatch, capsys):
    with pytest.raises(BackendError, match=r"has no onnx/model\.onnx; write it: workbench export"):
        OnnxModel(tiny_model)
    with pytest.raises(BackendError, match=r"backend 'onnx-int8': .* write it: workbench export"):
        ModelScorer.load(find_model(str(tiny_model)), backend="onnx-int8")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", str(tiny_model)]) == 2
    assert r"[onnx]" in capsys.readouterr().err
    assert not (tiny_model / "onnx").exists()
    assert main(["export", str(tmp_path / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    monkeypatch.undo()
    with pytest.raises(BackendError, match="not in a folder of yours"):
        export_model(find_model("bundled:all-MiniLM-L6-v2"))
    with pytest.raises(BackendError, match="'pickle' is none of onnx, onnx-int8"):
        export_model(find_model(str(tiny_model)), "pickle")
    assert all(not (tiny_model / name).exists() for name in EXPORTED.values())
