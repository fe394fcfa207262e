"""The best value any model behind a tokenizer reaches: by hand, and against trying everything."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tests.conftest import labelled
from workbench.data.lists import CandidateList
from workbench.models import BUNDLED_MODEL, find_model, load_tokenizer
from workbench.vocabulary.coverage import best_binary, best_ndcg, ceilings
from workbench.vocabulary.tokens import count_tokens

ITEMS = st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=9)
GRADED = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=6
)


def every_order(classes):
    """All score assignments that matter: every ranking of the classes, without ties among them."""
    names = sorted(set(classes))
    for order in itertools.permutations(range(len(names))):
        yield [order[names.index(one)] for one in classes]


def expected_ndcg(scores, gains, k):
    """Mean nDCG over every order of the candidates that agrees with the scores."""
    discount = [1 / np.log2(rank + 2) if rank < k else 0.0 for rank in range(len(gains))]
    ideal = sum(g * d for g, d in zip(sorted(gains, reverse=True), discount, strict=True))
    if not ideal:
        return 0.0
    values = [
        sum(gains[n] * d for n, d in zip(order, discount, strict=True)) / ideal
        for order in itertools.permutations(range(len(gains)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    return float(np.mean(values))


def test_three_items_by_hand():
    # Two look alike and differ in label: one of the three is lost at best.
    classes, positive = [0, 0, 1], [True, False, False]
    # The positive ties with one negative (one half) and beats the other (one): 1.5 of 2.
    expected = {"accuracy": pytest.approx(2 / 3), "roc_auc": pytest.approx(0.75)}
    assert best_binary(classes, positive) == expected


def test_a_list_by_hand():
    # The positive ties with one negative at the top: expected gains 1/2, 1/2, 0.
    ideal = 1.0
    assert best_ndcg([0, 0, 1], [1, 0, 0]) == pytest.approx((0.5 + 0.5 / np.log2(3)) / ideal)
    assert best_ndcg([0, 1, 2], [0, 0, 1]) == 1.0
    assert best_ndcg([0, 1], [0, 0]) == 0.0
    # One relevant candidate at the top, two that the search missed: 1 of 1 + 0.63 + 0.5.
    found = 1 / (1 + 1 / np.log2(3) + 1 / 2)
    assert best_ndcg([0, 1], [1, 0], missed=[1, 1]) == pytest.approx(found)
    assert best_ndcg([0, 1], [1, 0], k=1, missed=[1, 1]) == 1.0
    assert best_ndcg([], [], missed=[1.0]) == 0.0


@given(ITEMS)
def test_no_order_of_the_classes_is_more_accurate_and_one_reaches_it(items):
    classes, positive = map(list, zip(*items, strict=True))
    names = sorted(set(classes))
    tried = [
        np.mean([answer[names.index(c)] == p for c, p in items])
        for answer in itertools.product([False, True], repeat=len(names))
    ]
    assert best_binary(classes, positive)["accuracy"] == pytest.approx(max(tried))


@given(ITEMS)
def test_no_order_of_the_classes_has_a_higher_auc_and_one_reaches_it(items):
    classes, positive = map(list, zip(*items, strict=True))
    if len(set(positive)) < 2:
        assert np.isnan(best_binary(classes, positive)["roc_auc"])
        return
    tried = [roc_auc_score(positive, scores) for scores in every_order(classes)]
    assert best_binary(classes, positive)["roc_auc"] == pytest.approx(max(tried))


@given(GRADED, st.integers(1, 4))
def test_no_order_of_the_classes_has_a_higher_ndcg_and_one_reaches_it(items, k):
    classes, gains = map(list, zip(*items, strict=True))
    tried = [expected_ndcg(scores, gains, k) for scores in every_order(classes)]
    assert best_ndcg(classes, gains, k) == pytest.approx(max(tried))


def test_pairs_and_lists_that_the_base_model_cannot_tell_apart():
    tokenizer = load_tokenizer(find_model(BUNDLED_MODEL))
    rows = [("谁说你可爱了", "你好", 1.0), ("谁说你可怜了", "你好", 0.0), ("hello", "world", 1.0)]
    pairs = labelled(*rows)
    counts = count_tokens(tokenizer, ["谁说你可爱了", "谁说你可怜了", "你好", "hello", "world"])
    one = CandidateList("hello", ("谁说你可爱了", "谁说你可怜了"), (1.0, 0.0))
    assert ceilings(counts, pairs, [one]) == {
        "accuracy": pytest.approx(2 / 3),
        "roc_auc": pytest.approx(0.75),
        "ndcg@10": pytest.approx((1 + 1 / np.log2(3)) / 2),
        "conflicting_pairs": 2,
    }
    found = ceilings(counts, pairs[pairs["label"] == 1])
    assert found["ndcg@10"] is found["roc_auc"] is None


def test_the_same_texts_labelled_both_ways_are_not_the_tokenizers_fault():
    tokenizer = load_tokenizer(find_model(BUNDLED_MODEL))
    pairs = labelled(("a", "b", 1.0), ("a", "b", 0.0))
    found = ceilings(count_tokens(tokenizer, ["a", "b"]), pairs)
    assert found["accuracy"] == 0.5
    assert found["conflicting_pairs"] == 0


def test_pairs_are_alike_only_where_both_texts_are():
    counts = pd.DataFrame({"sequence": [0, 0, 1]}, index=["x", "y", "z"])
    rows = [("x", "z", 1), ("y", "z", 0), ("x", "x", 1), ("z", "x", 0)]
    pairs = labelled(*rows)
    assert ceilings(counts, pairs)["conflicting_pairs"] == 2
    assert ceilings(counts, pairs)["accuracy"] == 0.75
