import json
import shutil
import time

import numpy as np
import pandas as pd
import pytest

from workbench.data.splits import DataError, prepare_data, read_split
from workbench.files import read_json
from workbench.machine import _gain_of_bfloat16
from workbench.models import find_model, read_lineage
from workbench.ranking.ladder import find_snapshots, find_subject, stage_models
from workbench.reports import findings
from workbench.reports.figures.training import running_step
from workbench.reports.model_card import write_card
from workbench.run_folder import stage_folders
from workbench.scoring.cross_encoder import ModelScorer, load_cross_encoder
from workbench.training.log import TrainingLog, read_training_log
from workbench.training.recipe import Recipe, read_stages
from workbench.training.stages import fine_tune
from workbench.training.trainer import logging_steps, watched

RECIPE = Recipe(max_length=64, learning_rate=1e-3, epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model):
    """A run of one short stage, and the record that training returned."""
    run = tmp_path_factory.mktemp("runs") / "trained"
    prepare_data(run, "data/sample_pairs.csv", max_pairs=200, test_share=0.2)
    return run, fine_tune(run, find_model(str(tiny_model)), RECIPE)


def same(first, second):
    """Whether two model folders hold equal weights."""
    return (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("steps", "every"), [(1, 1), (9, 1), (175, 10), (2500, 250), (5000, 500), (12154, 500)]
)
def test_logging_every_500_steps_or_ten_times_a_run(steps, every):
    assert logging_steps(steps) == every


def test_defaults_are_those_of_the_reference_card():
    assert Recipe() == Recipe(512, 1.0, 8, 5e-5, "auto", 42)


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


def test_training_changes_the_model_and_leaves_safetensors_log_and_lineage(trained, tiny_model):
    run, record = trained
    assert not same(run / "model", tiny_model)
    assert not (run / "checkpoints").exists()
    assert not list((run / "model").glob("*.bin"))
    assert read_lineage(find_model(str(run))) == [json.loads(json.dumps(record))]
    assert record["steps"] == int(np.ceil(len(read_split(run, "train")) / 8))
    log = read_training_log(run)
    assert log["loss"].notna().sum() >= 10
    assert log["dev_ap"].notna().sum() >= 10
    assert log["learning_rate"].dropna().is_monotonic_decreasing


def test_the_result_loads_without_the_workbench_and_scores_the_same(trained):
    from sentence_transformers import CrossEncoder

    pairs = [("怎么开通会员", "如何办理会员"), ("a", "b"), ("怎么开通会员", "如何办理会员")]
    plain = CrossEncoder(str(trained[0] / "model"), max_length=64).predict(pairs)
    ours = ModelScorer.load(find_model(str(trained[0])), 64).score(pairs)
    assert ours.dtype == np.float32
    assert 1 / (1 + np.exp(-ours)) == pytest.approx(plain, abs=1e-6)
    assert ours[0] == ours[2]
    assert ModelScorer.load(find_model(str(trained[0]))).score([]).shape == (0,)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    trained, tmp_path, tiny_model
):
    run, _ = trained
    for name, seed in (("again", 42), ("other", 43)):
        shutil.copytree(run / "data", tmp_path / name / "data")
        fine_tune(
            tmp_path / name,
            find_model(str(tiny_model)),
            Recipe(max_length=64, learning_rate=1e-3, seed=seed),
        )
    assert same(tmp_path / "again/model", run / "model")
    assert not same(tmp_path / "other/model", run / "model")


def test_a_second_stage_starts_from_the_first_and_knows_it(trained, tmp_path):
    shutil.copytree(trained[0] / "data", tmp_path / "next/data")
    record = fine_tune(tmp_path / "next", find_model(str(trained[0])), RECIPE)
    stages = read_lineage(find_model(str(tmp_path / "next")))
    assert [stage["stage"] for stage in stages] == ["stage 1", "stage 2"]
    assert record["base"]["kind"] == "run"


def test_resume_keeps_a_finished_model_and_a_new_training_sets_it_aside(trained, tiny_model):
    run, record = trained
    base = find_model(str(tiny_model))
    before = (run / "model/model.safetensors").stat().st_mtime_ns
    assert fine_tune(run, base, RECIPE, resume=True) == json.loads(json.dumps(record))
    assert (run / "model/model.safetensors").stat().st_mtime_ns == before
    fine_tune(run, base, RECIPE)
    (aside,) = (run / "earlier").iterdir()
    assert same(aside / "model", run / "model")
    assert (aside / "training_log.jsonl").is_file()


def test_an_interrupted_training_goes_on_from_its_checkpoint(
    trained, tmp_path, tiny_model, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "data", run / "data")

    def stop(self, row, append=TrainingLog.append):
        append(self, row)
        if row["step"] >= 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(run, find_model(str(tiny_model)), RECIPE, checkpoint_steps=5)
    assert (run / "checkpoints/stage-1/checkpoint-5").is_dir()
    assert not (run / "model").exists()
    fine_tune(run, find_model(str(tiny_model)), RECIPE, resume=True)
    assert same(run / "model", trained[0] / "model")
    steps = read_training_log(run).dropna(subset=["loss"])["step"]
    assert steps.is_monotonic_increasing
    assert steps.is_unique


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
    assert list(stage_models(run)) == ["stage 1", "stage 2"]
    assert find_subject(run, "unused").base.name == str(tiny_model)
    log = read_training_log(run)
    assert log["stage"].unique().tolist() == ["stage 1", "stage 2", "stage 3"]
    assert log.groupby("stage")["learning_rate"].max().min() > 0.8e-3  # a fresh schedule each
    steps = [read_json(folder / "snapshot.json")["step"] for folder in find_snapshots(run)]
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


def test_without_data_nothing_is_trained(tmp_path, tiny_model):
    with pytest.raises(DataError, match="01_inspect_data"):
        fine_tune(tmp_path, find_model(str(tiny_model)))


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
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
    monkeypatch.setattr("workbench.machine._gain_of_bfloat16", lambda: gain)
    assert Recipe(speed="fast").resolved_precision() == quick
    assert Recipe().resolved_precision() == "float32"  # exact is the library's, bit for bit
    assert Recipe(precision="bfloat16").resolved_precision() == "bfloat16"
    with pytest.raises(ValueError, match="'half' is none of"):
        Recipe(precision="half").resolved_precision()


def test_the_gain_of_bfloat16_is_measured_once(monkeypatch):
    _gain_of_bfloat16.cache_clear()
    gain = _gain_of_bfloat16()
    assert 0 < gain < 100
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("measured again"))
    assert _gain_of_bfloat16() == gain


@pytest.mark.parametrize("has", [True, False])
def test_on_a_gpu_auto_takes_what_the_gpu_has(has, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has)
    assert Recipe().resolved_precision() == ("bfloat16" if has else "float32")


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


def test_batch_prints_plain_lines(trained, tmp_path, tiny_model, capsys):
    shutil.copytree(trained[0] / "data", tmp_path / "run/data")
    fine_tune(tmp_path / "run", find_model(str(tiny_model)), RECIPE)
    out = capsys.readouterr().out
    assert "step 2/" in out
    assert "pairs/s" in out


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


def test_what_the_loss_says_in_words(tmp_path):
    log = TrainingLog(tmp_path, "stage 1")
    for step, loss, dev in ((1, 0.5, 0.5), (2, 0.3, 0.4), (3, 0.1, 0.9)):
        log.append(
            {
                "step": step,
                "steps": 4,
                "loss": loss,
                "grad_norm": step,
                "dev_loss": dev,
                "learning_rate": 1 / step,
                "dev_ap": loss,
            }
        )
    frame = read_training_log(tmp_path)
    text = findings.loss(frame)
    assert "fell from 0.5000 to 0.1000 (running: step 3 of 4)" in text
    assert "begun to memorise" in text
    assert "cannot tell" in text
    assert "67% of them were above 1" in findings.gradient(frame)
    manifest = {"sides": {"dev": {"positives": 1, "pairs": 4}}}
    assert "guessing has 0.250" in findings.dev(frame, manifest)
    empty = frame.assign(grad_norm=np.nan, dev_ap=np.nan)
    assert "No gradient norm" in findings.gradient(empty)
    assert "No average precision" in findings.dev(empty, manifest)


def test_stages_follow_one_another_in_the_figure():
    log = pd.DataFrame({"stage": ["a", "a", "b"], "step": [1, 2, 1], "steps": [2, 2, 5]})
    assert running_step(log).tolist() == [1, 2, 3]


def test_the_card_tells_what_is_known_and_what_is_not(trained):
    run = trained[0]
    shutil.rmtree(run / "evaluation", ignore_errors=True)
    text = write_card(run).read_text(encoding="utf-8")
    assert "nothing may be claimed" in text
    assert "not inspected yet" in text
    assert "`per_device_train_batch_size`: 8" in text
    assert read_json(run / "data/manifest.json")["sha256"] in text
    from huggingface_hub import ModelCard

    assert ModelCard(text).data.pipeline_tag == "text-ranking"
