"""Pairs as rows of tokens: nothing lost, hardly any padding, few sizes."""

import os
import signal
import time

import numpy as np
import pytest
import torch

from tests.scoring.test_cross_encoder import made_up
from workbench.engine.forward import FastBert, float32_product
from workbench.engine.packing import MOST_PADDING, blocks_of, filled_up, packs
from workbench.models import find_model
from workbench.scoring.cross_encoder import load_cross_encoder, pair_encoder


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_cross_encoder(find_model(str(tiny_model)), 64)


def test_numbers_of_tokens_are_few_and_little_is_filled_up():
    filled = [filled_up(tokens) for tokens in range(1, 4097)]
    assert all(n <= f <= n * 1.125 for n, f in enumerate(filled, 1))
    assert len({f for f in filled if 1024 < f <= 2048}) == 8
    rows = [filled_up(count, 4) for count in range(1, 129)]
    assert all(n <= f <= n * 1.25 for n, f in enumerate(rows, 1))
    assert sorted(set(rows)) == [
        *range(1, 9),
        10,
        12,
        14,
        16,
        20,
        24,
        28,
        32,
        40,
        48,
        56,
        64,
        80,
        96,
        112,
        128,
    ]


@pytest.mark.parametrize("padded", [True, False])
def test_packs_hold_every_token_once_and_little_else(padded, model):
    pairs = pair_encoder(model).encode(made_up(1000))
    found = list(packs(pairs, 256, padded))
    assert sorted(np.concatenate([pack.rows for pack in found])) == list(range(1000))
    for pack in found:
        used = 0
        for block, place in pack.places():
            assert place == slice(used, used + block.rows * block.length)
            used = place.stop
        filling = pack.sizes[-1]
        assert used + filling == filled_up(used) == len(pack.ids) <= 256
        assert pairs.lengths[pack.rows].sum() >= used * (1 - MOST_PADDING)
        hidden = [
            np.zeros((block.rows, block.length))
            if block.hidden is None
            else block.hidden.numpy()[:, 0, 0]
            for block, _ in pack.places()
        ]
        rows = [row for block in hidden for row in block]
        for place, first, row in zip(pack.rows, pack.firsts, rows, strict=True):
            ids, types = pairs.row(place)
            own = slice(first, first + len(ids))
            assert pack.ids[own].tolist() == ids
            assert pack.types[own].tolist() == types
            assert pack.positions[own].tolist() == list(range(len(ids)))
            assert (row == 0).tolist() == [number < len(ids) for number in range(len(row))]
    given = sum(len(pack.ids) for pack in found[:-1])
    used = sum(pairs.lengths[pack.rows].sum() for pack in found[:-1])
    assert given < (1.06 if padded else 1.005) * used
    hidden = any(block.hidden is not None for pack in found for block in pack.blocks)
    assert hidden == padded
    sizes = {len(pack.ids) for pack in found[:-1]}  # kernels are kept for each
    assert sizes <= {filled_up(n) for n in range(256 - max(pairs.lengths), 257)}
    assert len(sizes) <= 4
    assert list(packs(pair_encoder(model).encode([]), 256)) == []


def test_a_pair_longer_than_a_pack_has_one_of_its_own():
    blocks = list(blocks_of(np.array([40, 40, 10, 5]), 30))
    assert [(block.rows, block.length) for block in blocks] == [(1, 40)]
    blocks = list(blocks_of(np.array([20, 10, 9, 5, 5]), 45))
    assert [(block.rows, block.length) for block in blocks] == [(1, 20), (2, 10), (1, 5)]
    assert list(blocks_of(np.array([], dtype=np.int64))) == []


def test_few_pairs_are_shared_among_the_threads(model, monkeypatch):
    pairs, seen = pair_encoder(model).encode(made_up(40)), []
    run = FastBert(model.model, float32_product)

    attended = FastBert._attended

    def noted(self, x, joint, pack, place=None):
        seen.append(pack)
        return attended(self, x, joint, pack, place)

    monkeypatch.setattr(FastBert, "_attended", noted)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run.score(pairs)
    finally:
        torch.set_num_threads(before)
    tokens = [int(pairs.lengths[pack.rows].sum()) for pack in seen]
    assert 2 <= len(tokens) <= 3
    assert max(tokens) < 0.6 * sum(tokens)


def test_an_interrupt_ends_the_scoring_at_the_next_pack(model, monkeypatch):
    pairs, begun = pair_encoder(model).encode(made_up(300)), []
    monkeypatch.setattr("workbench.engine.forward.PACK_TOKENS", 64)
    attended = FastBert._attended

    def struck(self, *given):
        begun.append(given)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # the main thread has time to see it
        return attended(self, *given)

    monkeypatch.setattr(FastBert, "_attended", struck)
    with pytest.raises(KeyboardInterrupt):
        FastBert(model.model, float32_product).score(pairs)
    assert 1 <= len(begun) <= 4


def test_what_is_computed_together_is_bounded(model, monkeypatch):
    pairs, groups = pair_encoder(model).encode(made_up(300)), []
    run = FastBert(model.model, float32_product)
    expected, together = run.score(pairs), FastBert._together

    def noted(self, group, *given):
        groups.append(sum(len(pack.ids) for pack in group))
        return together(self, group, *given)

    monkeypatch.setattr(FastBert, "_together", noted)
    bound = 1000 * 16 * model.model.config.hidden_size
    monkeypatch.setattr("workbench.engine.forward.TOGETHER_BYTES", bound)
    assert np.abs(run.score(pairs) - expected).max() < 3e-5
    assert max(groups) <= 1100
    monkeypatch.setattr("workbench.engine.forward.TOGETHER_BYTES", 1)  # less than a token
    assert np.abs(run.score(pairs) - expected).max() < 3e-5


def test_a_pack_is_moved_as_a_whole_and_left_alone_where_it_is(model):
    pack = next(packs(pair_encoder(model).encode(made_up(60)), 512))
    assert pack.to(torch.device("cpu")) is pack
    moved = pack.to(torch.device("meta"))
    hidden = [block.hidden for block in moved.blocks if block.hidden is not None]
    assert hidden
    every = [moved.ids, moved.types, moved.positions, moved.firsts, *hidden]
    assert {one.device.type for one in every} == {"meta"}
    assert pack.ids.device.type == "cpu"
    assert moved.sizes == pack.sizes


def test_attention_in_bfloat16_errs_by_rounding_alone_and_has_few_shapes(sharp_model, monkeypatch):
    model, shapes = load_cross_encoder(find_model(str(sharp_model)), 64), set()
    pairs = pair_encoder(model).encode(made_up(300))
    assert any(block.hidden is not None for pack in packs(pairs, 960) for block in pack.blocks)
    exact = FastBert(model.model, float32_product).score(pairs)
    product = torch.bmm

    def bmm(first, second):
        if first.dtype == torch.bfloat16:
            shapes.add(first.shape[:2])
        return product(first, second)

    monkeypatch.setattr(torch, "bmm", bmm)
    rough = FastBert(model.model, float32_product, torch.bfloat16).score(pairs)
    assert 0.999 < np.corrcoef(rough, exact)[0, 1] < 0.9999999
    assert np.abs(rough - exact).max() < 0.2 * exact.std()
    heads = model.model.config.num_attention_heads
    assert shapes
    for matrices, length in shapes:
        assert length % 8 == 0
        assert matrices == heads * filled_up(matrices // heads, 4)
