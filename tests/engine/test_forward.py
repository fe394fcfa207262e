"""Scoring by the engine: threads, interrupts and rounding."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from tests.scoring.test_cross_encoder import made_up
from workbench.engine.bert import FastBert
from workbench.machine import torch_threads
from workbench.models import find_model
from workbench.scoring.backends import pair_encoder
from workbench.scoring.cross_encoder import load_cross_encoder


@pytest.fixture(scope="module")
def model(sharp_model):
    return load_cross_encoder(find_model(str(sharp_model)), 64)


def noted(monkeypatch, note):
    """Call `note` with each pack before it is scored."""
    logits = FastBert.logits

    def noting(self, pack, drop=None):
        note(pack)
        return logits(self, pack, drop)

    monkeypatch.setattr(FastBert, "logits", noting)


def test_few_pairs_are_shared_among_the_threads(model, monkeypatch):
    pairs, seen = pair_encoder(model).encode(made_up(40)), []
    noted(monkeypatch, seen.append)
    with torch_threads(2):
        FastBert(model.model, torch.float32).score(pairs)
    tokens = [int(pairs.lengths[pack.rows].sum()) for pack in seen]
    assert 2 <= len(tokens) <= 3
    assert max(tokens) < 0.6 * sum(tokens)


def test_an_interrupt_ends_the_scoring_at_the_next_pack(model, monkeypatch):
    pairs, started = pair_encoder(model).encode(made_up(300)), []
    monkeypatch.setattr("workbench.engine.bert.PACK_TOKENS", 64)

    def struck(pack):
        started.append(pack)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # the main thread has time to see it

    noted(monkeypatch, struck)
    with pytest.raises(KeyboardInterrupt):
        FastBert(model.model, torch.float32).score(pairs)
    assert 1 <= len(started) <= 4


@pytest.mark.parametrize("padding", [0.0, 0.1])
def test_bfloat16_errs_by_rounding_alone(model, monkeypatch, padding):
    monkeypatch.setattr("workbench.engine.bert.MAX_PADDING", padding)
    pairs = pair_encoder(model).encode(made_up(300))
    exact, rough = (
        FastBert(model.model, dtype).score(pairs) for dtype in (torch.float32, torch.bfloat16)
    )
    assert 0.99 < np.corrcoef(rough, exact)[0, 1] < 0.9999999
    assert np.abs(rough - exact).max() < 0.3 * exact.std()


def test_on_another_device_the_packs_are_larger_and_scored_one_after_another(model, monkeypatch):
    """There is none here: the processor under another name."""
    pairs, seen = pair_encoder(model).encode(made_up(300)), []
    engine = FastBert(model.model, torch.float32)
    expected = engine.score(pairs)
    noted(monkeypatch, seen.append)
    engine.device = torch.device("cuda")
    assert np.abs(engine.score(pairs) - expected).max() < 1e-4 * expected.std()
    assert len(seen) == 1
