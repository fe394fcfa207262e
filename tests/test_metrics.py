import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from workbench.metrics import (
    average_precision,
    bootstrap_mean,
    bootstrap_pair_metrics,
    ndcg,
    pair_metrics,
    rank_metrics,
    ranked_relevance,
    reciprocal_rank,
)

lists = st.lists(st.tuples(st.integers(-50, 50), st.sampled_from([0.0, 1.0])), min_size=1,
                 max_size=25)  # fmt: skip


def test_by_hand():
    ranked = ranked_relevance([0.1, 0.9, 0.5, 0.4], [1, 0, 1, 0])
    assert ranked.tolist() == [0, 1, 0, 1]
    assert ndcg(ranked) == pytest.approx(
        (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    )
    assert reciprocal_rank(ranked) == 1 / 2
    assert average_precision(ranked) == (1 / 2 + 2 / 4) / 2


def test_a_constant_scorer_gets_the_worst_order():
    assert ranked_relevance([1, 1, 1], [1, 0, 0]).tolist() == [0, 0, 1]
    assert reciprocal_rank(ranked_relevance(np.zeros(30), [1] + [0] * 29)) == 0


def test_beyond_rank_ten_counts_for_nothing_but_map():
    ranked = ranked_relevance(-np.arange(12.0), [0] * 11 + [1])
    assert ndcg(ranked) == 0
    assert reciprocal_rank(ranked) == 0
    assert average_precision(ranked) == pytest.approx(1 / 12)


def test_without_a_positive_everything_is_zero():
    values = rank_metrics([[3.0, 2.0]], [[0, 0]])
    assert (values == 0).all().all()


@given(lists, st.randoms())
def test_permuting_candidates_changes_nothing(rows, random):
    shuffled = rows[:]
    random.shuffle(shuffled)
    first, second = (ranked_relevance(*zip(*r, strict=True)) for r in (rows, shuffled))
    assert first.tolist() == second.tolist()


@given(lists)
def test_a_monotone_transform_changes_nothing(rows):
    score, gain = map(np.array, zip(*rows, strict=True))
    assert (ranked_relevance(score, gain) == ranked_relevance(score**3 * 2 + 1, gain)).all()


@given(lists, st.integers(1, 20))
def test_an_irrelevant_tail_changes_nothing(rows, tail):
    score, gain = zip(*rows, strict=True)
    longer = rank_metrics([[*score, *[-99] * tail]], [[*gain, *[0] * tail]])
    assert longer.equals(rank_metrics([score], [gain]))


@given(lists)
def test_ndcg_equals_scikit_learn_where_nothing_is_tied(rows):
    gain = np.array([g for _, g in rows])
    score = np.random.default_rng(len(rows)).permutation(len(rows)).astype(float)
    if len(rows) > 1 and gain.any():
        expected = ndcg_score([gain], [score], k=10)
        assert ndcg(ranked_relevance(score, gain)) == pytest.approx(expected)


@given(lists)
def test_average_precision_equals_its_definition(rows):
    ranked = ranked_relevance(*zip(*rows, strict=True))
    precisions = [ranked[: n + 1].mean() for n in range(len(ranked)) if ranked[n]]
    assert average_precision(ranked) == pytest.approx(np.mean(precisions) if precisions else 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_the_query(bad):
    with pytest.raises(ValueError, match="query 1: the score of candidate 0"):
        rank_metrics([[1.0], [bad]], [[1], [1]])


def test_shapes_must_fit():
    with pytest.raises(ValueError, match="query 0"):
        rank_metrics([[1.0, 2.0]], [[1]])


def test_pair_metrics_by_hand_and_with_one_class():
    found = pair_metrics([0.9, 0.8, 0.1], [1, 0, 1])
    assert found == {"ap": pytest.approx((1 + 2 / 3) / 2), "roc_auc": pytest.approx(0.5)}
    assert all(math.isnan(value) for value in pair_metrics([1, 2], [1, 1]).values())
    assert math.isnan(bootstrap_pair_metrics([1, 2], [1, 1])["ap"].low)


def test_a_bootstrap_interval_covers_the_mean_of_normal_values_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = bootstrap_mean(rng.normal(3, 1, 60), 500, seed=trial)[1:]
        inside += low <= 3 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_the_same_seed_draws_the_same_queries_so_differences_are_paired():
    values = np.random.default_rng(1).random(50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, seed=3)
    shifted = bootstrap_mean(values + 0.1, seed=3)
    assert shifted.low - bootstrap_mean(values, seed=3).low == pytest.approx(0.1)


def test_no_values_have_no_mean():
    with pytest.raises(ValueError, match="no value"):
        bootstrap_mean([])
