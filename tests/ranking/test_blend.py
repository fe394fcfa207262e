"""A blend of scores: fitted on dev alone, measured on the lists, and a scorer like any other."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from workbench.data.build_lists import build_candidates
from workbench.data.splits import split_pairs
from workbench.files import read_json
from workbench.ranking.blend import FILE, Blend, fit_blend, load_blend, try_blend
from workbench.ranking.evaluation import evaluate
from workbench.scoring.baselines import CharacterJaccard, NgramRegression

RESAMPLES = 500


class Knowing:
    """Knows which pairs are positive, as well as it is told, whatever side they are on."""

    log_odds = True

    def __init__(self, positives, sharpness=1.0, flipped=()):
        self.positives, self.sharpness, self.flipped = positives, sharpness, flipped

    def score(self, pairs):
        rng = np.random.default_rng(len(pairs))
        true = np.array([pair in self.positives for pair in pairs])
        sign = np.array([-1.0 if pair in self.flipped else 1.0 for pair in pairs])
        return (sign * self.sharpness * (2.0 * true - 1.0) + rng.normal(size=len(pairs))).astype(
            np.float32
        )


@pytest.fixture(scope="module")
def sides(sample):
    return tuple(split_pairs(sample, 0.3, 0.4)[name] for name in ("train", "dev", "test"))


@pytest.fixture(scope="module")
def lists(sides):
    return build_candidates(sides[2], 20)


@pytest.fixture(scope="module")
def positives(sides, lists):
    texts = pd.concat(sides)
    found = texts[texts["label"] >= 0.5]
    pairs = set(zip(found["sentence_0"], found["sentence_1"], strict=True))
    for one in lists:
        pairs |= {pair for pair, gain in zip(one.pairs(), one.relevance, strict=True) if gain > 0}
    return pairs


def evaluated(model, sides, lists, dev=True):
    train, tuned, test = sides
    scorers = {
        "model": model,
        "ngram_regression": NgramRegression().fit(train),
        "char_jaccard": CharacterJaccard(),
    }
    given = tuned if dev else None
    return scorers, evaluate(scorers, lists, test, resamples=RESAMPLES, dev=given)


def test_the_weights_of_made_up_labels_are_found():
    rng = np.random.default_rng(0)
    model, jaccard = rng.normal(0, 3, 40_000), rng.random(40_000)
    positive = rng.random(40_000) < expit(0.5 * model + 4 * jaccard - 3)
    dev = pd.concat(
        pd.DataFrame({"scorer": name, "positive": positive, "score": score})
        for name, score in (("model", model), ("char_jaccard", jaccard))
    )
    blend = fit_blend({"model": None, "char_jaccard": CharacterJaccard()}, dev)
    assert list(blend.weights) == ["model", "char_jaccard"]
    assert blend.weights["model"] == pytest.approx(0.5, abs=0.03)
    assert blend.weights["char_jaccard"] == pytest.approx(4, abs=0.2)
    assert blend.intercept == pytest.approx(-3, abs=0.15)


def test_its_logit_is_the_weighted_sum():
    blend = Blend({"char_jaccard": 2.0}, -1.0, {"char_jaccard": CharacterJaccard()})
    assert blend.score([("ab", "ab"), ("ab", "cd"), ("abc", "abx")]).tolist() == [1.0, -1.0, 0.0]


def test_what_the_model_lacks_is_seen_and_its_figures_are_those_of_the_scorer(
    sides, lists, positives, tmp_path
):
    scorers, evaluation = evaluated(Knowing(positives, 0.5), sides, lists)
    report = try_blend(tmp_path, scorers, evaluation, lists)
    assert "ranks better than the model alone" in report.finding()
    assert report.dev_pairs == len(sides[1])
    assert report.minus["model"]["low"] > 0
    assert sum(map(abs, report.shares.values())) == pytest.approx(1)
    table = report.table()
    assert set(table.index) == {*scorers, "blend"}
    assert table.loc["blend", "share"] == table.loc["blend", "p (Holm)"] == ""
    blend = load_blend(tmp_path, scorers)
    assert blend == fit_blend(scorers, evaluation.dev)
    alone = evaluate({**scorers, "blend": blend}, lists, sides[2], resamples=RESAMPLES)
    rows = {row["scorer"]: row["ndcg@10"] for row in alone.metrics["rows"]}
    assert report.means == {name: pytest.approx(rows[name], abs=1e-9) for name in report.means}
    gap = alone.metrics["model_minus"]["blend"]
    assert report.minus["model"]["mean"] == pytest.approx(-gap["mean"])
    assert report.minus["model"]["low"] == pytest.approx(-gap["high"])


def test_a_model_that_knows_all_gains_nothing(sides, lists, positives, tmp_path):
    scorers, evaluation = evaluated(Knowing(positives, 20.0), sides, lists)
    report = try_blend(tmp_path, scorers, evaluation, lists)
    assert "adds nothing that can be shown" in report.finding()
    assert report.shares["model"] > 0.5


def test_dev_pairs_unlike_the_lists_are_told(sides, lists, positives, tmp_path):
    """On dev the model is worthless, so that the blend leans on the rest, which is worse here."""
    _, dev, _ = sides
    flipped = set(zip(dev["sentence_0"], dev["sentence_1"], strict=True))
    scorers, evaluation = evaluated(Knowing(positives, 20.0, flipped), sides, lists)
    report = try_blend(tmp_path, scorers, evaluation, lists)
    assert "ranks worse than the model" in report.finding()


@pytest.mark.parametrize("few", ["no dev", "one class"])
def test_without_dev_pairs_there_is_none_and_it_says_why(few, sides, lists, positives, tmp_path):
    train, dev, test = sides
    if few == "one class":
        dev = dev[dev["label"] < 0.5]
    scorers, evaluation = evaluated(
        Knowing(positives), (train, dev, test), lists, dev=few != "no dev"
    )
    report = try_blend(tmp_path, scorers, evaluation, lists)
    said = {"no dev": "dev pairs to fit it on", "one class": "20 dev pairs of each class"}[few]
    assert said in report.finding()
    assert report.table().empty
    assert read_json(tmp_path / FILE)["problem"] == report.problem
    with pytest.raises(ValueError, match="has no blend"):
        load_blend(tmp_path, scorers)


def test_a_blend_is_not_loaded_without_its_parts(sides, lists, positives, tmp_path):
    with pytest.raises(ValueError, match="notebook 4 has not made one"):
        load_blend(tmp_path, {})
    scorers, evaluation = evaluated(Knowing(positives), sides, lists)
    try_blend(tmp_path, scorers, evaluation, lists)
    del scorers["char_jaccard"]
    with pytest.raises(ValueError, match="needs the scorer char_jaccard"):
        load_blend(tmp_path, scorers)
