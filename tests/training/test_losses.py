"""Losses and trainer options: refused by name before a run, or trained, recorded and resumed."""

import inspect
import shutil

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import losses as library

from workbench.data.splits import DataError, read_split
from workbench.models import find_model
from workbench.reports import findings
from workbench.reports.model_card import write_card
from workbench.runs.parameters import check_parameters
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.training.log import TrainingLog, read_training_log
from workbench.training.losses import LIST_LENGTH, LOSSES, make_loss, training_rows
from workbench.training.recipe import Recipe
from workbench.training.stages import fine_tune

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
    assert f"activation is `{record['activation']}`" in card
    if name == "lambda":
        assert record["not_fast"].startswith("the loss is LambdaLoss(")
        assert "library's own trainer was used (the loss is LambdaLoss" in findings.outcome(record)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": "hinge"}, "loss: input should be 'bce', 'mse'"),
        (
            {"loss_parameters": {"weight": 2}},
            "loss bce has no parameter 'weight'; it has activation_fn",
        ),
        ({"loss_parameters": {"pos_weight": -1}}, "pos_weight must be above 0 and finite"),
        ({"loss_parameters": {"pos_weight": "x"}}, "valid number"),
        ({"loss_parameters": '{"pos_weight": "'}, "must be a mapping"),
        ({"loss_parameters": "[" * 100_000}, "must be a mapping"),
        (
            {"loss": "lambda", "loss_parameters": {"weighting_scheme": "os.system"}},
            "weighting_scheme 'os.system' is none of NoWeightingScheme, LambdaRankScheme",
        ),
        ({"loss": "mse", "loss_parameters": {"activation_fn": "ReLU"}}, "none of Identity, Sigm"),
        ({"loss": "lambda", "loss_parameters": {"reduction_log": "ten"}}, "'natural' or 'binary'"),
        ({"trainer_arguments": {"lr": 1}}, "the library's trainer has no argument 'lr'"),
        ({"trainer_arguments": {"seed": 1}}, "'seed' is set by the workbench's own parameters"),
        ({"trainer_arguments": {"adam_beta1": "x", "max_grad_norm": 2}}, None),
        ({"weight_decay": 2}, "weight_decay: input should be less than or equal to 1"),
        ({"lr_scheduler_type": "steps"}, "lr_scheduler_type: input should be 'linear', 'cosine'"),
    ],
)
def test_what_the_library_would_not_take_is_refused_by_name(given, said):
    if said is None:  # types of its arguments are the library's to check, when it is built
        assert check_parameters(given).trainer_arguments["max_grad_norm"] == 2
        return
    with pytest.raises(ValueError, match=":") as caught:
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


def labelled(*rows):
    return pd.DataFrame(rows, columns=["sentence_0", "sentence_1", "label"])


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
    ],
)
def test_options_reach_the_trainer_and_resume_gives_the_same_bytes(
    options, run, tmp_path, tiny_model, monkeypatch
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

    def killed(self, row, append=TrainingLog.append):
        append(self, row)
        if row["step"] == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(run, base, recipe, checkpoint_steps=2)
    fine_tune(run, base, recipe, checkpoint_steps=2, resume=True)
    logs = [read_training_log(folder).drop(columns="seconds") for folder in (whole, run)]
    pd.testing.assert_frame_equal(*logs)
    weights = [(folder / "model/model.safetensors").read_bytes() for folder in (whole, run)]
    assert weights[0] == weights[1]
    assert record["train_loss"] == pytest.approx(logs[0]["loss"].mean())
