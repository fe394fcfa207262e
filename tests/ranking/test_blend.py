"""A blend of scores: fitted on dev alone, measured on the lists."""

from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from workbench.data.build_lists import build_test
from workbench.data.splits import split_pairs
from workbench.files import read_json
from workbench.ranking.blend import fit_blend, try_blend
from workbench.ranking.evaluation import evaluate
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


def evaluated(model, splits, lists, dev=True):
    train, tuned, test = splits
    scorers = {
        "model": model,
        "ngram_regression": NgramRegression().fit(train),
        "char_jaccard": CharacterJaccard(),
    }
    given = tuned if dev else None
    return scorers, evaluate(scorers, lists, test, resamples=RESAMPLES, dev=given)


class Mixed:
    """The blend as a scorer: the weighted sum of its parts' scores."""

    def __init__(self, blend, scorers):
        self.blend, self.scorers = blend, scorers

    def score(self, pairs):
        parts = [
            weight * self.scorers[name].score(pairs).astype(float)
            for name, weight in self.blend.weights.items()
        ]
        return (sum(parts) + self.blend.intercept).astype(np.float32)


def test_the_weights_of_made_up_labels_are_found():
    rng = np.random.default_rng(0)
    model, jaccard = rng.normal(0, 3, 40_000), rng.random(40_000)
    positive = rng.random(40_000) < expit(0.5 * model + 4 * jaccard - 3)
    dev = pd.concat(
        pd.DataFrame({"scorer": name, "positive": positive, "score": score})
        for name, score in (("model", model), ("char_jaccard", jaccard))
    )
    blend = fit_blend(dev)
    assert list(blend.weights) == ["model", "char_jaccard"]
    assert blend.weights["model"] == pytest.approx(0.5, abs=0.03)
    assert blend.weights["char_jaccard"] == pytest.approx(4, abs=0.2)
    assert blend.intercept == pytest.approx(-3, abs=0.15)


def test_what_the_model_lacks_is_seen_and_its_figures_are_those_of_a_scorer_with_these_weights(
    splits, lists, positives, tmp_path
):
    scorers, evaluation = evaluated(Knowing(positives, 0.5), splits, lists)
    blend = try_blend(tmp_path, evaluation, lists)
    assert "ranks better than the model alone" in blend_finding(blend)
    assert blend.dev_pairs == len(splits[1])
    assert blend.minus["model"]["low"] > 0
    assert sum(map(abs, blend.shares.values())) == pytest.approx(1)
    assert replace(blend, means={}, minus={}) == fit_blend(evaluation.dev)
    table = blend.table()
    assert set(table.index) == {*scorers, "blend"}
    assert table.loc["blend", "share"] == table.loc["blend", "p (Holm)"] == ""
    saved = read_json(RunFolder(tmp_path).blend)
    assert saved == {"schema": 1, **asdict(blend)}
    mixed = {**scorers, "blend": Mixed(blend, scorers)}
    alone = evaluate(mixed, lists, splits[2], resamples=RESAMPLES)
    rows = {row["scorer"]: row["ndcg@10"] for row in alone.metrics["rows"]}
    assert blend.means == {name: pytest.approx(rows[name], abs=1e-9) for name in blend.means}
    gap = alone.metrics["model_minus"]["blend"]
    assert blend.minus["model"]["mean"] == pytest.approx(-gap["mean"])
    assert blend.minus["model"]["low"] == pytest.approx(-gap["high"])


def test_a_model_that_knows_all_gains_nothing(splits, lists, positives, tmp_path):
    _, evaluation = evaluated(Knowing(positives, 20.0), splits, lists)
    report = try_blend(tmp_path, evaluation, lists)
    assert "adds nothing that can be shown" in blend_finding(report)
    assert report.shares["model"] > 0.5


def test_dev_pairs_unlike_the_lists_are_reported(splits, lists, positives, tmp_path):
    """On dev the model is worthless, so that the blend leans on the rest, which is worse here."""
    _, dev, _ = splits
    flipped = set(zip(dev["sentence_0"], dev["sentence_1"], strict=True))
    _, evaluation = evaluated(Knowing(positives, 20.0, flipped), splits, lists)
    report = try_blend(tmp_path, evaluation, lists)
    assert "ranks worse than the model" in blend_finding(report)


@pytest.mark.parametrize("few", ["no dev", "one class"])
def test_without_dev_pairs_there_is_none_and_it_says_why(few, splits, lists, positives, tmp_path):
    train, dev, test = splits
    if few == "one class":
        dev = dev[dev["label"] < 0.5]
    _, evaluation = evaluated(Knowing(positives), (train, dev, test), lists, dev=few != "no dev")
    report = try_blend(tmp_path, evaluation, lists)
    said = {"no dev": "dev pairs to fit it on", "one class": "20 dev pairs of each class"}[few]
    assert said in blend_finding(report)
    assert report.table().empty
    assert read_json(RunFolder(tmp_path).blend)["problem"] == report.problem
