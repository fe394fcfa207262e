import inspect
import io
import json
import shutil
import time
from contextlib import redirect_stdout
from importlib import metadata

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from transformers import TrainerCallback

import workbench
from tests.benchmarks.tiny import KINDS, write_tiny_kind
from tests.conftest import interrupted_at
from workbench.data.build_lists import build_test
from workbench.data.lists import CandidateList
from workbench.data.pairs import DataError, prepare_data, read_split
from workbench.data.texts import text_pairs
from workbench.files import read_json
from workbench.machine import _gain_of_bfloat16
from workbench.models import ModelError, find_model, read_lineage
from workbench.ranking.evaluation import rank_lists, score_lists
from workbench.ranking.ladder import find_subject, ladder_scorers
from workbench.ranking.metrics import pair_metrics
from workbench.reports import findings
from workbench.reports.figures.training import log_values, loss_curve, running_step
from workbench.reports.model_card import write_card
from workbench.run_folder import stage_folders
from workbench.runs.parameters import Parameters
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.training.checkpoints import DivergedError, ResumeError
from workbench.training.log import TrainingLog, read_training_log
from workbench.training.recipe import Recipe, read_stages
from workbench.training.stages import Training, fine_tune
from workbench.training.trainer import (
    LIST_SIZE,
    MAX_LISTS,
    FastTrainer,
    ResumableTrainer,
    constant_loss,
    logging_steps,
    remove_dropout,
    watched,
)

RECIPE = Recipe(max_length=64, learning_rate=1e-3, epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model):
    """A run of one short stage, the record that training returned, and what it printed."""
    run, printed = tmp_path_factory.mktemp("runs") / "trained", io.StringIO()
    prepare_data(run, "data/sample_pairs.csv", max_pairs=200, test_share=0.2)
    with redirect_stdout(printed):
        record = fine_tune(run, find_model(str(tiny_model)), RECIPE)
    return run, record, printed.getvalue()


def same(first, second):
    """Whether two model folders hold equal weights."""
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (9, 1), (175, 10), (2500, 250), (5000, 500), (12154, 500)]
)
def test_logging_every_500_steps_or_ten_times_a_run(steps, every):
    assert logging_steps(steps) == every


def test_defaults_are_those_of_the_reference_card():
    card = {"max_length": 512, "epochs": 1.0, "batch_size": 8, "learning_rate": 5e-5, "seed": 42}
    assert Recipe() == Recipe(**card, precision="auto", vocabulary="keep", speed="exact")


def test_functions_have_the_defaults_of_the_parameters():
    """But for names that mean something else there, and intervals of figures, which are drawn."""
    other = {"run_dir", "pairs", "candidates", "query", "backend", "resamples"}
    rooms = [workbench, workbench.data, workbench.training, workbench.scoring, workbench.ranking]
    public = [getattr(room, name) for room in rooms for name in dir(room)]
    taken = [
        (function, name, given.default)
        for function in public
        if callable(function)
        for name, given in inspect.signature(function).parameters.items()
        if given.default is not given.empty and name in Parameters.model_fields.keys() - other
    ]
    assert len(taken) > 20
    for function, name, default in taken:
        default = list(default) if isinstance(default, tuple) else default
        assert default == Parameters.model_fields[name].default, (function, name)


def test_hyperparameters_reach_the_trainer(trained):
    used = trained[1]["hyperparameters"]
    expected = {
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "seed": 42,
        "num_train_epochs": 1,
        "weight_decay": 0.0,
        "bf16": False,
        "adam_beta1": 0.9,
        "adam_beta2": 0.999,
        "adam_epsilon": 1e-08,
        "gradient_accumulation_steps": 1,
    }
    assert {name: used[name] for name in expected} == expected


@pytest.mark.parametrize("kind", KINDS)
def test_without_dropout_a_model_in_training_answers_alike(kind, once):
    folder = once(f"kind-{kind}", lambda made: write_tiny_kind(made, kind))
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    rates += ("embedding_dropout", "attention_dropout", "mlp_dropout")  # of ModernBERT
    model = load_cross_encoder(find_model(str(folder)))
    config = model.model.config
    for name in rates:
        if hasattr(config, name):
            setattr(config, name, 0.5)
    model[0].model = type(model.model)(config)
    features = model.preprocess([("怎么还款", "如何还款")])

    def answers():
        return [float(model.train()(dict(features))["scores"].detach()) for _ in range(4)]

    assert len(set(answers())) > 1
    remove_dropout(model)
    assert len(set(answers())) == 1


def test_training_changes_the_model_and_leaves_safetensors_log_and_lineage(trained, tiny_model):
    run, record, printed = trained
    assert "step 2/" in printed
    assert "pairs/s" in printed
    assert not same(run / "model", tiny_model)
    assert not (run / "checkpoints").exists()
    assert not list((run / "model").glob("*.bin"))
    assert read_lineage(find_model(str(run))) == [json.loads(json.dumps(record))]
    assert record["steps"] == int(np.ceil(len(read_split(run, "train")) / 8))
    log = read_training_log(run)
    assert log["loss"].notna().sum() >= 10
    assert log["dev_ap"].notna().sum() >= 10
    assert log["learning_rate"].dropna().is_monotonic_decreasing


def test_a_checkout_that_is_not_installed_trains_to_the_end(
    prepared, tmp_path, tiny_model, monkeypatch
):
    def version(name):
        if name == "reranker-workbench":
            raise metadata.PackageNotFoundError(name)
        return found(name)

    found = metadata.version
    monkeypatch.setattr(metadata, "version", version)
    shutil.copytree(prepared, tmp_path / "run")
    recipe = Recipe(max_length=32, max_steps=1)
    record = fine_tune(tmp_path / "run", find_model(str(tiny_model)), recipe)
    assert record["versions"]["Reranker Workbench"] == workbench.__version__


def test_the_result_loads_without_the_workbench_and_scores_the_same(trained):
    from sentence_transformers import CrossEncoder

    pairs = [("怎么开通会员", "如何办理会员"), ("a", "b"), ("怎么开通会员", "如何办理会员")]
    plain = CrossEncoder(str(trained[0] / "model"), max_length=64).predict(pairs)
    ours = ModelScorer.load(find_model(str(trained[0])), 64).score(pairs)
    assert ours.dtype == np.float32
    assert 1 / (1 + np.exp(-ours)) == pytest.approx(plain, abs=1e-6)
    assert ours[0] == ours[2]
    assert ModelScorer.load(find_model(str(trained[0]))).score([]).shape == (0,)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(trained, copied, tiny_model):
    for seed in (42, 43):
        fine_tune(copied, find_model(str(tiny_model)), RECIPE.model_copy(update={"seed": seed}))
        assert same(copied / "model", trained[0] / "model") == (seed == 42)


def test_a_second_stage_starts_from_the_first_and_knows_it(trained, copied):
    record = fine_tune(copied, find_model(str(trained[0])), RECIPE)
    stages = read_lineage(find_model(str(copied)))
    assert [stage["stage"] for stage in stages] == ["stage 1", "stage 2"]
    assert record["base"]["kind"] == "run"


def test_resume_keeps_a_finished_model_and_a_new_training_sets_it_aside(trained, tiny_model):
    run, record, _ = trained
    base = find_model(str(tiny_model))
    before = (run / "model/model.safetensors").stat().st_mtime_ns
    assert fine_tune(run, base, RECIPE, resume=True) == json.loads(json.dumps(record))
    assert (run / "model/model.safetensors").stat().st_mtime_ns == before
    fine_tune(run, base, RECIPE)
    (aside,) = (run / "earlier").iterdir()
    assert same(aside / "model", run / "model")
    assert (aside / "training_log.jsonl").is_file()


def test_an_interrupted_training_goes_on_from_its_checkpoint(trained, copied, tiny_model):
    with interrupted_at(8):
        fine_tune(copied, find_model(str(tiny_model)), RECIPE, checkpoint_steps=5)
    assert (copied / "checkpoints/stage-1/checkpoint-5").is_dir()
    assert not (copied / "model").exists()
    fine_tune(copied, find_model(str(tiny_model)), RECIPE, resume=True)
    assert same(copied / "model", trained[0] / "model")
    steps = read_training_log(copied).dropna(subset=["loss"])["step"]
    assert steps.is_monotonic_increasing
    assert steps.is_unique


def test_another_loss_trains_and_is_not_mixed_with_the_first(trained, copied, tiny_model):
    """The loop of notebook 2, with a loss of the library that a learner may put there."""
    run, base = copied, find_model(str(tiny_model))
    recipe = RECIPE.model_copy(update={"speed": "fast"})
    for resume, make_loss in ((False, weighted), (True, BinaryCrossEntropyLoss), (True, weighted)):
        training = Training(run, base, recipe, checkpoint_steps=5, resume=resume)
        stage = next(training.stages())
        if not resume:
            with pytest.raises(RuntimeError, match="stage 1 was not run"):
                list(training.stages())
        model = stage.start_model()
        trainer = stage.trainer(model, make_loss(model))
        assert isinstance(trainer, FastTrainer) == (make_loss is not weighted)
        if not resume:
            trainer.add_callback(StopAtOnce())
            trainer.train()
        elif make_loss is not weighted:
            with pytest.raises(ResumeError, match=r"pos_weight=2\.0.*, not .*pos_weight=None"):
                stage.run(trainer)
        else:
            stage.run(trainer)
    record = training.record()
    assert (record["loss"], record["speed"]) == ("BinaryCrossEntropyLoss", "exact")
    assert list(training.stages()) == []
    assert not same(run / "model", trained[0] / "model")
    log = read_training_log(run)
    assert log["step"].iloc[-1] == record["steps"] == trained[1]["steps"]
    assert (log["dev_loss"].dropna() > 0).all()  # the library's, of this very loss


class StopAtOnce(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = control.should_training_stop = True


def weighted(model):
    return BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(2.0))


def test_stages_follow_one_another_in_one_run(trained, tmp_path, tiny_model):
    """Three stages in one run are the same as three runs, each from the result of the last."""
    run, single = tmp_path / "run", tmp_path / "single"
    shutil.copytree(trained[0] / "data", run / "data")
    record = fine_tune(run, find_model(str(tiny_model)), RECIPE, stages="60,0,0", snapshots=2)
    lineage = read_lineage(find_model(str(run)))
    train = read_split(run, "train")
    assert [stage["pairs"] for stage in lineage] == [60, len(train), len(train)]
    assert [stage["steps"] for stage in lineage] == [8, *[-(-len(train) // 8)] * 2]
    assert [stage["parent"] for stage in lineage] == [str(tiny_model), "stage 1", "stage 2"]
    assert lineage[0]["pairs_sha256"] != lineage[1]["pairs_sha256"] == lineage[2]["pairs_sha256"]
    assert lineage[-1] == json.loads(json.dumps(record))
    assert [folder.name for folder in stage_folders(run)] == ["1", "2"]
    subject, lists = find_subject(run, "unused"), [CandidateList("a", ("b", "c"), (1.0, 0.0))]
    assert subject.base.name == str(tiny_model)
    scorers, _ = ladder_scorers(subject, lists, max_length=32)
    assert [name for name in scorers if name.startswith("stage")] == ["stage 1", "stage 2"]
    log = read_training_log(run)
    assert log["stage"].unique().tolist() == ["stage 1", "stage 2", "stage 3"]
    assert log.groupby("stage")["learning_rate"].max().min() > 0.8e-3  # a fresh schedule each
    snapshots = sorted((run / "snapshots").iterdir())
    steps = [read_json(folder / "snapshot.json")["step"] for folder in snapshots]
    assert steps == sorted(set(steps))
    assert steps[-1] == sum(stage["steps"] for stage in lineage)

    shutil.copytree(trained[0] / "data", single / "data")
    fine_tune(single, find_model(str(run / "stages/2")), RECIPE)
    assert same(single / "model", run / "model")
    assert not same(run / "stages/2", run / "model")


@pytest.mark.parametrize("text", ["2000,", "all", "1.5", "-1", "٣"])
def test_stages_must_be_whole_numbers(text):
    with pytest.raises(ValueError, match="whole numbers"):
        read_stages(text)
    assert read_stages(" 2000, 0,0 ") == (2000, 0, 0)
    assert read_stages("") == (0,)


@pytest.mark.parametrize(
    ("instructions", "gain", "quick"),
    [
        ({}, 9.0, "float32"),  # computed by detours: not even tried
        ({"avx512_bf16": True}, 2.5, "bfloat16"),
        ({"avx512_bf16": True}, 0.5, "float32"),  # there are such processors
        ({"bf16": True}, 2.5, "bfloat16"),
    ],
)
def test_precision_is_checked_and_auto_takes_what_the_processor_is_quick_in(
    instructions, gain, quick, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    monkeypatch.setattr("workbench.machine._gain_of_bfloat16", lambda: gain)
    assert Recipe(speed="fast").resolved_precision() == quick
    assert Recipe().resolved_precision() == "float32"  # exact is the library's, bit for bit
    assert Recipe(precision="bfloat16").resolved_precision() == "bfloat16"
    with pytest.raises(ValueError, match="'auto', 'float32', 'bfloat16' or 'float16'"):
        Recipe(precision="half")


def test_the_gain_of_bfloat16_is_measured_once(monkeypatch):
    _gain_of_bfloat16.cache_clear()
    gain = _gain_of_bfloat16()
    assert 0 < gain < 100
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("measured again"))
    assert _gain_of_bfloat16() == gain


@pytest.mark.parametrize("has", [True, False])
def test_on_a_gpu_auto_takes_what_the_gpu_has(has, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has)
    assert Recipe().resolved_precision() == ("bfloat16" if has else "float32")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")
@pytest.mark.parametrize("precision", ["auto", "float16"])
def test_a_gpu_trains_and_its_model_ranks_as_on_a_processor(precision, run, tiny_model):
    fine_tune(run, find_model(str(tiny_model)), RECIPE.model_copy(update={"precision": precision}))
    scorer, pairs = ModelScorer.load(find_model(str(run))), text_pairs(read_split(run, "test"))
    assert scorer.model.device.type == "cuda"
    found = scorer.score(pairs)
    expected = ModelScorer(scorer.model.to("cpu")).score(pairs)
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_new_head_is_the_same_for_the_same_seed():
    pairs = [("a", "b"), ("怎么", "如何")]
    base = find_model("bundled:all-MiniLM-L6-v2")
    scores = [ModelScorer(load_cross_encoder(base, 64, seed)).score(pairs) for seed in (1, 1, 2)]
    assert (scores[0] == scores[1]).all()
    assert (scores[0] != scores[2]).any()


def test_someone_watches_in_jupyterlab_only(monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    assert not watched()
    monkeypatch.setenv("JPY_SESSION_NAME", "notebook.ipynb")
    assert watched()


def test_a_half_written_log_line_is_left_out(tmp_path):
    log = TrainingLog(tmp_path, "stage 1")
    for step in (1, 2, 3):
        log.append({"step": step, "steps": 3, "loss": 1 / step})
    with log.path.open("a") as file:
        file.write('{"stage": "stage 1", "st')
    assert read_training_log(tmp_path)["step"].tolist() == [1, 2, 3]
    log.rewind(2)
    assert read_training_log(tmp_path)["step"].tolist() == [1, 2]
    with pytest.raises(FileNotFoundError, match="02_fine_tune"):
        read_training_log(tmp_path / "none")


def log_of(losses, **columns):
    """A log with a row a step; `columns` hold a value for all rows, or one for each."""
    rows = {"stage": "stage 1", "step": range(1, len(losses) + 1), "steps": len(losses)}
    rows |= {"epoch": 0.5, "learning_rate": 0.1, "grad_norm": 2.0, "constant_loss": 0.4337}
    rows |= {"loss": losses, "dev_loss": np.nan, "dev_ap": 0.5, "dev_pairs": 400}
    return pd.DataFrame(rows | {"dev_positives": 100} | columns)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([0.6, 0.5, 0.4, 0.45, 0.43, 0.44], "cannot be told apart, within the noise"),
        ([0.6, 0.5, 0.4, 0.21, 0.2, 0.19], "That is below the 0.4337 of a model that gives every"),
        ([0.3, 0.2, 0.1, 0.61, 0.6, 0.59], "That is above the 0.4337"),  # first against last fell
    ],
)
def test_the_loss_is_compared_with_a_constant_answer(losses, said):
    text = findings.loss(log_of(losses))
    assert said in text
    assert "running" not in text
    assert "cannot tell" in text
    assert "0.4337" not in findings.loss(log_of(losses, constant_loss=np.nan))
    assert "(running: step 6 of 9)" in findings.loss(log_of(losses, steps=9))
    assert "running" not in findings.loss(log_of(losses, steps=6.5))  # logged every step, all taken


@pytest.mark.parametrize(
    ("epoch", "pairs", "last", "said"),
    [
        (1.5, 400, 0.9, "has begun to memorise"),
        (0.9, 400, 0.9, "is 0.9000 now; no pair has been seen twice so far"),
        (1.5, 40, 0.9, "is 0.9000 now; 40 dev pairs are too few to say why"),
        (1.5, 400, 0.401, "lowest at step 2 (0.4000)."),
    ],
)
def test_a_rise_on_dev_is_memorising_only_where_it_can_be(epoch, pairs, last, said):
    log = log_of([0.5] * 3, dev_loss=[0.5, 0.4, last], epoch=epoch, dev_pairs=pairs)
    text = findings.loss(log)
    assert said in text
    assert ("memorise" in text) == ("memorise" in said)


def test_what_the_dev_scores_and_gradients_say_in_words():
    log = log_of([0.5] * 3, grad_norm=[1, 2, 3], dev_ap=[0.2, 0.6, 0.4])
    assert "67 % of them were above 1, where it is clipped" in findings.gradient(log, {})
    for limit, words in ((2.5, "33 % of them were above 2.5"), (0.0, "it is not clipped")):
        assert words in findings.gradient(log, {"hyperparameters": {"max_grad_norm": limit}})
    text = findings.dev(log, {})
    assert "is 0.400; guessing has 0.250" in text
    assert "best value so far is 0.600, at step 2" in text
    text = findings.dev_ndcg(log.assign(dev_ndcg=[0.7, 0.2, 0.4], dev_lists=60))
    assert (
        "At step 3 nDCG@10 on 60 dev lists is 0.400. The best value so far is 0.700, at step 1"
        in text
    )
    assert "has no nDCG@10" in findings.dev_ndcg(log.assign(dev_ndcg=np.nan))
    empty = log.assign(grad_norm=np.nan, dev_ap=np.nan)
    assert "No gradient norm" in findings.gradient(empty, {})
    assert "No average precision" in findings.dev(empty, {})


def test_the_figures_hold_the_lines_of_a_constant_answer_and_of_guessing():
    log = log_of([0.5, 0.4])
    (line,) = loss_curve({"a": log}).collections
    assert line.get_segments()[0][:, 1].tolist() == [0.4337] * 2
    assert not loss_curve({"a": log.assign(constant_loss=np.nan)}).collections
    levels = [line.get_ydata()[0] for line in log_values({"a": log}, "dev_ap", "AP").lines]
    assert 0.25 in levels


def test_a_constant_answer_costs_the_entropy_of_the_labels():
    assert constant_loss(pd.DataFrame({"label": [1.0, 0, 0, 0]})) == pytest.approx(0.562335)
    assert constant_loss(pd.DataFrame({"label": [0.0, 0]})) == pytest.approx(0, abs=1e-9)


@pytest.fixture
def copied(trained, tmp_path):
    """The data of `trained` in a new run folder."""
    shutil.copytree(trained[0] / "data", tmp_path / "copied/data")
    return tmp_path / "copied"


def test_a_loss_that_is_not_finite_stops_the_training(copied, tiny_model, monkeypatch):
    """A learning rate that makes the weights leave the numbers, and one that a loss shows first."""
    base = find_model(str(tiny_model))
    poison = [5, "loss"]

    def step(self, model, inputs, *args, plain=ResumableTrainer.compute_loss, **kwargs):
        if poison[1] == "weights" and self.state.global_step == poison[0]:
            next(iter(model.parameters())).data[-1] = torch.nan  # a token no batch has
        loss = plain(self, model, inputs, *args, **kwargs)
        return loss * torch.nan if poison == [self.state.global_step, "loss"] else loss

    monkeypatch.setattr(ResumableTrainer, "compute_loss", step)
    said = r"stage 1: the loss is nan after step 5 of \d+: .* checkpoint of step 4 is whole"
    with pytest.raises(DivergedError, match=said):
        fine_tune(copied, base, RECIPE, checkpoint_steps=2)
    assert (copied / "checkpoints/stage-1/checkpoint-4").is_dir()
    assert not (copied / "model").exists()
    poison[1] = "weights"
    with pytest.raises(DivergedError, match=r"embeddings\.weight are not finite after step 6"):
        fine_tune(copied, base, RECIPE, resume=True, checkpoint_steps=2)
    assert not (copied / "checkpoints/stage-1/checkpoint-6").exists()
    poison[0] = -1
    assert fine_tune(copied, base, RECIPE, resume=True, checkpoint_steps=2)["steps"] > 6


@pytest.mark.parametrize(
    ("minimum", "keep", "metric"),
    [(1, "best", "ap"), (1, "best", "ndcg@10"), (1, "last", "ap"), (50, "best", "ndcg@10")],
)
def test_the_best_model_on_dev_is_saved_where_dev_can_tell(
    minimum, keep, metric, copied, tiny_model, monkeypatch
):
    """Its score is that of the log, after a kill too."""
    monkeypatch.setattr("workbench.training.trainer.MIN_DEV", minimum)
    chosen_by = {"keep_model": keep, "metric_for_best_model": metric}
    more = {"early_stopping_patience": 3, "epochs": 5}
    base, recipe = find_model(str(tiny_model)), RECIPE.model_copy(update=chosen_by | more)
    record = fine_tune(copied, base, recipe, checkpoint_steps=3)
    log, dev = read_training_log(copied), read_split(copied, "dev")
    ranked = (minimum, metric) == (1, "ndcg@10")
    column = "dev_ndcg" if ranked else "dev_ap"
    rows, text = log.dropna(subset=["dev_ap"]), findings.kept(record)
    best = rows.loc[rows[column].idxmax()]
    chosen = best if (minimum, keep) == (1, "best") else rows.iloc[-1]
    scorer = ModelScorer.load(find_model(str(copied)), 64)
    ap = pair_metrics(scorer.score(text_pairs(dev)), list(dev["label"]))["ap"]
    assert ap == pytest.approx(chosen["dev_ap"])
    assert rows["dev_ndcg"].notna().all() == ranked
    if ranked:
        lists = build_test(dev, LIST_SIZE, recipe.seed).lists[:MAX_LISTS]
        found = rank_lists(score_lists(scorer, lists), lists, "expected")["ndcg@10"]
        assert found.mean() == pytest.approx(chosen["dev_ndcg"])
        assert rows["dev_lists"].unique() == [len(lists)]
        assert "which had the best nDCG@10 on" in text
    assert record["kept"]["model"] == ("last" if chosen is not best else "best")
    if minimum == 50:
        assert record["steps"] == record["planned_steps"]
        assert "takes 50 dev pairs of each class, not 2 positive" in text
        return
    assert record["steps"] < record["planned_steps"]
    assert (rows["step"] > best["step"]).sum() == 3
    assert "it ended early" in text
    assert (f"of step {int(best['step']):,}, which had the best" in text) == (keep == "best")
    before = (copied / "model/model.safetensors").read_bytes()
    for place in ("training.log.TrainingLog.append", "training.stages.save_model"):
        shutil.rmtree(copied / "model")

        def killed(*args, append=TrainingLog.append):
            if len(args) == 2:
                append(*args)
            if len(args) == 3 or args[1]["step"] > best["step"]:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f"workbench.{place}", killed)
            with pytest.raises(KeyboardInterrupt):
                fine_tune(copied, base, recipe, checkpoint_steps=3)
        again = fine_tune(copied, base, recipe, checkpoint_steps=3, resume=True)
        assert (copied / "model/model.safetensors").read_bytes() == before
        assert (again["steps"], again["kept"]) == (record["steps"], record["kept"])
        pd.testing.assert_frame_equal(
            read_training_log(copied).drop(columns="seconds"), log.drop(columns="seconds")
        )


def test_a_dev_split_of_one_class_costs_no_training(copied, tiny_model):
    """Average precision is not defined there; a small file often has such a split."""
    dev = copied / "data" / "dev.parquet"
    pd.read_parquet(dev).assign(label=0.0).to_parquet(dev)
    record = fine_tune(copied, find_model(str(tiny_model)), RECIPE)
    log = read_training_log(copied)
    assert log["dev_loss"].notna().any()
    assert log["dev_ap"].isna().all()
    assert log.dropna(subset=["dev_loss"])["dev_positives"].eq(0).all()
    assert not any("dev_ap" in row for row in record["log"])
    assert "of one class" in findings.dev(log, record)


def test_scoring_dev_does_not_change_the_training(trained, copied, tiny_model, monkeypatch):
    """The weights are the same with pairs and lists of dev, more of them, and without a dev split.

    So they are for any number of evaluations.
    """
    base, dev = find_model(str(tiny_model)), copied / "data/dev.parquet"
    with monkeypatch.context() as patch:
        patch.setattr("workbench.training.trainer.MIN_DEV", 1)
        fine_tune(copied, base, RECIPE.model_copy(update={"keep_model": "last", "eval_steps": 2}))
    assert read_training_log(copied)["dev_ndcg"].notna().sum() >= 8
    assert same(copied / "model", trained[0] / "model")
    assert {"eval_strategy", "eval_steps"} < set(trained[1]["non_default"])
    pd.read_parquet(dev).head(0).to_parquet(dev)
    record = fine_tune(copied, base, RECIPE)
    assert same(copied / "model", trained[0] / "model")
    assert not {"eval_strategy", "eval_steps"} & set(record["non_default"])


def test_predict_gives_probabilities_after_cross_entropy(copied, tiny_model, tmp_path):
    """Also where the base gave logits."""
    from sentence_transformers import CrossEncoder

    config = tmp_path / "base/config.json"
    shutil.copytree(tiny_model, config.parent)
    text = json.loads(config.read_text())
    text["sentence_transformers"] = {"activation_fn": "torch.nn.modules.linear.Identity"}
    config.write_text(json.dumps(text))
    record = fine_tune(copied, find_model(str(config.parent)), RECIPE)
    pairs = [("怎么开通会员", "如何办理会员"), ("a", "b")]
    logits = ModelScorer.load(find_model(str(copied)), 64).score(pairs)
    found = CrossEncoder(str(copied / "model"), max_length=64).predict(pairs)
    assert found == pytest.approx(1 / (1 + np.exp(-logits)), abs=1e-6)
    assert record["activation"] == "Sigmoid"
    assert "gives probabilities" in findings.scores(record)


def test_what_cannot_be_learned_is_refused_before_anything_moves(trained, copied, tiny_model):
    base, train = find_model(str(tiny_model)), copied / "data/train.parquet"
    with pytest.raises(DataError, match="01_inspect_data"):
        fine_tune(copied / "none", base)
    (copied / "training_log.jsonl").write_text("")
    pairs = pd.read_parquet(train)
    pairs.assign(label=1.0).to_parquet(train)
    with pytest.raises(DataError, match=r"training pairs are all positive: add pairs with label 0"):
        fine_tune(copied, base, RECIPE)
    pairs.assign(label=np.linspace(0, 0.4, len(pairs))).to_parquet(train)
    with pytest.raises(DataError, match="all negative: add pairs with label 1"):
        fine_tune(copied, base, RECIPE.model_copy(update={"hard_negatives": 1}))
    pairs.to_parquet(train)
    folder = copied / "unigram"
    shutil.copytree(tiny_model, folder)
    Tokenizer(Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0)).save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match="Unigram"):
        fine_tune(
            copied, find_model(str(folder)), RECIPE.model_copy(update={"vocabulary": "extend"})
        )
    assert not (copied / "earlier").exists()


def test_stages_follow_one_another_in_the_figure():
    log = pd.DataFrame({"stage": ["a", "a", "b"], "step": [1, 2, 1], "steps": [2, 2, 5]})
    assert running_step(log).tolist() == [1, 2, 3]


def test_the_card_tells_what_is_known_and_what_is_not(trained):
    run = trained[0]
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    text = write_card(run).read_text(encoding="utf-8")
    assert "nothing may be claimed" in text
    assert "unknown to the model's vocabulary" in text
    assert "`batch_size`: 8" in text
    assert read_json(run / "data/manifest.json")["sha256"] in text
    from huggingface_hub import ModelCard

    assert ModelCard(text).data.pipeline_tag == "text-ranking"
