"""A blend of scores: fitted on dev alone, measured on the lists."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from workbench.data.build_lists import build_test
from workbench.data.pairs import split_pairs
from workbench.files import read_json
from workbench.ranking.evaluation import evaluate
from workbench.ranking.slices import try_blend
from workbench.reports.findings.ranking import blend as blend_finding
from workbench.run_folder import RunFolder
from workbench.scoring.baselines import CharacterJaccard, NgramRegression

RESAMPLES = 500


class Knowing:
    """Knows which pairs are positive, as well as `sharpness` says, whichever split they are in."""

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
def splits(sample):
    return tuple(split_pairs(sample, 0.3, 0.4)[name] for name in ("train", "dev", "test"))


@pytest.fixture(scope="module")
def lists(splits):
    return build_test(splits[2], 20).lists


@pytest.fixture(scope="module")
def positives(splits, lists):
    texts = pd.concat(splits)
    found = texts[texts["label"] >= 0.5]
    pairs = set(zip(found["sentence_0"], found["sentence_1"], strict=True))
    for one in lists:
        pairs |= {pair for pair, gain in zip(one.pairs(), one.relevance, strict=True) if gain > 0}
    return pairs


@pytest.fixture(scope="module")
def measured(splits, lists):
    """A function that evaluates a model beside the two lexical parts."""
    train, tuned, test = splits
    lexical = {"ngram_regression": NgramRegression().fit(train), "char_jaccard": CharacterJaccard()}

    def measure(model, dev=tuned):
        scorers = {"model": model, **lexical}
        return scorers, evaluate(scorers, lists, test.head(0), resamples=RESAMPLES, dev=dev)

    return measure


class Mixed:
    """The blend as a scorer: a regression on the standardised scores of the dev pairs."""

    def __init__(self, scorers, dev):
        self.scorers = scorers
        columns = self.columns(list(zip(dev["sentence_0"], dev["sentence_1"], strict=True)))
        self.mean, self.spread = columns.mean(axis=0), columns.std(axis=0)
        fitted = LogisticRegression(max_iter=1000)
        fitted.fit((columns - self.mean) / self.spread, dev["label"] >= 0.5)
        self.weights, self.intercept = fitted.coef_[0], fitted.intercept_[0]

    def columns(self, pairs):
        return np.stack([s.score(pairs).astype(float) for s in self.scorers.values()], axis=1)

    def score(self, pairs):
        standard = (self.columns(pairs) - self.mean) / self.spread
        return (standard @ self.weights + self.intercept).astype(np.float32)


def test_what_the_model_lacks_is_seen_and_the_figures_are_those_of_a_regression_by_hand(
    measured, splits, lists, positives, tmp_path
):
    scorers, evaluation = measured(Knowing(positives, 0.5))
    blend = try_blend(tmp_path, evaluation)
    assert "ranks better than the model alone" in blend_finding(blend)
    assert blend.minus["model"]["low"] > 0
    table = blend.table()
    assert table.index[0] == "blend"
    assert set(table.index) == {*scorers, "blend"}
    assert table.loc["blend", "share"] == table.loc["blend", "p (Holm)"] == ""
    assert table["share"].str.endswith(" %").sum() == 3
    assert read_json(RunFolder(tmp_path).blend) == {"schema": 2, **blend._asdict()}
    mixed = Mixed(scorers, splits[1])
    shares = mixed.weights / np.abs(mixed.weights).sum()
    assert list(blend.shares.values()) == pytest.approx(shares, abs=1e-6)
    given = {**scorers, "blend": mixed}
    alone = evaluate(given, lists, splits[2].head(0), resamples=RESAMPLES)
    rows = {row["scorer"]: row["ndcg@10"] for row in alone.metrics["rows"]}
    assert blend.means == {name: pytest.approx(rows[name], abs=1e-9) for name in blend.means}
    gap = alone.metrics["model_minus"]["blend"]
    assert blend.minus["model"]["mean"] == pytest.approx(-gap["mean"])
    assert blend.minus["model"]["low"] == pytest.approx(-gap["high"])


def test_a_model_that_knows_all_gains_nothing(measured, positives, tmp_path):
    _, evaluation = measured(Knowing(positives, 20.0))
    report = try_blend(tmp_path, evaluation)
    assert "adds nothing that can be shown" in blend_finding(report)
    assert report.shares["model"] > 0.5


def test_dev_pairs_unlike_the_lists_are_reported(measured, splits, positives, tmp_path):
    """On dev the model is worthless, so that the blend leans on the rest, which is worse here."""
    _, dev, _ = splits
    flipped = set(zip(dev["sentence_0"], dev["sentence_1"], strict=True))
    _, evaluation = measured(Knowing(positives, 20.0, flipped))
    report = try_blend(tmp_path, evaluation)
    assert "ranks worse than the model" in blend_finding(report)


@pytest.mark.parametrize("few", ["no dev", "one class"])
def test_without_dev_pairs_there_is_none_and_it_says_why(
    few, measured, splits, positives, tmp_path
):
    _, dev, _ = splits
    given = None if few == "no dev" else dev[dev["label"] < 0.5]
    _, evaluation = measured(Knowing(positives), given)
    report = try_blend(tmp_path, evaluation)
    assert "20 dev pairs of each class, and there are 0 of one" in blend_finding(report)
    assert report.table().empty
    assert read_json(RunFolder(tmp_path).blend)["problem"] == report.problem
