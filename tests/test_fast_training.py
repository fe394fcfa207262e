"""Fast training: the library's gradients, updates and checkpoints, made another way."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.backends import pair_encoder
from workbench.bert_training import MOST_PADDING, BertGradients, _Share, filled_up
from workbench.fast_trainer import FastTrainer, can_train_fast
from workbench.logs import TrainingLog, read_training_log
from workbench.models import find_model
from workbench.recipes import Recipe
from workbench.resumable import ResumableTrainer
from workbench.scoring import load_cross_encoder
from workbench.splits import prepare_data
from workbench.trainer import make_trainer
from workbench.training import fine_tune

FAST = Recipe(max_length=32, learning_rate=1e-3, batch_size=16, speed="fast", precision="float32")


@pytest.fixture
def model(tiny_model):
    return load_cross_encoder(find_model(str(tiny_model)), 32)


@pytest.fixture
def threads():
    """Three threads, which share 26 pairs unevenly."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def gradients_of(model, sample, dtype, seed=(1, 2)):
    """Gradients by name, those of the token embeddings in a matrix of the model's shape."""
    rows = sample.head(26)
    pairs = pair_encoder(model).encode(list(zip(rows.sentence_0, rows.sentence_1, strict=True)))
    ids = np.unique([token for place in range(26) for token in pairs.row(place)[0]])
    own = BertGradients(model.model, ids, dtype)
    loss = own.step(pairs, torch.tensor(rows.label.to_numpy(), dtype=torch.float32), seed)
    names = {parameter: name for name, parameter in model.model.named_parameters()}
    found = {names[one]: one.grad for one in own.learned if one is not own.tokens}
    whole = torch.zeros_like(own.matrix)
    whole[own.token_ids] = own.tokens.grad
    return loss, found | {"bert.embeddings.word_embeddings.weight": whole}


def plain_gradients(model, sample):
    rows = sample.head(26)
    tokens = model.tokenizer(
        list(rows.sentence_0), list(rows.sentence_1), padding=True, truncation=True,
        max_length=32, return_tensors="pt",
    )  # fmt: skip
    model.model.zero_grad()
    logits = model.model(**tokens).logits[:, 0]
    labels = torch.tensor(rows.label.to_numpy(), dtype=torch.float32)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    loss.backward()
    return loss, {name: one.grad.clone() for name, one in model.model.named_parameters()}


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_gradients_are_those_of_the_library(model, sample, threads, dtype, within):
    without_dropout(model).train()
    with torch.no_grad():  # fresh weights attend to everything alike, and nothing is learned there
        for parameter in model.parameters():
            parameter *= 10 if parameter.dim() == 2 else 1
    loss, plain = plain_gradients(model, sample)
    own_loss, own = gradients_of(model, sample, dtype)
    assert torch.isclose(own_loss, loss, rtol=within, atol=0)
    assert own.keys() == plain.keys()
    for name, gradient in plain.items():
        if "key.bias" in name:  # softmax takes no notice of it: its gradient is rounding alone
            continue
        assert gradient.norm() > 1e-4, name
        assert (own[name] - gradient).norm() < within * gradient.norm(), name


def test_dropout_is_random_seeded_and_right_on_average(model, sample, threads):
    model.train()
    first, again, other = (
        gradients_of(model, sample, torch.float32, seed)[1] for seed in ([1, 1], [1, 1], [1, 2])
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    without_dropout(model)
    exact = gradients_of(model, sample, torch.float32)[1]["classifier.bias"]
    assert not torch.equal(first["classifier.bias"], exact)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    part = _Share.__new__(_Share)
    part.generator = torch.Generator().manual_seed(0)
    dropped = part.dropout(torch.ones(1000, 333), share)
    rate = (dropped == 0).float().mean().item()
    assert rate == pytest.approx(share, abs=4 * (share * (1 - share) / 333_000) ** 0.5)
    kept = dropped[dropped != 0].unique()
    assert kept.numel() == 1
    assert kept.item() == pytest.approx(1 / (1 - share), rel=1e-4)
    columns = (dropped == 0).float().mean(0)
    assert columns.std().item() == pytest.approx((share * (1 - share) / 1000) ** 0.5, rel=0.2)


def train(model, sample, folder, kind, recipe=FAST):
    rows = sample.head(70)[["sentence_0", "sentence_1", "label"]].reset_index(drop=True)
    log = TrainingLog(folder, "stage 1")
    trainer = make_trainer(model, folder / "checkpoints", rows, rows.head(20), recipe, log)
    assert type(trainer) is kind
    trainer.train()
    return trainer


def test_a_training_is_that_of_the_library(tiny_model, sample, tmp_path):
    """Without dropout: the same batches, the same updates, the same log."""
    models = {}
    for speed, kind in (("fast", FastTrainer), ("exact", ResumableTrainer)):
        model = without_dropout(load_cross_encoder(find_model(str(tiny_model)), 32))
        before = model.model.bert.embeddings.word_embeddings.weight.detach().clone()
        folder = tmp_path / speed
        folder.mkdir()
        trainer = train(model, sample, folder, kind, replace(FAST, speed=speed))
        models[kind] = model, trainer, read_training_log(folder)
    (fast, trainer, log), (plain, _, plain_log) = models.values()
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=2e-5)
    after = fast.model.bert.embeddings.word_embeddings.weight
    others = np.setdiff1d(np.arange(len(before)), trainer.gradients.token_ids)
    assert len(others)
    assert torch.equal(after[others], before[others])
    assert not torch.equal(after, before)
    assert list(log.columns) == list(plain_log.columns)
    numbers = ["loss", "grad_norm", "learning_rate", "dev_loss", "dev_ap"]
    pd.testing.assert_frame_equal(log[numbers], plain_log[numbers], atol=1e-4, rtol=1e-3)


def test_resuming_gives_the_same_bytes(tmp_path, tiny_model, monkeypatch):
    prepare_data(tmp_path / "whole", "data/sample_pairs.csv", max_pairs=100, test_share=0.2)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    base = find_model(str(tiny_model))
    fine_tune(tmp_path / "whole", base, FAST, checkpoint_steps=2)
    plain = FastTrainer.training_step

    def failing(self, *args, **kwargs):
        if self.state.global_step == 3:
            raise RuntimeError("power cut")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(FastTrainer, "training_step", failing)
    with pytest.raises(RuntimeError, match="power cut"):
        fine_tune(tmp_path / "cut", base, FAST, checkpoint_steps=2)
    monkeypatch.setattr(FastTrainer, "training_step", plain)
    fine_tune(tmp_path / "cut", base, FAST, resume=True, checkpoint_steps=2)
    whole, cut = (tmp_path / name / "model" / "model.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_numbers_of_tokens_are_few_and_little_is_filled_up():
    filled = [filled_up(tokens) for tokens in range(1, 4097)]
    assert all(n <= f <= n * 1.125 for n, f in enumerate(filled, 1))
    assert len({f for f in filled if 1024 < f <= 2048}) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_share_holds_every_token_once_and_little_padding(model, sample, dtype):
    rows = sample.head(26)
    pairs = pair_encoder(model).encode(list(zip(rows.sentence_0, rows.sentence_1, strict=True)))
    own = BertGradients(model.model, np.arange(len(model.tokenizer)), dtype)
    order = np.argsort(-pairs.lengths, kind="stable")
    share = _Share(own, pairs, order, torch.arange(26), (1, 2))
    assert sum(share.sizes) == len(share.ids) == len(share.types) == len(share.positions)
    padded = sum(share.sizes[:-1])
    assert share.sizes[-1] == (filled_up(padded) - padded if dtype == torch.bfloat16 else 0)
    assert pairs.lengths.sum() <= padded <= pairs.lengths.sum() / (1 - MOST_PADDING)
    assert len(share.blocks) > 1
    for row, first, label in zip(order, share.firsts, share.labels, strict=True):
        ids, types = pairs.row(row)
        place = slice(first, first + len(ids))
        assert share.ids[place].tolist() == ids
        assert share.types[place].tolist() == types
        assert share.positions[place].tolist() == list(range(len(ids)))
        assert label == row


def test_other_models_train_as_the_library_does(model, monkeypatch):
    assert can_train_fast(model)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not can_train_fast(model)
    monkeypatch.delenv("WORLD_SIZE")
    model.model.config.num_labels = 2
    assert not can_train_fast(model)
