"""Losses and trainer options: refused by name before a run, or trained, recorded and resumed."""

import inspect
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as library

from tests.benchmarks.tiny import pickled, write_tiny_kind
from tests.conftest import interrupted_at, labelled
from workbench.batch.plan import read_plan
from workbench.data.lists import CandidateList, write_candidates
from workbench.data.pairs import DataError, prepare_data, read_manifest, read_split
from workbench.data.texts import text_pairs
from workbench.files import RequestError
from workbench.models import PICKLED, find_model
from workbench.reports import findings
from workbench.reports.model_card import write_card
from workbench.runs.parameters import check_parameters
from workbench.scoring.baselines import CharacterJaccard
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.training import trainer as trainers
from workbench.training.examples import LIST_LENGTH, training_rows
from workbench.training.log import read_training_log
from workbench.training.recipe import LOSSES, Recipe, make_loss
from workbench.training.stages import Training, fine_tune

SHORT = {"max_length": 32, "learning_rate": 1e-3, "max_steps": 4, "hard_negatives": 2}
PAIRS = [("怎么开通会员", "如何办理会员"), ("a", "b"), ("会员", "c")]


def test_every_loss_of_the_library_for_one_output_has_a_name():
    there = {n for n, one in inspect.getmembers(library, inspect.isclass) if n.endswith("Loss")}
    assert {kind for kind, _ in LOSSES.values()} == there - {"CrossEntropyLoss"}
    assert set(Recipe.model_fields["loss"].annotation.__args__) == set(LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_trains_and_predict_gives_what_the_card_says(name, run, tiny_model):
    recipe = Recipe(**SHORT, loss=name, speed="fast" if name == "lambda" else "exact")
    record = fine_tune(run, find_model(str(tiny_model)), recipe)
    kind, needed = LOSSES[name]
    assert (record["loss"], record["steps"]) == (kind, 4)
    seen = record["pairs_seen"]
    assert needed == "pairs" or max(seen.get(n, 0) for n in ("lists", "triples")) > 4
    logits = ModelScorer.load(find_model(str(run)), 32).score(PAIRS)
    found = CrossEncoder(str(run / "model"), max_length=32).predict(PAIRS)
    probabilities = 1 / (1 + np.exp(-logits))
    assert found == pytest.approx(probabilities if name == "bce" else logits, abs=1e-6)
    assert len(set(found)) == len(PAIRS)
    assert ("probabilities:" in findings.scores(record)) == (name == "bce")
    log = read_training_log(run)
    assert log["dev_ap"].notna().any()
    assert log["constant_loss"].notna().any() == (name == "bce")
    assert log["dev_loss"].notna().any() == (needed == "pairs")
    card = write_card(run).read_text(encoding="utf-8")
    assert f"[{kind}]" in card
    assert findings.scores(record) in card
    if name == "lambda":
        assert record["not_fast"].startswith("the loss is LambdaLoss(")
        assert "library's own trainer was used (the loss is LambdaLoss" in findings.outcome(record)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_base_in_a_pickle_trains_as_one_in_safetensors(zipped, run, tiny_model, tmp_path):
    """Also one of half precision, whose norms have the names of old."""
    found, recipe = [], Recipe(**SHORT)
    weights = load_file(tiny_model / "model.safetensors")
    for old, new in ((".weight", ".gamma"), (".bias", ".beta")):
        for name in [name for name in weights if name.endswith("LayerNorm" + old)]:
            weights[name.replace(old, new)] = weights.pop(name)
    half = {name: value.half() for name, value in weights.items()}
    base = pickled(tiny_model, tmp_path / "pickled", half, zipped)
    again = pickled(tiny_model, tmp_path / "safe")
    (again / PICKLED).unlink()
    save_file(half, again / "model.safetensors", metadata={"format": "pt"})
    for folder in (base, again):
        record = fine_tune(run, find_model(str(folder)), recipe)
        assert record["steps"] == 4
        assert not (run / "model" / PICKLED).exists()
        found.append((run / "model/model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_grades_of_candidate_lists_reach_a_list_loss(tmp_path, tiny_model, monkeypatch):
    grades = (1.0, 0.5, 0.0)
    lists = [CandidateList(f"怎么{n}", ("开通", "关闭", "借钱"), grades) for n in "会员手机天气"]
    write_candidates(tmp_path / "lists.jsonl", lists)
    prepare_data(tmp_path / "run", tmp_path / "lists.jsonl", dev_share=0, test_share=0)
    seen, plain = [], trainers.make_trainer

    def spied(*args, **kwargs):
        seen.append(trainer := plain(*args, **kwargs))
        return trainer

    monkeypatch.setattr(trainers, "make_trainer", spied)
    recipe = Recipe(loss="listnet", max_steps=1, max_length=32)
    record = fine_tune(tmp_path / "run", find_model(str(tiny_model)), recipe)
    assert record["pairs_seen"] == {"labelled": 18, "lists": 6, "unused": 0}
    assert [row["label"] for row in seen[0].train_dataset] == [[*grades]] * 6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": "hinge"}, "loss: input should be 'bce', 'mse'"),
        (
            {"loss_parameters": {"weight": 2}},
            "loss bce has no parameter 'weight'; did you mean pos_weight",
        ),
        ({"loss_parameters": {"pos_weight": -1}}, "pos_weight must be above 0 and finite"),
        ({"loss_parameters": {"pos_weight": "x"}}, "valid number"),
        ({"loss_parameters": '{"pos_weight": "'}, "must be a mapping"),
        ({"loss_parameters": "[" * 100_000}, "must be a mapping"),
        (
            {"loss": "lambda", "loss_parameters": {"weighting_scheme": "os.system"}},
            "weighting_scheme 'os.system': input should be 'NoWeightingScheme', 'Lam",
        ),
        ({"loss": "mse", "loss_parameters": {"activation_fn": "ReLU"}}, "'Identity' or 'Sigmoid'"),
        ({"loss": "lambda", "loss_parameters": {"reduction_log": "ten"}}, "'natural' or 'binary'"),
        ({"trainer_arguments": {"lr": 1}}, "the library's trainer has no argument 'lr'"),
        ({"trainer_arguments": {"seed": 1}}, "'seed' is set by the workbench's own parameters"),
        ({"trainer_arguments": {"adam_beta1": "x"}}, "adam_beta1 'x': input should be a valid num"),
        ({"trainer_arguments": {"metric_for_best_model": "f1"}}, "is set by the workbench's own"),
        ({"teacher": "bm25"}, "teacher: only loss mse and margin_mse learn"),
        ({"lora_rank": 2, "speed": "fast"}, "take speed: exact with LoRA"),
        ({"metric_for_best_model": "f1"}, "should be 'ndcg@10' or 'ap'"),
        ({"loss": "x", "loss_parameters": {"a": 1}}, "loss: input should be 'bce'"),
        ({"weight_decay": 2}, "weight_decay: input should be less than or equal to 1"),
        ({"lr_scheduler_type": "steps"}, "lr_scheduler_type: input should be 'linear', 'cosine'"),
    ],
)
def test_what_the_library_would_not_take_is_refused_by_name(given, said):
    with pytest.raises(RequestError, match=":") as caught:
        check_parameters(given)
    assert said in str(caught.value)


def test_parameters_of_a_loss_reach_it(tiny_model):
    model = load_cross_encoder(find_model(str(tiny_model)), 32)
    given = {"weighting_scheme": "NDCGLoss1Scheme", "k": 5, "mini_batch_size": 4}
    recipe = check_parameters({"loss": "lambda", "loss_parameters": given})
    loss = make_loss(recipe.loss, model, **recipe.loss_parameters)
    assert type(loss.weighting_scheme).__name__ == "NDCGLoss1Scheme"
    assert (loss.k, loss.mini_batch_size) == (5, 4)
    recipe = check_parameters({"loss_parameters": '{"pos_weight": 3}'})
    assert make_loss("bce", model, **recipe.loss_parameters).pos_weight.item() == 3


def test_pairs_become_lists_and_triples_by_query_and_what_is_unused_is_counted():
    pairs = labelled(("q", "a", 0.0), ("q", "b", 1.0), ("q", "c", 0.6), ("r", "d", 0))
    lists, made = training_rows(pairs, "lists")
    assert lists.to_dict("list") == {
        "query": ["q"],
        "documents": [["b", "c", "a"]],  # the best first, as ListMLE takes them
        "label": [[1.0, 0.6, 0.0]],
    }
    assert made == {"lists": 1, "unused": 1}
    triples, made = training_rows(pairs, "triples")
    assert triples.to_numpy().tolist() == [["q", "b", "a", 1.0], ["q", "c", "a", 0.6]]
    assert made == {"triples": 2, "unused": 1}
    positives, again = training_rows(pairs, "positives")
    assert (positives.to_numpy().tolist(), again) == (triples.to_numpy()[:, :3].tolist(), made)
    alone, made = training_rows(labelled(("q", "a", 1), ("r", "b", 1), ("r", "c", 0)), "triples")
    assert (len(alone), made) == (1, {"triples": 1, "unused": 1})
    alone, made = training_rows(labelled(("q", "a", 1), ("r", "b", 1), ("s", "c", 0)), "positives")
    assert (alone.shape, made) == ((2, 2), {"positive_pairs": 2, "unused": 1})
    many = labelled(("q", "x", 1), ("q", "y", 1), *(("q", str(n), 0) for n in range(LIST_LENGTH)))
    lists, made = training_rows(many, "lists")
    assert sorted(map(len, lists["documents"])) == [17, 17]
    assert [labels[:2] for labels in lists["label"]] == [[1.0, 0.0]] * 2
    assert made == {"lists": 2, "unused": 0}


def test_lists_that_cannot_be_built_are_refused_before_anything_moves(run, tiny_model):
    train = read_split(run, "train").drop_duplicates("sentence_0")
    train.to_parquet(run / "data/train.parquet")
    (run / "training_log.jsonl").write_text("")
    with pytest.raises(DataError, match="set hard_negatives, which mines them, or take loss bce"):
        fine_tune(run, find_model(str(tiny_model)), Recipe(loss="listnet"))
    with pytest.raises(ValueError, match="float16 needs a GPU"):
        fine_tune(run, find_model(str(tiny_model)), Recipe(precision="float16"))
    assert not (run / "earlier").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "mnrl"},  # draws negatives at random, from batches without repetition
        {"gradient_accumulation_steps": 2, "gradient_checkpointing": True, "weight_decay": 0.1},
        {"optim": "adafactor", "lr_scheduler_type": "cosine", "eval_steps": 3},
        {"trainer_arguments": {"max_grad_norm": 0.5, "adam_beta2": 0.98}, "speed": "fast"},
        {"lora_rank": 2, "gradient_checkpointing": True, "embedding_learning_rate": 1e-3},
    ],
)
def test_options_reach_the_trainer_and_resume_gives_the_same_bytes(
    options, run, tmp_path, tiny_model
):
    recipe = Recipe(**SHORT | {"max_steps": 6}, **options)
    base, whole = find_model(str(tiny_model)), tmp_path / "whole"
    shutil.copytree(run, whole)
    record = fine_tune(whole, base, recipe, checkpoint_steps=2)
    given = options | options.get("trainer_arguments", {})
    used = record["hyperparameters"]
    assert {n: used[n] for n in given if n in used} == {n: given[n] for n in given if n in used}
    assert (record["steps"], record["speed"]) == (6, "exact")
    assert (record["not_fast"] != "") == ("speed" in options)

    with interrupted_at(5):
        fine_tune(run, base, recipe, checkpoint_steps=2)
    fine_tune(run, base, recipe, checkpoint_steps=2, resume=True)
    logs = [read_training_log(folder).drop(columns="seconds") for folder in (whole, run)]
    pd.testing.assert_frame_equal(*logs)
    weights = [(folder / "model/model.safetensors").read_bytes() for folder in (whole, run)]
    assert weights[0] == weights[1]
    assert record["train_loss"] == pytest.approx(logs[0]["loss"].mean())


def test_a_batch_too_large_for_the_memory_is_made_smaller(run, tmp_path, tiny_model, monkeypatch):
    """The result is that of a training which had the smaller batches from the beginning."""
    plain, step = tmp_path / "plain", trainers.ResumableTrainer.training_step
    shutil.copytree(run, plain)
    recipe = Recipe(**SHORT | {"batch_size": 18, "max_steps": 12, "warmup_ratio": 0})
    fine_tune(plain, find_model(str(tiny_model)), recipe)

    def exhaust(trainer, model, inputs, *args):
        if len(inputs["label"]) > 18 and len(trainer.pending) + trainer.count == 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return step(trainer, model, inputs, *args)

    monkeypatch.setattr(trainers.ResumableTrainer, "training_step", exhaust)
    values = {"batch_size": 24, "trainer_arguments": {"auto_find_batch_size": True}}
    record = fine_tune(run, find_model(str(tiny_model)), recipe.model_copy(update=values))
    assert record["hyperparameters"]["per_device_train_batch_size"] == 18
    logs = [read_training_log(folder).drop(columns="seconds") for folder in (plain, run)]
    pd.testing.assert_frame_equal(*logs)
    weights = [(folder / "model/model.safetensors").read_bytes() for folder in (plain, run)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("optim", "schedule", "precision"),
    [
        ("sgd", "polynomial", "float32"),
        ("adamw_torch", "constant_with_warmup", "bfloat16"),
        ("adafactor", "cosine", "float32"),
    ],
)
def test_optimisers_schedules_and_bfloat16_train(optim, schedule, precision, run, tiny_model):
    names = {"optim": optim, "lr_scheduler_type": schedule}
    recipe = Recipe(**SHORT | {"max_steps": 2}, **names, precision=precision, warmup_ratio=0.5)
    record = fine_tune(run, find_model(str(tiny_model)), recipe)
    used = record["hyperparameters"]
    assert {name: used[name] for name in names} == names
    assert used["bf16"] == (precision == "bfloat16")
    assert np.isfinite(record["train_loss"])


def test_embeddings_norms_and_biases_do_not_decay(run, tiny_model):
    def trained(decay):
        recipe = Recipe(**SHORT, weight_decay=decay, embedding_learning_rate=1e-3)
        stage = next(Training(run, find_model(str(tiny_model)), recipe).stages())
        model = stage.start_model()
        return model, stage.trainer(model)

    model, trainer = trained(0.1)
    decays = {
        id(one): group["weight_decay"]
        for group in trainer.create_optimizer().param_groups
        for one in group["params"]
    }
    names = {name: decays[id(one)] for name, one in model.named_parameters()}
    spared = {name for name in names if any(part in name for part in ("embed", "Norm", "bias"))}
    assert {name for name, decay in names.items() if decay == 0} == spared
    assert len(spared) < len(names)
    assert set(decays.values()) == {0.0, 0.1}


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "albert", "modernbert"])
def test_adapters_are_merged_into_an_ordinary_model(kind, run, tmp_path, stranger):
    """It is loaded and scores the same where there is neither the workbench nor peft."""
    base = write_tiny_kind(tmp_path / "base", kind)
    recipe = Recipe(**SHORT, lora_rank=2, lora_alpha=4)
    whole = fine_tune(run, find_model(str(base)), recipe, snapshots=2)
    weights = [load_file(folder / "model.safetensors") for folder in (base, run / "model")]
    assert weights[0].keys() == weights[1].keys()
    moved = {name for name, old in weights[0].items() if not torch.equal(old, weights[1][name])}
    assert any("attention" in name or "attn" in name for name in moved)
    assert not any("embeddings" in name for name in moved)
    assert whole["trained_parameters"] < sum(one.numel() for one in weights[0].values()) / 2
    logits = ModelScorer.load(find_model(str(run)), 32).score(PAIRS)
    _, _, scores = stranger(run / "model", 32, [], PAIRS)
    assert scores == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    assert len(list((run / "snapshots").iterdir())) == 2
    again = tmp_path / "again"  # a snapshot does not disturb the training
    shutil.copytree(run / "data", again / "data")
    fine_tune(again, find_model(str(base)), recipe)
    assert (again / "model/model.safetensors").read_bytes() == (
        run / "model/model.safetensors"
    ).read_bytes()


def test_with_a_repaired_vocabulary_adapters_come_with_the_embeddings(run, tiny_model, monkeypatch):
    recipe = Recipe(**SHORT, lora_rank=2, vocabulary="extend", lexical_pairs=20)
    record = fine_tune(run, find_model(str(tiny_model)), recipe)
    rows = load_file(run / "model/model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert record["vocabulary"]["added_tokens"] > 0
    assert record["trained_parameters"] > rows.numel()
    assert "train LoRA adapters of rank 2" in findings.recipe(recipe)
    monkeypatch.setattr("workbench.training.recipe.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package peft: pip install"):
        Recipe(lora_rank=2)


@pytest.mark.parametrize("loss", ["mse", "margin_mse"])
def test_a_loss_learns_the_scores_of_a_teacher(loss, run, tiny_model, tmp_path, monkeypatch):
    """Of a scorer, of a column of the file, or of another model."""
    base, seen = find_model(str(tiny_model)), []
    plain = trainers.make_trainer

    def spied(*args, **kwargs):
        trainer = plain(*args, **kwargs)
        seen.append(trainer.train_dataset.to_pandas())
        return trainer

    monkeypatch.setattr(trainers, "make_trainer", spied)
    source = read_manifest(run)["source"]
    train = read_split(run, "train")
    other = train.assign(sentence_1=train["sentence_1"].to_numpy()[::-1], label=1 - train["label"])
    train = pd.concat([train, other]).drop_duplicates(["sentence_0", "sentence_1"])
    train.to_parquet(run / "data/train.parquet", index=False)
    train["score"] = np.linspace(-9, 9, len(train))
    train.to_csv(tmp_path / "scored.csv", index=False)
    manifest = run / "data/manifest.json"
    manifest.write_text(manifest.read_text().replace(source, str(tmp_path / "scored.csv")))
    given = {"max_steps": 1, "loss": loss}
    given |= {"hard_negatives": 0, "learning_rate": 1e-3, "max_length": 32}
    scorer = ModelScorer.load(base, 32)
    scores = {"char_jaccard": CharacterJaccard().score(text_pairs(train)), "score": train["score"]}
    for name, values in (scores | {str(tiny_model): scorer.score(text_pairs(train))}).items():
        shutil.rmtree(run / "model", ignore_errors=True)
        record = fine_tune(run, base, Recipe(**given, teacher=name))
        rows = seen.pop()
        by_pair = dict(zip(text_pairs(train), values, strict=True))
        if loss == "mse":
            texts = zip(rows["sentence_0"], rows["sentence_1"], strict=True)
            expected = [by_pair[pair] for pair in texts]
        else:
            texts = zip(rows["query"], rows["positive"], rows["negative"], strict=True)
            expected = [by_pair[q, good] - by_pair[q, bad] for q, good, bad in texts]
        assert rows["label"].to_numpy() == pytest.approx(np.array(expected), abs=1e-5)
        assert record["recipe"]["teacher"] == name
        assert read_training_log(run)["dev_loss"].isna().all()  # of labels: not what is learned
    for teacher, more, said in (
        ("nobody", {}, r"neither a scorer \(.*, a column of .*scored.csv, nor a model"),
        ("token_jaccard", {}, "is made from more than pairs"),
        ("score", {"symmetric": True}, "has no number for .* need a scorer"),
    ):
        with pytest.raises(DataError, match=said):
            fine_tune(run, base, Recipe(**given | more, teacher=teacher))


def test_a_sweep_over_losses_and_bases(tmp_path, run):
    """Every run that the planner lists trains, each with its loss from its base."""
    kinds = [str(write_tiny_kind(tmp_path / kind, kind)) for kind in ("electra", "roberta")]
    asked = {
        "base": {"max_steps": 1, "max_length": 32, "hard_negatives": 1},
        "grid": {"loss": ["bce", "listnet"], "base_model": kinds},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(asked))
    runs = read_plan(tmp_path / "sweep.yaml").runs
    assert len({one.identity for one in runs}) == len(runs) == 4
    made = set()
    for planned in runs:
        folder = tmp_path / "runs" / planned.name
        shutil.copytree(run / "data", folder / "data")
        base = find_model(planned.parameters.base_model)
        record = fine_tune(folder, base, Recipe.of(planned.parameters.model_dump()))
        made.add((record["loss"], record["base"]["sha256"]))
    assert len(made) == 4
