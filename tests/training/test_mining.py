"""Pairs made from the training side: look-alikes, hard negatives, soft lexical targets."""

import numpy as np
import pandas as pd
import pytest

from tests.conftest import labelled
from workbench.data.readers import COLUMNS
from workbench.data.texts import text_pairs
from workbench.scoring.baselines import CharacterJaccard
from workbench.training.examples import BAND, hard_negatives, lexical_pairs, mine_look_alikes


def test_look_alikes_by_hand():
    texts = ["abcd", "abxy", "axyz", "wxyz", "abcd"]
    found = mine_look_alikes(["abcd"], texts[:4], count=5)
    # abcd itself overlaps wholly, wxyz not at all; abxy shares 2 of 6, axyz 1 of 7.
    assert text_pairs(found) == [("abcd", "abxy"), ("abcd", "axyz")]
    assert CharacterJaccard().score(text_pairs(found)) == pytest.approx([2 / 6, 1 / 7])
    assert text_pairs(mine_look_alikes(["abcd"], texts[:4], count=1)) == [("abcd", "abxy")]
    assert mine_look_alikes(["q"], ["z"], count=3).empty


def test_look_alikes_stay_in_the_band_also_with_a_sampled_pool(sample, monkeypatch):
    monkeypatch.setattr("workbench.training.examples.POOL", 300)
    monkeypatch.setattr("workbench.training.examples.BLOCK", 50)
    texts = list(dict.fromkeys([*sample["sentence_0"], *sample["sentence_1"]]))
    found = mine_look_alikes(texts[:120], texts, count=3, seed=5)
    overlap = CharacterJaccard().score(text_pairs(found))
    assert BAND[0] - 1e-6 < overlap.min() < overlap.max() < BAND[1] + 1e-6
    assert (found["label"] == 0).all()
    assert found.groupby("sentence_0").size().max() == 3
    again = mine_look_alikes(texts[:120], texts, count=3, seed=5)
    pd.testing.assert_frame_equal(found, again)
    assert not found.equals(mine_look_alikes(texts[:120], texts, count=3, seed=6))


def test_hard_negatives_are_new_and_unconnected(sample):
    found = hard_negatives(sample, each=2)
    assert list(found.columns) == COLUMNS
    assert len(found) > 100
    assert (found["label"] == 0).all()
    labelled = set(text_pairs(sample)) | {(b, a) for a, b in text_pairs(sample)}
    assert not labelled & set(text_pairs(found))
    group = {}
    positive = sample[sample["label"] >= 0.5]
    for first, second in text_pairs(positive):  # texts of one positive group, by hand
        merged = group.get(first, {first}) | group.get(second, {second})
        group.update(dict.fromkeys(merged, merged))
    assert not [pair for pair in text_pairs(found) if pair[1] in group.get(pair[0], ())]
    asked = {*positive["sentence_0"], *positive["sentence_1"]}
    assert set(found["sentence_0"]) <= asked


def test_only_training_texts_are_mined(sample):
    train = sample.head(600)
    known = {*train["sentence_0"], *train["sentence_1"]}
    for made in (hard_negatives(train, 1), lexical_pairs(train, 200)):
        assert {*made["sentence_0"], *made["sentence_1"]} <= known


def test_soft_targets_are_shares_and_follow_the_overlap(sample):
    made = lexical_pairs(sample, 500, seed=3)
    assert len(made) == 500
    assert made["label"].between(0, 1).all()
    overlap = CharacterJaccard().score(text_pairs(made))
    assert np.corrcoef(overlap, made["label"])[0, 1] > 0.5
    pd.testing.assert_frame_equal(made, lexical_pairs(sample, 500, seed=3))


def test_one_class_alone_cannot_teach():
    with pytest.raises(ValueError, match="both classes"):
        hard_negatives(labelled(("ab", "ac", 1.0), ("cd", "ce", 1.0)), 1)
