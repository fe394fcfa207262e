"""Pairs as rows of tokens: nothing lost, hardly any padding, few sizes."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import CHARACTERS
from tests.scoring.test_cross_encoder import made_up
from workbench.engine.packing import EncodedPairs, PairEncoder, packs, round_up
from workbench.models import find_model
from workbench.scoring.backends import pair_encoder
from workbench.scoring.cross_encoder import load_cross_encoder


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_cross_encoder(find_model(str(tiny_model)), 64)


def row(pairs, place):
    own = slice(pairs.starts[place], pairs.starts[place] + pairs.lengths[place])
    return pairs.ids[own].tolist(), pairs.types[own].tolist()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.tuples(*[st.text(CHARACTERS + "xyz ?。", max_size=40)] * 2),
    max_length=st.integers(5, 40),
    typed=st.booleans(),
)
def test_ids_are_those_of_the_tokenizer_also_when_it_truncates(model, texts, max_length, typed):
    tokenizer = model.tokenizer
    expected = tokenizer(
        *[[text] for text in texts],
        truncation=True,
        max_length=max_length,
        return_token_type_ids=typed,
    )
    encoder = PairEncoder(tokenizer.backend_tokenizer, max_length, typed)
    pairs = encoder.encode([("a", "b"), texts])
    ids, types = row(pairs, 1)
    assert ids == expected["input_ids"][0]
    assert types == expected.get("token_type_ids", [[0] * len(ids)])[0]
    assert pairs.lengths.tolist() == [5, len(ids)]


def test_many_pairs_are_encoded_as_one_by_one_and_the_tokenizer_is_left_alone(model, monkeypatch):
    before = model.tokenizer.backend_tokenizer.to_str()
    texts, encoder = made_up(100), pair_encoder(model)
    monkeypatch.setattr("workbench.engine.packing.ENCODED_AT_ONCE", 7)
    pairs = encoder.encode(texts)
    for place, one in enumerate(texts):
        assert row(pairs, place) == row(encoder.encode([one]), 0)
    assert model.tokenizer.backend_tokenizer.to_str() == before


def test_sizes_are_few_and_little_is_filled_up():
    filled = [round_up(tokens) for tokens in range(1, 4097)]
    assert all(n <= f <= n * 1.125 for n, f in enumerate(filled, 1))
    assert len({f for f in filled if 1024 < f <= 2048}) == 8


@pytest.mark.parametrize("rounded", [True, False])
@pytest.mark.parametrize("max_padding", [0.0, 0.02, 0.1])
def test_packs_hold_every_token_once_and_little_else(model, max_padding, rounded):
    pairs = pair_encoder(model).encode(made_up(1000))
    found = list(packs(pairs, 256, None, max_padding, rounded))
    assert np.concatenate([pack.rows for pack in found]).tolist() == pairs.longest_first().tolist()
    for pack in found:
        used, seen = 0, []
        for block in pack.blocks:
            rows, length = block.shape
            assert block.tokens == slice(used, used + rows * length)
            used = block.tokens.stop
            own = pairs.lengths[pack.rows[block.pairs]]
            mask = np.ones(block.shape, bool) if block.mask is None else block.mask
            assert mask.tolist() == [[n < count for n in range(length)] for count in own]
            assert own.max() == length
            assert own.sum() >= (1 - max_padding) * rows * length
            assert (pack.ids[block.tokens][~mask.ravel()] == pairs.pad).all()
            seen += own.tolist()
        assert seen == pairs.lengths[pack.rows].tolist()
        assert used + pack.filling == len(pack.ids) == (round_up(used) if rounded else used)
        assert used <= 256
        for place, first in zip(pack.rows, pack.firsts, strict=True):
            ids, types = row(pairs, place)
            own = slice(first, first + len(ids))
            assert pack.ids[own].tolist() == ids
            assert pack.types[own].tolist() == types
            assert pack.positions[own].tolist() == list(range(len(ids)))
    padded = any(block.mask is not None for pack in found for block in pack.blocks)
    assert padded == (max_padding > 0)
    sizes = {len(pack.ids) for pack in found[:-1]}  # kernels are kept for each
    assert len(sizes) <= 5 if rounded else len(sizes) > 5
    assert list(packs(pair_encoder(model).encode([]), 256)) == []


def test_some_of_the_pairs_are_as_if_they_alone_had_been_encoded(model):
    texts, rows = made_up(50), [7, 0, 49, 7, 3]
    encoder = pair_encoder(model)
    found = encoder.encode(texts).at(rows)
    alone = encoder.encode([texts[row] for row in rows])
    for name in ("ids", "types", "lengths"):
        assert getattr(found, name).tolist() == getattr(alone, name).tolist()


def shapes(lengths, max_tokens):
    flat = np.zeros(sum(lengths), dtype=np.int64)
    pairs = EncodedPairs(flat, flat, np.array(lengths), 0)
    return [[block.shape for block in pack.blocks] for pack in packs(pairs, max_tokens)]


def test_a_pair_longer_than_a_pack_has_one_to_itself():
    assert shapes([40, 40, 10, 5], 30) == [[(1, 40)], [(1, 40)], [(1, 10), (1, 5)]]
    assert shapes([20, 10, 10, 5, 5], 45) == [[(1, 20), (2, 10), (1, 5)], [(1, 5)]]


def test_float32_weights_are_shared_with_the_model_and_others_copied(model):
    from workbench.engine.bert import FastBert

    for dtype, shared in ((torch.float32, True), (torch.bfloat16, False)):
        weight = FastBert(model.model, dtype).layers[0].up.weight.value
        own = model.model.bert.encoder.layer[0].intermediate.dense.weight
        assert (weight.data_ptr() == own.data_ptr()) is shared
