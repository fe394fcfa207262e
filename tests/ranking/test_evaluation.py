"""Measuring scorers on lists, broken scorers, and what may be claimed from the numbers."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from workbench.data.build_lists import build_test
from workbench.data.lists import CandidateList, read_test
from workbench.files import read_json
from workbench.ranking.evaluation import (
    evaluate,
    rank_query,
    save_evaluation,
    score_lists,
    worst_queries,
)
from workbench.ranking.metrics import RANKING_METRICS, recall
from workbench.ranking.uncertainty import format_estimate
from workbench.reports import findings
from workbench.scoring.baselines import CharacterJaccard, RandomScorer

LISTS = [
    CandidateList("ab", ("ab!", "cd", "xy"), (1.0, 0.0, 0.0)),
    CandidateList("cd", ("zz", "c", "ab"), (0.0, 1.0, 0.0)),
]
NO_PAIRS = pd.DataFrame({"sentence_0": [], "sentence_1": [], "label": []})


class Fixed:
    """A scorer with given scores."""

    def __init__(self, values):
        self.values = values

    def score(self, pairs):
        return np.resize(np.asarray(self.values, dtype=np.float32), len(pairs))


class Reversed(CharacterJaccard):
    def score(self, pairs):
        return -super().score(pairs)


@pytest.fixture(scope="module")
def lists(sample):
    return build_test(sample, 20).lists[:120]


def row_of(result, name):
    return next(row for row in result.metrics["rows"] if row["scorer"] == name)


def test_scores_go_back_to_their_lists():
    first, second = score_lists(Fixed(range(6)), LISTS)
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [3, 4, 5]


def test_evaluation_by_hand(tmp_path):
    scorers = {
        "model": Fixed([3, 2, 1, 3, 2, 1]),
        "char_jaccard": CharacterJaccard(),
        "constant": Fixed([0]),
    }
    result = evaluate(scorers, LISTS, NO_PAIRS, resamples=200, ties="worst", seen=3)
    assert row_of(result, "model")["mrr@10"]["mean"] == pytest.approx((1 + 1 / 2) / 2)
    assert row_of(result, "char_jaccard")["ndcg@10"]["mean"] == 1
    assert row_of(result, "constant")["mrr@10"]["mean"] == pytest.approx(1 / 3)
    gap = result.metrics["model_minus"]["char_jaccard"]
    assert gap["mean"] == pytest.approx(row_of(result, "model")["ndcg@10"]["mean"] - 1)
    assert gap["p"] <= gap["p_holm"] <= 1
    kept = [result.metrics[name] for name in ("ties", "seen", "gain")]
    assert kept == ["worst", 3, "linear"]
    folder = save_evaluation(tmp_path, result)
    assert read_json(folder / "metrics.json") == result.metrics
    assert len(pd.read_parquet(folder / "per_query.parquet")) == 6
    worst = worst_queries(result, 1)
    assert worst.loc[0, ["query", "best_positive", "ranked_first"]].tolist() == ["cd", "c", "zz"]
    assert worst.loc[0, "rank"] == 2
    assert result.table().index[0] == "char_jaccard"
    assert list(result.table("ranking")) == list(RANKING_METRICS)
    assert list(result.table("pairs")) == []  # there were no pairs
    assert result.best_other() == "char_jaccard"
    assert result.differences().index.tolist() == ["char_jaccard", "constant"]


def test_a_new_metric_is_in_every_table_by_its_entry_alone(monkeypatch, tmp_path):
    monkeypatch.setitem(RANKING_METRICS, "recall@20", partial(recall, k=20))
    result = evaluate({"model": CharacterJaccard()}, LISTS, NO_PAIRS, resamples=100)
    assert row_of(result, "model")["recall@20"]["mean"] == 1
    assert "recall@20" in result.table("ranking")
    folder = save_evaluation(tmp_path, result)
    assert pd.read_parquet(folder / "per_query.parquet")["recall@20"].tolist() == [1, 1]
    assert read_test(folder / "candidates.jsonl").lists == LISTS


def test_odd_queries_stay_in_every_mean_and_are_counted():
    odd = [
        *LISTS,
        CandidateList("none", ("a", "b"), (0.0, 0.0)),
        CandidateList("empty", (), (), (1.0,)),
    ]
    result = evaluate({"model": CharacterJaccard()}, odd, NO_PAIRS, resamples=100)
    assert row_of(result, "model")["ndcg@10"]["mean"] == pytest.approx(2 / 4)
    assert result.metrics["odd_queries"]["without_candidate"] == 1
    assert result.metrics["odd_queries"]["without_positive"] == 1
    assert len(worst_queries(result, 9)) == 4


@pytest.mark.parametrize(
    ("values", "error"),
    [([np.nan], r"scorer 'model': query 0 \('ab'\)"), ([np.inf], "it must be finite")],
)
def test_a_scorer_that_gives_no_number_is_caught(values, error):
    with pytest.raises(ValueError, match=error):
        evaluate({"model": Fixed(values)}, LISTS, NO_PAIRS)


def test_a_pair_score_that_is_not_finite_names_the_pair(sample):
    class Late(CharacterJaccard):
        def score(self, pairs):
            scores = super().score(pairs)
            return np.full_like(scores, np.nan) if len(pairs) == 10 else scores

    with pytest.raises(ValueError, match=r"scorer .model.: the score of the pair .* is nan"):
        evaluate({"model": Late()}, LISTS, sample.head(10), resamples=100)


def test_a_constant_scorer_is_caught(lists):
    """It gets what random order gets, is named as one that does not rank, and claims nothing."""
    scorers = {"model": Fixed([0.7]), "random": RandomScorer(1), "char_jaccard": CharacterJaccard()}
    result = evaluate(scorers, lists, NO_PAIRS, resamples=2000)
    ranks = evaluate({"model": RandomScorer(1)}, lists, NO_PAIRS, resamples=100)
    gap = result.metrics["model_minus"]["random"]
    assert gap["low"] < 0 < gap["high"]
    assert result.metrics["queries_all_tied"]["model"] == 1
    assert "No ranking in most queries: `model`" in findings.ties(result.metrics)
    assert "No scorer gives" in findings.ties(ranks.metrics)
    assert "ranks worse than `char_jaccard`" in findings.verdict(result.metrics)
    strict = evaluate(scorers, lists, NO_PAIRS, resamples=200, ties="worst")
    assert row_of(strict, "model")["mrr@10"]["mean"] < row_of(result, "random")["mrr@10"]["mean"]
    assert row_of(strict, "model")["success@5"]["mean"] == 0


def test_a_reversed_scorer_is_reported_as_worse(lists):
    result = evaluate({"model": Reversed(), "char_jaccard": CharacterJaccard()}, lists, NO_PAIRS)
    assert "worse than `char_jaccard`" in findings.verdict(result.metrics)
    swapped = evaluate({"char_jaccard": Reversed(), "model": CharacterJaccard()}, lists, NO_PAIRS)
    assert "better than every baseline" in findings.verdict(swapped.metrics)
    same = evaluate({"a": CharacterJaccard(), "model": CharacterJaccard()}, lists, NO_PAIRS)
    assert "cannot be told apart" in findings.verdict(same.metrics)
    assert same.metrics["model_minus"]["a"]["p"] == 1


def test_intervals_draw_whole_groups_of_queries():
    """Forty copies of a query that is lost and one that is won are two observations."""
    copies = [CandidateList("ab", ("x", f"n{n}"), (1.0, 0.0)) for n in range(40)]
    single = [CandidateList(f"q{n}", (f"x{n}", "n"), (1.0, 0.0)) for n in range(40)]
    scorer = Fixed([1, 2, 2, 1])
    together = evaluate({"model": scorer}, [*copies, *copies], NO_PAIRS, resamples=500)
    apart = evaluate({"model": scorer}, single, NO_PAIRS, resamples=500)
    assert together.metrics["query_groups"] == 1
    assert apart.metrics["query_groups"] == 40
    one, other = (row_of(r, "model")["mrr@10"] for r in (together, apart))
    assert one["low"] == one["high"]
    assert other["low"] < other["high"]


def test_threshold_comes_from_dev_and_without_dev_there_is_none(sample):
    test, dev = sample.head(300), sample.tail(300)
    scorer = {"model": CharacterJaccard()}
    found = evaluate(scorer, LISTS, test, resamples=100, dev=dev)
    threshold = found.metrics["thresholds"]["model"]
    pairs = list(zip(test["sentence_0"], test["sentence_1"], strict=True))
    called = CharacterJaccard().score(pairs) >= threshold
    assert row_of(found, "model")["accuracy"]["mean"] == pytest.approx(
        (called == (test["label"] >= 0.5)).mean()
    )
    assert row_of(found, "model")["brier"]["mean"] is None  # no log-odds, no probability
    assert "fitted on 300 dev pairs" in findings.pairs(found.metrics)
    for empty in (None, sample.head(0), sample[sample["label"] == 0]):
        without = evaluate(scorer, LISTS, test, resamples=100, dev=empty)
        assert without.metrics["thresholds"]["model"] is None
        assert row_of(without, "model")["f1"]["mean"] is None
        assert "no threshold can be fitted" in findings.pairs(without.metrics)


def test_log_odds_have_a_calibration(sample):
    class Logit(CharacterJaccard):
        log_odds = True

    result = evaluate({"model": Logit()}, LISTS, sample.head(200), resamples=100)
    row = row_of(result, "model")
    scores = result.scored()
    probability = 1 / (1 + np.exp(-scores["score"]))
    assert row["brier"]["mean"] == pytest.approx(((probability - scores["positive"]) ** 2).mean())
    assert 0 <= row["ece"]["mean"] <= 1
    assert row["brier_skill"]["high"] < 0
    assert "is not shown that its probabilities tell more" in findings.calibration(result.metrics)


def test_pairs_of_one_class_are_not_averaged_over_nothing(sample):
    positives = sample[sample["label"] == 1].head(5)
    result = evaluate({"model": CharacterJaccard()}, LISTS, positives, resamples=100)
    assert result.metrics["rows"][0]["ap"] == {"mean": None, "low": None, "high": None}
    assert result.table().loc["model", "ap"] == "not defined"
    assert "nothing to compare" in findings.verdict(result.metrics)
    assert "of one class" in findings.pairs(result.metrics)


def test_progress_is_a_line_for_each_scorer_with_the_seconds_left(capsys):
    class Model(CharacterJaccard):
        def expect(self, pairs):
            self.expected = pairs

    evaluate({"model": Model(), "a": Fixed([1]), "base": Model()}, LISTS, NO_PAIRS, resamples=100)
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("model: 6 pairs in ")
    assert first.endswith(" s left")
    assert second.startswith("a: 6 pairs in ")
    assert "left" not in last


def test_no_list_is_an_error():
    with pytest.raises(ValueError, match="no candidate list"):
        evaluate({"model": Fixed([1])}, [], NO_PAIRS)


def test_one_query_is_ranked_by_the_first_scorer():
    ranked = rank_query({"model": CharacterJaccard(), "b": Fixed([1])}, "ab", ["x", "ab", "a", "x"])
    assert ranked["candidate"].tolist() == ["ab", "a", "x"]
    assert list(ranked.columns) == ["candidate", "model", "b"]


def test_scored_candidates_stand_in_for_pairs(lists):
    result = evaluate({"model": CharacterJaccard()}, lists, NO_PAIRS, resamples=100)
    assert len(result.scored()) == sum(len(one.candidates) for one in lists)
    assert "no labelled test pairs" in findings.pairs(result.metrics)
    assert "not defined here" in findings.calibration(result.metrics)


def test_the_finding_about_lists_names_what_is_odd():
    odd = {"without_candidate": 1, "without_positive": 1, "one_candidate": 1, "all_positive": 0}
    recipe = {"queries": 4, "candidates": 9, "positives": 3, "kinds": {"positive": 3}, "order": "x"}
    counts = {"missed_positives": 2, "queries_without_judgement": 1, "paraphrases_kept_out": 5}
    suspects = pd.DataFrame({"reason": ["equal", "group", "group"]})
    text = findings.lists(recipe | counts | {"odd_queries": odd}, suspects)
    for words in (
        "nothing relevant to rank, which score 0: 2.",
        "every order is equally good: 1",
        "not among the candidates: 2;",
        "probably true paraphrases: 3",
        "1 equal",
        "2 connected",
        "for want of a judgement: 1.",
        "paraphrases of the query: 5.",
    ):
        assert words in text
    clean = recipe | {"missed_positives": 0, "odd_queries": dict.fromkeys(odd, 0)}
    text = findings.lists(clean, suspects.head(0))
    assert "**" not in text
    assert "No negative looks like" in text


def test_small_findings_follow_their_numbers():
    assert "1 of the 2 queries" in findings.leak(1, 2, 9)
    assert "None of the 2" in findings.leak(0, 2, 9)
    assert "cannot be told" in findings.leak(0, 2, 0)
    assert findings.left_out({}) == "No scorer is left out."
    assert "`base`, because x" in findings.left_out({"base": "x"})
    assert "better than `a`: 1; worse: 2; equal: 1." in findings.scatter(
        [1, 0, 0, 0.5], [0, 1, 1, 0.5], "a"
    )
    assert format_estimate({"mean": None, "low": None, "high": None}) == "not defined"
    assert format_estimate({"mean": 0.5, "low": None, "high": None}) == "0.500"


@pytest.mark.parametrize(
    ("means", "words"),
    [
        ((0.2, 0.4, 0.6), "still rising"),
        ((0.2, 0.6, 0.4), "higher before"),
        ((0.2, 0.6, 0.6), "flattening"),
        ((0.2, 0.6), "It takes three points"),
        ((0.6, 0.2), "higher before"),
    ],
)
def test_the_finding_about_a_learning_curve(means, words):
    curve = pd.DataFrame({"pairs": range(len(means)), "mean": means})
    curve["low"], curve["high"] = curve["mean"] - 0.05, curve["mean"] + 0.05
    assert words in findings.curve(curve)
    assert "kept no snapshots" in findings.curve(curve.head(0))
