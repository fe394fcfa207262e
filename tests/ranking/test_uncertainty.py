"""Intervals that cover, tests that hold their level, and corrections worked out by hand."""

import doctest
import itertools
import math

import numpy as np
import pytest
from scipy.special import expit

from workbench.ranking import metrics, uncertainty
from workbench.ranking.uncertainty import (
    bootstrap_draws,
    bootstrap_mean,
    bootstrap_pairs,
    claim,
    compare,
    direction,
    format_estimate,
    holm,
    randomisation_test,
    range_test,
    threshold_draws,
)


def test_a_bootstrap_interval_covers_the_mean_of_normal_values_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(200):
        low, high = bootstrap_mean(rng.normal(3, 1, 60), 500, seed=trial)[1:]
        inside += low <= 3 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_drawing_groups_widens_the_interval_where_a_groups_queries_agree():
    """30 groups of 10 equal values are 30 observations, not 300."""
    rng = np.random.default_rng(1)
    inside = {True: 0, False: 0}
    groups = np.repeat(np.arange(30), 10)
    for trial in range(150):
        values = np.repeat(rng.normal(0, 1, 30), 10)
        for known in inside:
            low, high = bootstrap_mean(values, 400, trial, groups if known else None)[1:]
            inside[known] += low <= 0 <= high
    assert 0.86 <= inside[True] / 150 <= 0.99
    assert inside[False] / 150 < 0.6


def test_unequal_groups_weigh_by_their_queries():
    """Of ten groups one has eleven queries, all 0: drawn k times it is 11k of 11k + (10 - k)."""
    values, groups = [[1.0]] * 9 + [[0.0]] * 11, [*range(9)] + [9] * 11
    draws = bootstrap_draws(values, groups, 5000)[:, 0]
    possible = {round((10 - k) / (10 + 10 * k), 6) for k in range(11)}
    assert {0.45, 1.0} < set(np.round(draws, 6)) <= possible


def test_few_groups_have_a_mean_and_no_interval():
    """Copies of one query have no spread, and an interval of width 0 would be a lie."""
    for count in (1, 9):
        own = bootstrap_mean(np.arange(36.0), 50, groups=np.arange(36) % count)
        assert own.mean == 17.5
        assert math.isnan(own.low)
        assert math.isnan(own.high)
        assert format_estimate(own.plain()) == format_estimate(own._asdict()) == "17.500"
    assert bootstrap_mean(np.arange(36.0), 50, groups=np.arange(36) % 10).low < 17.5
    pairs = bootstrap_pairs(np.arange(36.0), np.arange(36) > 9, groups=np.arange(36) % 9)
    assert pairs["roc_auc"].plain() == {"mean": 1.0, "low": None, "high": None}


def test_the_same_seed_draws_the_same_queries_so_differences_are_paired():
    values = np.random.default_rng(1).random(50)
    assert bootstrap_mean(values, seed=3) == bootstrap_mean(values, 10_000, 3, np.arange(50))
    with pytest.raises(ValueError, match="no value"):
        bootstrap_mean([])
    shifted = bootstrap_mean(values + 0.1, seed=3)
    assert shifted.low - bootstrap_mean(values, seed=3).low == pytest.approx(0.1)
    draws = bootstrap_draws(np.column_stack([values, values + 0.1]), resamples=50)
    assert draws[:, 1] - draws[:, 0] == pytest.approx(0.1)


def test_the_randomisation_test_equals_going_through_every_flip():
    differences = np.array([0.5, -0.1, 0.3, 0.4, 0.0, 0.2, 0.6, -0.2])
    flips = np.array(list(itertools.product([-1, 1], repeat=8))) @ differences
    exact = (np.abs(flips) >= abs(differences.sum()) - 1e-12).mean()
    found = randomisation_test(differences[:, None], resamples=40_000)[0]
    assert found == pytest.approx(exact, abs=0.01)


def test_groups_flip_together():
    """Three groups can flip in eight ways, so no p-value can be under a quarter."""
    differences = np.ones((30, 1))
    assert randomisation_test(differences)[0] < 0.001
    assert randomisation_test(differences, np.repeat([1, 2, 3], 10))[0] > 0.2


def test_p_values_are_uniform_where_nothing_differs():
    rng = np.random.default_rng(5)
    found = randomisation_test(rng.normal(0, 1, (80, 400)), resamples=1000)
    assert (found < 0.05).mean() == pytest.approx(0.05, abs=0.035)
    assert found.mean() == pytest.approx(0.5, abs=0.06)


def test_equal_scorers_have_p_one_and_p_is_never_zero():
    assert randomisation_test(np.zeros((20, 1)))[0] == 1
    assert randomisation_test(np.ones((60, 1)), resamples=99)[0] == 1 / 100


def test_the_test_of_the_best_of_two_is_the_randomisation_test():
    gap = np.random.default_rng(3).normal(0.1, 0.5, (60, 1))
    one, other = range_test(gap, resamples=20_000)[0], randomisation_test(gap, None, 20_000)[0]
    assert one == pytest.approx(other, abs=0.01)


@pytest.mark.parametrize("runs", [3, 10])
def test_the_best_of_equal_runs_is_seldom_called_better(runs):
    """Without the correction the best of ten leads one of the others in every seventh trial."""
    rng, called = np.random.default_rng(runs), 0
    for trial in range(200):
        values = rng.normal(0.5, 0.2, (40, 1)) + rng.normal(0, 0.2, (40, runs))
        best = values.mean(axis=0).argmax()
        gaps = values[:, [best]] - np.delete(values, best, axis=1)
        called += (range_test(gaps, resamples=199, seed=trial) < 0.05).any()
    assert called / 200 <= 0.09


def test_one_run_far_ahead_of_120_others_is_seen():
    gaps = 0.3 + np.random.default_rng(0).normal(0, 0.2, (100, 119))
    assert (range_test(gaps, resamples=999) < 0.05).all()


def test_so_few_resamples_that_no_p_value_could_count_are_made_more():
    names = [f"scorer {n}" for n in range(7)]
    found = compare(names, np.full((500, 7), 0.7), np.arange(500), 100, 1)
    assert all(direction(gap["low"], gap["high"], gap["p_holm"]) == 1 for gap in found.values())


@pytest.mark.parametrize(
    ("low", "high", "p", "sign"),
    [
        (0.01, 0.2, 0.01, 1),
        (-0.2, -0.01, 0.01, -1),
        (0.01, 0.2, 0.05, 0),
        (-0.01, 0.2, 0.01, 0),
        (0.0, 0.2, 0.01, 0),
        (None, None, 0.001, 0),
        (math.nan, math.nan, 0.001, 0),
        (0.01, 0.2, None, 0),
        (0.01, 0.2, math.nan, 0),
    ],
)
def test_a_difference_counts_by_its_interval_and_its_p_value(low, high, p, sign):
    assert direction(low, high, p) == sign


def record(better=(), worse=(), unclear=(), **changes):
    """`metrics.json` of a model and of others that it is better or worse than."""
    kinds = {"p": (better, 0.1, 0.05, 0.2), "n": (worse, -0.1, -0.2, -0.05)}
    kinds["u"] = (unclear, 0.1, -0.1, 0.3)
    gaps = {
        name: {"mean": mean, "low": low, "high": high, "p": 0.001, "p_holm": 0.01}
        for names, mean, low, high in kinds.values()
        for name in names
    }
    means = {"model": 0.5} | {name: 0.5 - gap["mean"] for name, gap in gaps.items()}
    rows = [{"scorer": name, "ndcg@10": {"mean": mean}} for name, mean in means.items()]
    return {"queries": 80, "rows": rows, "model_minus": gaps, "resamples": 1000} | changes


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (record(["a", "b"]), "better"),
        (record(["a"], unclear=["b"]), "unclear"),
        (record(["a"], ["b"], ["c"]), "worse"),
        (record(["a"], queries=9), "few"),
        (record(["a"], query_groups=9), "few"),
        (record(["a"], query_groups=10), "better"),
        (record(), "nothing"),
        (record(unclear=["a", "b", "c", "d", "e", "f"], resamples=100), "coarse"),
        (record(unclear=["a", "b", "c", "d", "e", "f"], resamples=100, flips=120), "unclear"),
        (record(["a"], queries_all_tied={"model": 0.9}), "tied"),
        (record(["a"], ["b"], queries_all_tied={"model": 0.9}), "worse"),
    ],
)
def test_what_may_be_claimed_of_all_others_at_once(found, state):
    assert claim(found).state == state


def test_a_threshold_of_few_pairs_is_uncertain_and_its_metrics_say_so():
    rng = np.random.default_rng(8)
    positive = rng.random(400) < 0.3
    score = positive + rng.normal(0, 1, 400)
    dev = np.arange(20)
    limits = threshold_draws(score[dev], positive[dev], dev, 300)
    assert limits.shape == (301,)
    fixed = bootstrap_pairs(score, positive, thresholds=limits[0], resamples=300)["accuracy"]
    honest = bootstrap_pairs(score, positive, thresholds=limits, resamples=300)["accuracy"]
    assert fixed.mean == honest.mean
    assert honest.high - honest.low > 1.5 * (fixed.high - fixed.low)
    assert np.isnan(threshold_draws([1, 2], [True, True], [0, 1], 9)).tolist() == [True]


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).shape == (0,)


def test_pair_intervals_hold_their_values_and_what_is_not_defined_is_nan():
    rng = np.random.default_rng(6)
    logit = rng.normal(size=400)
    positive = rng.random(400) < expit(logit)
    found = bootstrap_pairs(logit, positive, thresholds=0.0, logits=True, resamples=300)
    for name in ("roc_auc", "ap", "accuracy", "f1", "brier"):
        assert found[name].low < found[name].mean < found[name].high, name
    assert found["accuracy"].mean == ((logit >= 0) == positive).mean()
    bare = bootstrap_pairs(logit, positive, resamples=20)
    assert all(math.isnan(bare[name].mean) for name in ("accuracy", "f1", "brier", "ece"))
    assert bare["accuracy"].plain() == {"mean": None, "low": None, "high": None}
    one = bootstrap_pairs(logit, np.ones(400, bool), thresholds=0.0, resamples=20)
    assert math.isnan(one["ap"].mean)
    assert math.isnan(one["roc_auc"].low)


def test_pair_draws_equal_metrics_of_the_pairs_drawn():
    """The fast way, repeating sorted pairs, against sorting each draw."""
    from workbench.ranking.metrics import pair_metrics
    from workbench.ranking.uncertainty import _row_counts

    rng = np.random.default_rng(7)
    score, positive = rng.integers(0, 5, 60).astype(float), rng.random(60) < 0.4
    groups = rng.integers(0, 20, 60)
    found = bootstrap_pairs(score, positive, groups=groups, resamples=200, seed=9)
    draws = (np.repeat(np.arange(60), counts) for counts in _row_counts(groups, 200, 9))
    slow = [pair_metrics(score[drawn], positive[drawn]) for drawn in draws]
    for name in ("ap", "roc_auc"):
        low, high = np.percentile([row[name] for row in slow], [2.5, 97.5])
        assert found[name].low == pytest.approx(low)
        assert found[name].high == pytest.approx(high)


@pytest.mark.parametrize("module", [metrics, uncertainty])
def test_examples_are_true(module):
    result = doctest.testmod(module)
    assert result.attempted >= 2
    assert result.failed == 0
