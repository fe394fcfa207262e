"""Fast training: the library's gradients, updates and checkpoints, made another way."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from tests.conftest import interrupted_at
from workbench.data.pairs import prepare_data
from workbench.data.texts import text_pairs
from workbench.engine.bert import BertGradients, Dropout, shares
from workbench.engine.packing import EncodedPairs
from workbench.models import find_model
from workbench.reports import findings
from workbench.scoring.backends import pair_encoder
from workbench.scoring.cross_encoder import load_cross_encoder
from workbench.training.log import TrainingLog, read_training_log
from workbench.training.recipe import Recipe
from workbench.training.stages import fine_tune
from workbench.training.trainer import FastTrainer, ResumableTrainer, make_trainer, why_not_fast

FAST = Recipe(max_length=32, learning_rate=1e-3, batch_size=16, speed="fast", precision="float32")

DRAWS = 400  # of dropout: so the spread is known to a tenth


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


def louder(model):
    """Fresh weights attend to everything alike, and nothing is learned there."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 10 if parameter.dim() == 2 else 1
    return model


def gradients_of(model, rows, dtype, seed=(1, 2)):
    """Gradients by name, those of the token embeddings in a matrix of the model's shape."""
    pairs = pair_encoder(model).encode(text_pairs(rows))
    own = BertGradients(model.model, np.unique(pairs.ids), dtype)
    loss = own.step(pairs, torch.tensor(rows.label.to_numpy(), dtype=torch.float32), seed)
    names = {parameter: name for name, parameter in model.model.named_parameters()}
    found = {names[one]: one.grad for one in own.learned if one is not own.tokens}
    whole = torch.zeros_like(own.matrix)
    whole[own.token_ids] = own.tokens.grad
    return loss, found | {"bert.embeddings.word_embeddings.weight": whole}


def plain_gradients(model, rows):
    tokens = model.tokenizer(
        list(rows.sentence_0),
        list(rows.sentence_1),
        padding=True,
        truncation=True,
        max_length=32,
        return_tensors="pt",
    )
    model.model.zero_grad()
    logits = model.model(**tokens).logits[:, 0]
    labels = torch.tensor(rows.label.to_numpy(), dtype=torch.float32)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    loss.backward()
    return loss, {name: one.grad.clone() for name, one in model.model.named_parameters()}


@pytest.mark.parametrize("count", [26, 5], ids=["shares", "too few for shares"])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_gradients_are_those_of_the_library(model, sample, threads, dtype, within, count):
    louder(without_dropout(model)).train()
    loss, plain = plain_gradients(model, sample.head(count))
    own_loss, own = gradients_of(model, sample.head(count), dtype)
    assert torch.isclose(own_loss, loss, rtol=within, atol=0)
    assert own.keys() == plain.keys()
    for name, gradient in plain.items():
        if "key.bias" in name:  # softmax takes no notice of it: its gradient is rounding alone
            continue
        assert gradient.norm() > 1e-4, name
        assert (own[name] - gradient).norm() < within * gradient.norm(), name


def test_dropout_is_random_and_seeded(model, sample, threads):
    model.train()
    rows = sample.head(26)
    first, again, other = (
        gradients_of(model, rows, torch.float32, seed)[1] for seed in ([1, 1], [1, 1], [1, 2])
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])
    without_dropout(model)
    exact = gradients_of(model, rows, torch.float32)[1]["classifier.bias"]
    assert not torch.equal(first["classifier.bias"], exact)


def test_with_dropout_gradients_have_the_mean_and_spread_of_the_librarys(model, sample, threads):
    louder(model).train()
    rows = sample.head(26)
    torch.manual_seed(1)
    found = {}
    for name, draws in (
        ("ours", [gradients_of(model, rows, torch.float32, (1, n))[1] for n in range(DRAWS)]),
        ("theirs", [plain_gradients(model, rows)[1] for _ in range(DRAWS)]),
    ):
        stacked = {key: torch.stack([draw[key] for draw in draws]) for key in draws[0]}
        found[name] = {key: (x.mean(0), x.var(0).sum()) for key, x in stacked.items()}
    for key, (mean, variance) in found["ours"].items():
        if "key.bias" in key:
            continue
        their_mean, their_variance = found["theirs"][key]
        assert variance == pytest.approx(their_variance.item(), rel=0.25), key
        apart = (mean - their_mean).square().sum()
        assert apart < 6 * (variance + their_variance) / DRAWS, key  # by chance 1 on average


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(share):
    dropped = Dropout((0,))(torch.ones(1000, 333), share)
    rate = (dropped == 0).float().mean().item()
    assert rate == pytest.approx(share, abs=4 * (share * (1 - share) / 333_000) ** 0.5)
    kept = dropped[dropped != 0].unique()
    assert kept.numel() == 1
    assert kept.item() == pytest.approx(1 / (1 - share), rel=1e-4)
    columns = (dropped == 0).float().mean(0)
    assert columns.std().item() == pytest.approx((share * (1 - share) / 1000) ** 0.5, rel=0.2)


def train(model, sample, folder, kind, recipe=FAST):
    rows = sample.head(70)
    log = TrainingLog(folder, "stage 1")
    trainer = make_trainer(model, folder / "checkpoints", rows, rows.head(20), recipe, log)
    assert type(trainer) is kind
    trainer.train()
    return trainer


def test_a_training_is_that_of_the_library(tiny_model, sample, tmp_path, threads):
    """Without dropout: the same batches, the same updates, the same log."""
    models = {}
    for speed, kind in (("fast", FastTrainer), ("exact", ResumableTrainer)):
        model = without_dropout(load_cross_encoder(find_model(str(tiny_model)), 32))
        before = model.model.bert.embeddings.word_embeddings.weight.detach().clone()
        folder = tmp_path / speed
        folder.mkdir()
        trainer = train(
            model,
            sample,
            folder,
            kind,
            FAST.model_copy(update={"speed": speed, "epochs": 2, "weight_decay": 0.1}),
        )
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


def test_resuming_gives_the_same_bytes(tmp_path, tiny_model, threads):
    """Also where fewer threads would be taken now: what they decide goes on as it was."""
    prepare_data(tmp_path / "whole", "data/sample_pairs.csv", max_pairs=100, test_share=0.2)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    base = find_model(str(tiny_model))
    fine_tune(tmp_path / "whole", base, FAST, checkpoint_steps=2)
    with interrupted_at(3):
        fine_tune(tmp_path / "cut", base, FAST, checkpoint_steps=2)
    torch.set_num_threads(1)
    shutil.copytree(tmp_path / "cut" / "data", tmp_path / "other" / "data")
    fine_tune(tmp_path / "cut", base, FAST, resume=True, checkpoint_steps=2)
    fine_tune(tmp_path / "other", base, FAST)
    whole, cut, other = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("whole", "cut", "other")
    )
    assert whole == cut
    assert whole != other  # with one thread from the beginning


@pytest.mark.parametrize("rounded", [False, True])
def test_shares_hold_every_pair_once_and_about_equally_many_tokens(model, sample, rounded):
    pairs = pair_encoder(model).encode(text_pairs(sample.head(26)))
    found = shares(pairs, 3, rounded)
    assert sorted(np.concatenate([share.rows for share in found])) == list(range(26))
    tokens = [pairs.lengths[share.rows].sum() for share in found]
    assert len(tokens) == 3
    assert max(tokens) - min(tokens) <= max(pairs.lengths)
    assert any(block.mask is not None for share in found for block in share.blocks)
    for share in found:
        assert (share.filling > 0) <= rounded
        assert (len(share.ids) - share.filling) * 0.95 <= pairs.lengths[share.rows].sum()
    assert len(shares(pair_encoder(model).encode([("a", "b")] * 30), 3, rounded)) == 1  # too few
    one_long = np.array([*[5] * 20, 900])
    uneven = EncodedPairs(*np.zeros((2, 1000), dtype=np.int64), one_long, pad=0)
    assert [len(share.rows) for share in shares(uneven, 3, rounded)] == [1, 20]  # none is empty


def test_which_models_are_trained_fast(model):
    loss = BinaryCrossEntropyLoss(model)
    assert not why_not_fast(model, loss, Recipe(weight_decay=0.1))
    assert why_not_fast(model, loss, Recipe(optim="sgd")) == "optim is sgd"
    model.model.config.num_labels = 2
    assert "with one output, not with 2" in why_not_fast(model, loss, Recipe())


@pytest.mark.parametrize("reason", ["", "optim is sgd"])
def test_the_finding_says_where_fast_was_not_to_be_had(reason):
    record = {
        "vocabulary": {"vocabulary": "keep"},
        "pairs_seen": {"labelled": 3},
        "lexical_warm_up": None,
        "device": "cpu",
        "not_fast": reason,
    }
    assert ("here, on cpu, the library's own trainer was used" in findings.outcome(record)) == bool(
        reason
    )
