"""Ranking and pair metrics: by hand, against other implementations, by laws, and with ties."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.ranking.metrics import (
    RANKING_METRICS,
    TIES,
    at_threshold,
    average_precision,
    calibration,
    fit_threshold,
    ndcg,
    pair_metrics,
    precision,
    rank,
    rank_metrics,
    recall,
    reciprocal_rank,
    reliability,
    roc_auc,
    success,
)
from workbench.runs.parameters import Parameters

GRADES = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0]
lists = st.lists(st.tuples(st.integers(-6, 6), st.sampled_from(GRADES)), min_size=1, max_size=25)
METRICS = [
    ndcg,
    reciprocal_rank,
    average_precision,
    recall,
    precision,
    success,
    lambda r: ndcg(r, 3),
    lambda r: reciprocal_rank(r, 2),
    lambda r: recall(r, 2),
    lambda r: precision(r, 3),
    lambda r: success(r, 1),
    lambda r: success(r, 2),
    roc_auc,
]


def values(scores, gains, ties="expected", missed=()):
    return np.array([metric(rank(scores, gains, ties, missed)) for metric in METRICS])


def test_by_hand():
    ranking = rank([0.1, 0.9, 0.5, 0.4], [1, 0, 1, 0])
    assert ranking.gain.tolist() == [0, 1, 0, 1]
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg(ranking) == pytest.approx(expected)
    assert reciprocal_rank(ranking) == 1 / 2
    assert average_precision(ranking) == (1 / 2 + 2 / 4) / 2
    assert recall(ranking, 2) == 1 / 2
    assert precision(ranking) == 0
    assert precision(ranking, 2) == 1 / 2
    assert (success(ranking, 1), success(ranking, 2)) == (0, 1)
    assert roc_auc(ranking) == 1 / 4
    late = rank(-np.arange(12.0), [0] * 11 + [1])
    assert ndcg(late) == reciprocal_rank(late) == recall(late) == success(late) == 0
    assert average_precision(late) == pytest.approx(1 / 12)


def test_graded_gain_by_hand():
    ranking = rank([3, 2, 1], [1, 3, 0])
    assert ndcg(ranking) == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert ndcg(ranking, 1) == pytest.approx(1 / 3)


def test_two_tied_candidates_by_hand():
    """Half the time the relevant one is first, half the time second."""
    tied = rank([1, 1], [1, 0])
    assert reciprocal_rank(tied) == pytest.approx(3 / 4)
    assert ndcg(tied) == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert average_precision(tied) == pytest.approx(3 / 4)
    assert precision(tied) == 1 / 2
    assert roc_auc(tied) == 1 / 2
    worst = rank([1, 1], [1, 0], "worst")
    assert (reciprocal_rank(worst), precision(worst), roc_auc(worst)) == (1 / 2, 0, 0)


def orders(scores):
    """Every order of the candidates that the scores allow, ties in each possible order."""
    blocks = [np.flatnonzero(scores == value) for value in np.unique(scores)[::-1]]
    for parts in itertools.product(*(itertools.permutations(block) for block in blocks)):
        yield list(itertools.chain(*parts))


@pytest.mark.parametrize("case", range(150))
def test_ties_are_expected_values_over_every_order_and_worst_is_their_minimum(case):
    rng = np.random.default_rng(case)
    size = int(rng.integers(1, 7))
    scores, gains = rng.integers(0, 3, size), rng.choice(GRADES, size)
    missed = [1.0] * int(rng.integers(0, 3))
    straight = -np.arange(size)
    of_orders = np.array([values(straight, gains[o], missed=missed) for o in orders(scores)])
    assert values(scores, gains, missed=missed) == pytest.approx(of_orders.mean(0), nan_ok=True)
    worst = values(scores, gains, "worst", missed)
    assert worst == pytest.approx(of_orders.min(axis=0), nan_ok=True)


def test_a_constant_scorer_equals_random_scores_in_expectation_and_the_worst_order_under_worst():
    rng = np.random.default_rng(0)
    gains = np.array([1, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0])
    drawn = np.array([values(rng.random(12), gains) for _ in range(500)])
    error = drawn.std(axis=0) / math.sqrt(500)
    constant = values(np.zeros(12), gains)
    assert (np.abs(constant - drawn.mean(axis=0)) <= 4 * error + 1e-12).all()
    assert values(np.zeros(12), gains, "worst") == pytest.approx(values(-gains, gains))
    assert (values(np.zeros(12), gains, "worst") <= constant).all()


def test_every_metric_agrees_with_trec_eval_on_thousands_of_rankings():
    """Scores without ties, graded relevance, relevant texts missing, through ir-measures."""
    import ir_measures
    from ir_measures import AP, RR, P, R, Success, nDCG

    rng = np.random.default_rng(1)
    qrels, run, ours = [], [], {}
    for query in range(1000):
        size = int(rng.integers(1, 40))
        scores = rng.permutation(size).astype(float)
        gains = rng.choice(GRADES, size)
        missed = [float(g) for g in rng.choice([1, 2], int(rng.integers(0, 3)))]
        gains[0] = 1.0 if not gains.any() and not missed else gains[0]
        name = str(query)
        run += [ir_measures.ScoredDoc(name, f"d{n}", float(s)) for n, s in enumerate(scores)]
        qrels += [ir_measures.Qrel(name, f"d{n}", int(g)) for n, g in enumerate(gains)]
        qrels += [ir_measures.Qrel(name, f"m{n}", int(g)) for n, g in enumerate(missed)]
        found = rank_metrics([scores], [gains], missed=[missed])
        ours |= {(name, metric): value[0] for metric, value in found.items()}
    measures = [nDCG @ 10, RR @ 10, AP, R @ 10, P @ 1, Success @ 5]
    same = dict(zip(map(str, measures), RANKING_METRICS, strict=True))
    compared = 0
    for found in ir_measures.iter_calc(measures, qrels, run):
        mine = ours[found.query_id, same[str(found.measure)]]
        assert mine == pytest.approx(found.value, abs=1e-9), found
        compared += 1
    assert compared == 1000 * 6


def test_ndcg_with_ties_equals_scikit_learn():
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(2)
    for _ in range(300):
        size = int(rng.integers(2, 30))
        scores, gains = rng.integers(0, 5, size), rng.choice(GRADES, size)
        if gains.any():
            k = int(rng.integers(1, 12))
            expected = ndcg_score([gains], [scores], k=k)
            assert ndcg(rank(scores, gains), k) == pytest.approx(expected)


def test_pair_metrics_equal_scikit_learn():
    from sklearn import metrics as reference

    rng = np.random.default_rng(3)
    for _ in range(200):
        size = int(rng.integers(2, 200))
        labels = rng.integers(0, 2, size)
        labels[:2] = 0, 1
        tied, single = rng.integers(0, 6, size), rng.permutation(size)
        probability, threshold = rng.random(size), rng.random()
        assert pair_metrics(tied, labels)["roc_auc"] == pytest.approx(
            reference.roc_auc_score(labels, tied)
        )
        assert pair_metrics(single, labels)["ap"] == pytest.approx(
            reference.average_precision_score(labels, single)
        )
        called = probability >= threshold
        accuracy, f1 = at_threshold(probability, labels, threshold)
        assert accuracy == reference.accuracy_score(labels, called)
        assert f1 == pytest.approx(reference.f1_score(labels, called, zero_division=0))
        brier, skill, _ = calibration(probability, labels)
        assert brier == pytest.approx(reference.brier_score_loss(labels, probability))
        assert skill == pytest.approx(1 - brier / labels.var())


def test_reliability_equals_scikit_learns_curve():
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(4)
    probability = rng.random(500)
    labels = rng.random(500) < probability**2
    share, meant = calibration_curve(labels, probability, n_bins=10)
    sizes, mine, found = reliability(probability, labels)
    assert mine == pytest.approx(meant)
    assert found == pytest.approx(share)
    assert sizes.sum() == 500
    expected = (sizes / 500 * np.abs(share - meant)).sum()
    assert calibration(probability, labels)[2] == pytest.approx(expected)


def test_calibration_by_hand():
    probability, labels = [0.95, 0.95, 0.05, 0.05], [1, 0, 0, 0]
    assert calibration(probability, labels)[2] == pytest.approx(0.5 * 0.45 + 0.5 * 0.05)
    assert calibration([1.0, 0.0], [1, 0]) == (0, 1, 0)
    assert np.isnan(calibration([0.9, 0.8], [1, 1])[1])
    assert np.isnan(reliability([1.0], [1])[1][:9]).all()


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=30))
def test_no_other_threshold_has_a_higher_f1(rows):
    scores, labels = (np.array(column) for column in zip(*rows, strict=True))
    threshold = fit_threshold(scores, labels)
    if labels.all() or not labels.any():
        assert math.isnan(threshold)
        return
    best = max(at_threshold(scores, labels, other)[1] for other in np.arange(-6, 7, 0.25))
    assert at_threshold(scores, labels, threshold)[1] == pytest.approx(best)


@pytest.mark.parametrize("ties", ["expected", "worst"])
def test_odd_queries_have_stated_values_and_stay_in_the_mean(ties):
    scores = [[3.0, 2.0], [1.0], [1.0], [1.0, 1.0], [], [], [5.0, 1.0, 1.0]]
    gains = [[0, 0], [1], [0], [2, 2], [], [], [1, 1, 1]]
    found = rank_metrics(scores, gains, ties, [(), (), (), (), (), (1.0,), ()])
    for name, value in found.items():
        assert value.shape == (7,)
        assert value[[0, 2, 4, 5]].tolist() == [0, 0, 0, 0], name  # nothing relevant to be found
        assert value[[1, 3, 6]] == pytest.approx(1), name  # nothing irrelevant to put first
    assert set(found) == set(RANKING_METRICS)


def test_missed_relevant_texts_lower_what_can_be_reached():
    whole, part = rank([2, 1], [1, 0]), rank([2, 1], [1, 0], missed=[1.0])
    assert (recall(whole), recall(part)) == (1, 1 / 2)
    assert average_precision(part) == 1 / 2
    assert ndcg(part) == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert reciprocal_rank(part) == precision(part) == 1


@given(lists, st.randoms())
def test_permuting_candidates_changes_nothing(rows, random):
    shuffled = rows[:]
    random.shuffle(shuffled)
    for ties in TIES:
        first, second = (values(*zip(*r, strict=True), ties) for r in (rows, shuffled))
        assert np.array_equal(first, second, equal_nan=True)


@given(lists)
def test_a_monotone_transform_changes_nothing(rows):
    score, gain = map(np.array, zip(*rows, strict=True))
    for ties in TIES:
        same = values(score, gain, ties)[:-1] == values(score**3 * 2 + 1, gain, ties)[:-1]
        assert same.all()


@given(lists, st.integers(1, 20))
def test_an_irrelevant_tail_changes_nothing(rows, tail):
    score, gain = zip(*rows, strict=True)
    for ties in TIES:
        longer = rank_metrics([[*score, *[-99] * tail]], [[*gain, *[0] * tail]], ties)
        before = rank_metrics([score], [gain], ties)
        for name, value in before.items():
            assert longer[name] == pytest.approx(value, abs=1e-12), name


@given(lists)
def test_worst_is_never_above_expected(rows):
    score, gain = zip(*rows, strict=True)
    worst, fair = (values(score, gain, ties)[:-1] for ties in ("worst", "expected"))
    assert (worst <= fair + 1e-12).all()


@given(lists)
def test_reversing_the_scores_reverses_the_auc(rows):
    score, gain = map(np.array, zip(*rows, strict=True))
    if 0 < (gain > 0).sum() < len(gain):
        assert roc_auc(rank(score, gain)) == pytest.approx(1 - roc_auc(rank(-score, gain)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_names_the_query(bad):
    with pytest.raises(ValueError, match="query 1: the score of candidate 0"):
        rank_metrics([[1.0], [bad]], [[1], [1]])
    with pytest.raises(ValueError, match=r"query 1 \('怎么'\)"):
        rank_metrics([[1.0], [bad]], [[1], [1]], names=["a", "怎么"])


@pytest.mark.parametrize(
    ("scores", "gains", "ties", "message"),
    [
        ([1.0, 2.0], [1], "expected", r"query 0: \(2,\) scores for \(1,\) candidates"),
        ([1.0], [-1], "expected", "relevance of candidate 0 is -1.0"),
        ([1.0], [np.nan], "expected", "relevance of candidate 0 is nan"),
        ([1.0], [1], "best", "ties is 'best'"),
    ],
)
def test_what_does_not_fit_is_refused(scores, gains, ties, message):
    with pytest.raises(ValueError, match=message):
        rank_metrics([scores], [gains], ties)


def test_pair_metrics_by_hand_and_with_one_class():
    found = pair_metrics([0.9, 0.8, 0.1], [1, 0, 1])
    assert found == {"ap": pytest.approx((1 + 2 / 3) / 2), "roc_auc": pytest.approx(0.5)}
    assert all(math.isnan(value) for value in pair_metrics([1, 2], [1, 1]).values())
    assert pair_metrics([1, 1, 1], [1, 0, 0], ties="worst")["roc_auc"] == 0


def test_a_new_metric_is_measured_and_a_choice_by_its_entry_alone():
    code = (
        "from functools import partial; import workbench.ranking.metrics as m; "
        "m.RANKING_METRICS['recall@3'] = partial(m.recall, k=3); "
        "m.METRICS = (*m.RANKING_METRICS, *m.PAIR_METRICS); "
        "from workbench.runs.parameters import Parameters; "
        "Parameters(metric='recall@3'); "
        "assert m.rank_metrics([[2, 1]], [[0, 1]])['recall@3'].tolist() == [1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(ValueError, match="'ndcg@10', 'mrr@10', 'map'"):
        Parameters(metric="recall@3")


def test_metrics_need_numpy_alone():
    code = "import sys, workbench.ranking.metrics; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"pandas", "scipy", "sklearn", "torch"} & set(done.stdout.split())
