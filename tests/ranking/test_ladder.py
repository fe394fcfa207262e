"""What is evaluated: a run's own model, a model made elsewhere, another run's model."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from sentence_transformers import CrossEncoder

from tests.benchmarks.tiny import write_tiny_kind
from workbench.cli import main
from workbench.data.build_lists import build_test
from workbench.data.lists import CandidateList, read_test, write_candidates
from workbench.data.pairs import known_positives
from workbench.files import DamagedError, read_json, write_json
from workbench.models import ModelError
from workbench.ranking.evaluation import evaluate
from workbench.ranking.ladder import find_subject, ladder_scorers, snapshot_curve
from workbench.scoring.baselines import BASELINES, RandomScorer

LISTS = [
    CandidateList("怎么开通", ("如何开通", "天气", "退货"), (1.0, 0.0, 0.0)),
    CandidateList("借钱", ("还款", "如何借", "会员"), (0.0, 1.0, 0.0)),
]
NO_PAIRS = pd.DataFrame({"sentence_0": [], "sentence_1": [], "label": []})


def test_a_run_with_a_model_is_its_own_subject(chain, tiny_model):
    subject = find_subject(chain, "no/such-model")
    assert subject.own
    assert subject.model.path == chain / "model"
    assert subject.base.path == tiny_model
    assert len(subject.splits["train"]) > 100
    assert subject.left_out == {}
    assert "the model of this run;" in str(subject)
    assert "an earlier run" not in str(subject).split("Base:")[0]


def test_a_model_made_elsewhere_is_evaluated_as_it_is(tmp_path, tiny_model):
    subject = find_subject(tmp_path / "none", str(tiny_model))
    assert not subject.own
    assert "NOT trained in this run" in str(subject)
    assert [len(pairs) for pairs in subject.splits.values()] == [0, 0, 0]
    scorers, left_out = ladder_scorers(subject, LISTS, max_length=32)
    assert set(left_out) == {"base", "ngram_regression"}
    assert "of 0 pairs 0 are positive" in left_out["ngram_regression"]
    assert list(scorers) == ["model", *(name for name in BASELINES if name not in left_out)]
    result = evaluate(scorers, LISTS, subject.splits["test"], resamples=100)
    assert [row["scorer"] for row in result.metrics["rows"]] == list(scorers)


def test_another_runs_model_brings_its_pairs_and_its_base(chain, tmp_path, tiny_model):
    subject = find_subject(tmp_path / "other", str(chain))
    assert not subject.own
    assert subject.model.path == chain / "model"
    assert subject.base.path == tiny_model
    assert subject.data_from == str(chain)
    assert len(subject.splits["test"]) > 10
    assert subject.record()["trained_in_this_run"] is False


def test_no_model_stands_in_for_one_that_cannot_be_found(tmp_path):
    """A mistyped folder looks like a name on the Hub; evaluating another model would be a lie."""
    with pytest.raises(ModelError, match="no/such-model"):
        find_subject(tmp_path, "no/such-model")


def test_a_base_that_is_gone_is_left_out_with_the_reason(chain, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(chain / "model", copy / "model")
    lineage = read_json(copy / "model/lineage.json")
    lineage["stages"][-1]["base"]["name"] = str(tmp_path / "gone")
    write_json(copy / "model/lineage.json", lineage)
    subject = find_subject(copy, "unused/unused")
    assert subject.base is None
    assert "no longer available" in subject.left_out["base"]


def test_a_lineage_that_names_no_base_is_damaged(chain, tmp_path):
    shutil.copytree(chain / "model", tmp_path / "copy/model")
    lineage = read_json(chain / "model/lineage.json")
    for change in ({"base": {"name": "a/b"}}, {"number": 9}):
        stages = [*lineage["stages"][:-1], lineage["stages"][-1] | change]
        write_json(tmp_path / "copy/model/lineage.json", {"stages": stages})
        with pytest.raises(DamagedError, match="has no base"):
            find_subject(tmp_path / "copy", "unused/unused")


def test_a_base_without_a_head_is_left_out_with_the_reason(chain):
    """A new head ranks at random, so it takes long and says nothing."""
    subject = find_subject(chain, "unused/unused")
    assert subject.base.head
    subject = replace(subject, base=replace(subject.base, head=False, name="owner/base"))
    scorers, left_out = ladder_scorers(subject, LISTS, max_length=32)
    assert "base" not in scorers
    assert "no ranking head" in left_out["base"]
    assert "zero_shot: owner/base" in left_out["base"]


@pytest.fixture
def elsewhere(tmp_path, tiny_model):
    file, path = tmp_path / "lists.jsonl", tmp_path / "only.yaml"
    write_candidates(file, LISTS * 3)
    values = {"candidates": str(file), "max_length": 32, "resamples": 200}
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    place = ["--runs-dir", str(tmp_path), "--name", "else", "--only", "04"]
    return ["run", str(path), *place, "-p", "base_model", str(tiny_model)]


def test_the_command_evaluates_a_model_without_training(elsewhere, tmp_path, capfd):
    assert main(elsewhere) == 0
    run = tmp_path / "else"
    metrics = read_json(run / "evaluation/metrics.json")
    names = [row["scorer"] for row in metrics["rows"]]
    assert names[0] == "model"
    assert "base" not in names
    assert set(metrics["left_out"]) == {"base", "ngram_regression"}
    assert metrics["subject"]["trained_in_this_run"] is False
    assert metrics["recipe"]["queries"] == 6
    assert not (run / "model").exists()
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "NOT trained in this run" in page
    assert "Query by query" in page
    capfd.readouterr()
    assert main([*elsewhere[:-1], str(tmp_path / "no-such-folder")]) == 2
    assert "is neither a folder" in capfd.readouterr().err


def test_another_runs_model_has_the_same_figures_on_the_test_split_of_that_run(chain, tmp_path):
    subject = find_subject(tmp_path / "again", str(chain))
    dev, test = subject.splits["dev"], subject.splits["test"]
    lists = build_test(test, 30, 42, known_positives(subject.data_from)).lists
    scorers, left_out = ladder_scorers(subject, lists, 64)
    assert left_out == {}
    chosen = {name: scorers[name] for name in ("model", "char_jaccard")}
    found = evaluate(chosen, lists, test, dev=dev).metrics["rows"]
    before = read_json(chain / "evaluation/metrics.json")["rows"]
    for row in found:
        name = row.pop("scorer")
        (other,) = (one for one in before if one["scorer"] == name)
        for metric, estimate in row.items():
            assert estimate == pytest.approx(other[metric], abs=1e-9), metric


def test_with_nothing_to_rank_nothing_is_started(tmp_path, tiny_model, capsys):
    place = ["--runs-dir", str(tmp_path / "runs"), "--name", "x"]
    assert main(["run", *place, "--only", "04", "-p", "base_model", str(tiny_model)]) == 2
    assert "nothing to rank" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_snapshots_are_kept_at_equal_steps_and_those_there_already_stay(tmp_path, tiny_model):
    from workbench.scoring.cross_encoder import load_cross_encoder
    from workbench.training.checkpoints import SnapshotCallback

    model = load_cross_encoder(find_subject(tmp_path, str(tiny_model)).model, 32)
    callback = SnapshotCallback(model, tmp_path / "snapshots", 4, 100, {"steps": 0, "pairs": 0})
    state = SimpleNamespace(max_steps=10, global_step=0, epoch=0.0, is_world_process_zero=True)
    callback.on_train_begin(None, state, None)
    (tmp_path / "snapshots/step-000005").mkdir(parents=True)
    for step in range(1, 11):
        state.global_step, state.epoch = step, step / 10
        callback.on_step_end(None, state, None)
    folders = sorted((tmp_path / "snapshots").iterdir())
    found = {f.name: sorted(p.name for p in f.iterdir()) for f in folders}
    assert list(found) == ["step-000002", "step-000005", "step-000008", "step-000010"]
    assert found.pop("step-000005") == []
    for files in found.values():
        assert {"model.safetensors", "tokenizer.json", "config.json", "snapshot.json"} <= set(files)
    assert read_json(tmp_path / "snapshots/step-000008/snapshot.json")["pairs"] == 80
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_of_trec_files_may_be_given_and_a_missing_one_is_refused(
    elsewhere, tmp_path, tiny_model, capsys
):
    trec = tmp_path / "trec"
    trec.mkdir()
    (trec / "qrels").write_text("1 0 a 1\n1 0 b 0\n")
    (trec / "run").write_text("1 Q0 b 1 2.0 x\n1 Q0 a 2 1.0 x\n")
    (trec / "queries.tsv").write_text("1\t怎么开通\n", encoding="utf-8")
    (trec / "documents.tsv").write_text("a\t如何开通\nb\t天气\n", encoding="utf-8")
    assert main([*elsewhere, "-p", "candidates", str(tmp_path / "none")]) == 2
    assert "there is no file" in capsys.readouterr().err
    lists = read_test(trec, seed=42).lists
    scorers, _ = ladder_scorers(find_subject(tmp_path / "no-run", str(tiny_model)), lists, 32)
    order = {"candidate_order": scorers["candidate_order"]}
    (row,) = evaluate(order, lists, NO_PAIRS, resamples=100).metrics["rows"]
    assert row["mrr@10"]["mean"] == 1 / 2  # the run's own order, not a shuffled one


def test_snapshots_make_a_learning_curve_that_ends_at_the_model(chain):
    """The last snapshot is the model, so its value is the model's; the first row is the base."""
    folders = sorted((chain / "snapshots").iterdir())
    assert len(folders) == 3
    seen = [read_json(folder / "snapshot.json")["pairs"] for folder in folders]
    train = len(pd.read_parquet(chain / "data/train.parquet"))
    assert seen == sorted(set(seen))
    assert seen[-1] == train
    last, model = (load_file(f / "model.safetensors") for f in (folders[-1], chain / "model"))
    assert all((last[name] == model[name]).all() for name in model)
    first = load_file(folders[0] / "model.safetensors")
    assert any((first[name] != model[name]).any() for name in model)
    lists = read_test(chain / "evaluation/candidates.jsonl").lists
    scorers, _ = ladder_scorers(find_subject(chain, ""), lists, 64)
    chosen = {name: scorers[name] for name in ("model", "base")}
    result = evaluate(chosen, lists, NO_PAIRS, resamples=200)
    curve = snapshot_curve(chain, result, 64)
    assert curve["pairs"].tolist() == [0, *seen]
    assert curve["mean"].iloc[-1] == pytest.approx(result.values("model").mean())
    assert curve["mean"].iloc[0] == pytest.approx(result.values("base").mean())
    assert (curve["low"] <= curve["mean"]).all()


def test_a_run_without_snapshots_has_no_curve(tmp_path):
    result = evaluate({"model": RandomScorer(1)}, LISTS, NO_PAIRS, resamples=100)
    assert snapshot_curve(tmp_path, result).empty


def test_models_of_other_runs_have_the_names_of_their_folders(chain, tiny_model, tmp_path):
    for name in ("theirs", "random"):
        shutil.copytree(tiny_model, tmp_path / name)
    subject = find_subject(chain, "")
    found, _ = ladder_scorers(subject, LISTS, 64, compare_runs=f"{chain}, {tmp_path / 'theirs'},")
    assert list(found) == ["model", "base", *BASELINES, chain.name, "theirs"]
    pairs = [("怎么开通", "如何开通"), ("a", "b")]
    assert (found[chain.name].score(pairs) == found["model"].score(pairs)).all()
    with pytest.raises(ValueError, match="two scorers would be called 'random'"):
        ladder_scorers(subject, LISTS, 64, compare_runs=str(tmp_path / "random"))
    with pytest.raises(ModelError):
        ladder_scorers(subject, LISTS, 64, compare_runs=str(tmp_path / "none"))


def test_a_new_baseline_needs_nothing_but_its_entry_in_the_registry(
    tmp_path, tiny_model, monkeypatch
):
    class Length:
        def score(self, pairs):
            return np.array([len(text) for _, text in pairs], dtype=np.float32)

    def build(train, lists, seed, **_):
        return Length() if len(train) == 0 and lists == LISTS and seed == 7 else None

    monkeypatch.setitem(BASELINES, "length", build)
    subject = find_subject(tmp_path / "none", str(tiny_model))
    scorers, left_out = ladder_scorers(subject, LISTS, max_length=32, seed=7)
    assert list(scorers)[-1] == "length"
    rows = evaluate({"length": scorers["length"]}, LISTS, subject.splits["test"], resamples=100)
    assert rows.metrics["rows"][0]["scorer"] == "length"
    scorers, left_out = ladder_scorers(subject, LISTS, max_length=32, seed=8)
    assert "length" not in scorers
    assert "cannot be built" in left_out["length"]


def test_untrained_bases_are_ranked_under_their_names(tmp_path, once, tiny_model):
    """One with a head by its own score, one without by the cosine of its texts' mean vectors."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    scored, embedded = tmp_path / "with-head", tmp_path / "without-head"
    shutil.copytree(once("kind-electra", lambda made: write_tiny_kind(made, "electra")), scored)
    shutil.copytree(tiny_model, embedded)
    weights = load_file(embedded / "model.safetensors")
    body = {name: value for name, value in weights.items() if name.startswith("bert.")}
    save_file(body, embedded / "model.safetensors", metadata={"format": "pt"})
    subject = find_subject(tmp_path / "none", str(tiny_model))
    bases = [str(scored), str(embedded)]
    scorers, _ = ladder_scorers(subject, LISTS, max_length=32, zero_shot=bases)
    assert list(scorers)[-2:] == ["with-head", "without-head"]
    pairs = LISTS[0].pairs()
    own = CrossEncoder(str(scored)).predict(pairs, activation_fn=torch.nn.Identity())
    assert scorers["with-head"].score(pairs) == pytest.approx(own, abs=1e-5)
    tokenizer, body = (kind.from_pretrained(embedded) for kind in (AutoTokenizer, AutoModel))

    def vector(text):
        return body(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)

    cosines = [torch.cosine_similarity(vector(a), vector(b), dim=0).item() for a, b in pairs]
    assert scorers["without-head"].score(pairs) == pytest.approx(cosines, abs=1e-5)
    rows = evaluate(scorers, LISTS, subject.splits["test"], resamples=100).metrics["rows"]
    found = {row["scorer"]: row["ndcg@10"] for row in rows}
    assert {"low", "mean", "high"} <= found["without-head"].keys() & found["with-head"].keys()
    with pytest.raises(ValueError, match=r"zero_shot: .*two scorers would be called 'random'"):
        ladder_scorers(subject, LISTS, zero_shot=["any/random"])
    (scored / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"zero_shot: .*with-head cannot be loaded"):
        ladder_scorers(subject, LISTS, zero_shot=[str(scored)])
