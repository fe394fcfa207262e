"""Slices, kinds of negatives, and the figures of ranking."""

import warnings

import numpy as np
import pandas as pd
import pytest

from tests.ranking.test_evaluation import NO_PAIRS, Fixed
from workbench.data.build_lists import build_test
from workbench.data.lists import CandidateList
from workbench.ranking.evaluation import evaluate
from workbench.ranking.slices import equal_overlap, pairwise_orders, query_features, slice_table
from workbench.reports import findings
from workbench.reports.figures.ranking import (
    ladder,
    learning_curve,
    model_against,
    reliability_plot,
    score_distributions,
    slices_plot,
)
from workbench.reports.figures.style import new_axes, show
from workbench.scoring.baselines import CharacterJaccard, RandomScorer


@pytest.fixture(scope="module")
def lists(sample):
    return build_test(sample, 15).lists[:100]


@pytest.fixture(scope="module")
def evaluation(sample, lists):
    scorers = {"model": RandomScorer(2), "char_jaccard": CharacterJaccard()}
    return evaluate(scorers, lists, sample.head(200), resamples=200)


@pytest.fixture(scope="module")
def features(lists, sample):
    return query_features(lists, None, sample.head(100))


def test_features_by_hand(tiny_model):
    from workbench.models import find_model, load_tokenizer

    lists = [
        CandidateList("怎么xx龘", ("怎么", "龘", "y"), (1.0, 1.0, 0.0)),
        CandidateList("开通", ("a",), (0.0,)),
    ]
    train = pd.DataFrame({"sentence_0": ["怎么x"], "sentence_1": ["开通"], "label": [1.0]})
    found = query_features(lists, load_tokenizer(find_model(str(tiny_model))), train)
    assert found["length"].tolist() == [5, 2]
    assert found["overlap"].iloc[0] == pytest.approx(2 / 4)
    assert np.isnan(found["overlap"].iloc[1])
    assert found["characters"].tolist() == [1, 0]
    assert found["positives"].tolist() == [2, 0]
    assert found["[UNK] share"].iloc[0] > 0
    assert found["[UNK] share"].iloc[1] == 0
    bare = query_features(lists)
    assert bare[["[UNK] share", "characters"]].isna().all().all()


def test_slices_of_a_dimension_share_out_all_queries(evaluation, features, lists):
    slices = slice_table(evaluation, features)
    assert (slices["other"] == "char_jaccard").all()
    for dimension in ("length", "overlap", "characters", "positives"):
        part = slices[slices["dimension"] == dimension]
        assert part["queries"].sum() == len(lists)
        whole = (part["queries"] * part["model"]).sum() / len(lists)
        assert whole == pytest.approx(evaluation.values("model").mean())
    assert (slices.loc[slices["queries"] < 30, "small"]).all()
    assert slices["small"].any()
    assert not slices["small"].all()
    assert (slices["gap"] - (slices["model"] - slices["other_mean"])).abs().max() < 1e-9
    assert slices.query("queries < 10")["gap_low"].isna().all()
    slices = slices.dropna(subset="gap_low")
    for name, mean in (("model", "model"), ("other", "other_mean"), ("gap", "gap")):
        assert (slices[f"{name}_low"] <= slices[mean] + 1e-9).all()
        assert (slices[mean] <= slices[f"{name}_high"] + 1e-9).all()
    assert "[UNK] share" not in set(slices["dimension"])  # nothing was known of tokens


def test_slices_need_a_model(lists, features, sample):
    alone = evaluate({"char_jaccard": CharacterJaccard()}, lists, sample.head(0), resamples=100)
    with pytest.raises(ValueError, match="a scorer called 'model'"):
        slice_table(alone, features)


@pytest.mark.parametrize(("ties", "tie"), [("expected", 0.5), ("worst", 0.0)])
def test_pairwise_orders_by_hand(ties, tie):
    kinds = ("positive", "look_alike", "random", "random")
    lists = [CandidateList("q", ("p", "l", "r", "s"), (1.0, 0.0, 0.0, 0.0), kinds=kinds)]
    result = evaluate({"model": Fixed([2, 3, 1, 2])}, lists, NO_PAIRS, ties=ties, resamples=100)
    found = pairwise_orders(result).set_index("kind")
    assert found["mean"].to_dict() == {"look_alike": 0.0, "random": (1 + tie) / 2}
    assert found["orders"].to_dict() == {"look_alike": 1, "random": 2}


def test_negatives_of_unknown_origin_are_told_by_overlap():
    lists = [CandidateList("abcd", ("abcx", "abxy", "mn"), (1.0, 0.0, 0.0))]
    result = evaluate({"model": CharacterJaccard()}, lists, NO_PAIRS, resamples=100)
    assert pairwise_orders(result)["kind"].tolist() == ["look_alike", "random"]


def test_pairs_of_equal_overlap_by_hand():
    # Overlaps with the query: 3/4 for p, l and m, 0 for r. So (p, l) and (p, m) count, (p, r) not.
    lists = [CandidateList("abcd", ("abc", "bcd", "acd", "xyz"), (1.0, 0.0, 0.0, 0.0))]
    scorers = {"model": Fixed([2, 1, 3, 9]), "char_jaccard": CharacterJaccard()}
    found = equal_overlap(evaluate(scorers, lists, NO_PAIRS, resamples=100))
    assert found.set_index("scorer")["mean"].to_dict() == {"model": 0.5, "char_jaccard": 0.5}
    assert found["orders"].tolist() == [2, 2]
    text = findings.equal_overlap(found)
    assert text.startswith("The model is right in 0.500 of 2 pairwise orders")
    assert "No positive" in findings.equal_overlap(found.head(0))
    found.loc[found["scorer"] == "char_jaccard", "mean"] = 0.75
    assert "`char_jaccard` is right most often, in 0.750" in findings.equal_overlap(found)


def test_findings_about_slices_and_negatives(evaluation, features):
    slices = slice_table(evaluation, features)
    whole = slices[~slices["small"]]
    said = findings.slices(slices)
    assert f"Of {len(whole)} slices" in said
    assert f"behind `char_jaccard` in {int((whole['gap_high'] < 0).sum())} and" in said
    assert "too small" in findings.slices(slices[slices["small"]])
    orders = pairwise_orders(evaluation)
    assert "Against" in findings.negatives(orders)
    assert "one kind" in findings.negatives(orders[orders["kind"] == "random"])


def figures(evaluation, features):
    slices = slice_table(evaluation, features)
    curve = pd.DataFrame(
        {"pairs": [0, 500], "mean": [0.2, 0.5], "low": [0.1, 0.4], "high": [0.3, 0.6]}
    )
    scored = evaluation.scored()
    return {
        "ladder": lambda ax: ladder(evaluation.metrics, ax),
        "scatter": lambda ax: model_against(evaluation, "char_jaccard", 1, ax),
        "scores": lambda ax: score_distributions(scored, ax),
        "reliability": lambda ax: reliability_plot(scored, ax),
        "slices": lambda ax: slices_plot(slices, ax),
        "curve": lambda ax: learning_curve(curve, "bm25", 0.6, ax),
    }


TITLES = {
    "ladder": "char_jaccard is first by ndcg@10",
    "scatter": "by char_jaccard: ",
    "scores": "of the positives score above",
    "reliability": "points too",
    "slices": "Behind char_jaccard in",
    "curve": "+0.300 nDCG@10 from 0 to 500 training pairs",
}


@pytest.mark.parametrize("name", TITLES)
def test_a_figure_uses_the_axes_given_labels_them_and_says_what_it_shows(
    name, evaluation, features, tmp_path
):
    draw = figures(evaluation, features)[name]
    ax = new_axes()
    assert draw(ax) is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert TITLES[name] in ax.get_title(loc="left")
    assert draw(None) is not ax
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        show(ax, run_dir=tmp_path, name=name)
    assert (tmp_path / f"figures/{name}.png").stat().st_size > 5000


def test_small_slices_are_grey(evaluation, features):
    slices = slice_table(evaluation, features)
    ax = slices_plot(slices)
    colors = [label.get_color() for label in ax.get_yticklabels()]
    assert [color == "#9CA3AF" for color in colors] == slices["small"].tolist()[::-1]


def test_lists_with_nothing_to_compare_are_drawn_and_said_all_the_same():
    """One query with one candidate, one without a positive: every figure and sentence exists."""
    lists = [CandidateList("ab", ("abc",), (1.0,)), CandidateList("cd", ("x", "y"), (0.0, 0.0))]
    scorers = {"model": CharacterJaccard(), "random": RandomScorer(1)}
    result = evaluate(scorers, lists, NO_PAIRS, resamples=100)
    orders = pairwise_orders(result)
    assert orders.empty
    assert "one kind of negative only" in findings.negatives(orders)
    slices = slice_table(result, query_features(lists))
    assert slices_plot(slices).get_title(loc="left") == "Behind random in 0 of 0 slices"
    assert "too small" in findings.slices(slices)
    assert model_against(result, "random").get_title(loc="left")
    assert "Too few queries to say anything" in findings.verdict(result.metrics)


def test_one_label_only_is_said():
    scored = pd.DataFrame({"positive": [True, True], "score": [1.0, 1.0]})
    assert score_distributions(scored).get_title(loc="left") == "There is one label only"
