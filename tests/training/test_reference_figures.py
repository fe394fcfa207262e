"""The reference figures, on real data that is not part of the project: skipped where it is absent.

The environment variable REAL_DATA names the folder.
"""

import os
from pathlib import Path

import pandas as pd
import pytest

from workbench.data.lists import read_test
from workbench.ranking.evaluation import evaluate
from workbench.scoring.baselines import (
    Bm25,
    CandidateOrder,
    CharacterJaccard,
    NgramRegression,
    RandomScorer,
    TfidfCosine,
)

DATA = Path(os.environ.get("REAL_DATA", "REAL_DATA, which is not set"))
FILES = [DATA / name for name in ("seedlike_train.csv", "seedlike_rank_dev.jsonl")]
FIGURES = {"random": 0.153, "candidate_order": 0.153, "char_jaccard": 0.584, "tfidf_cosine": 0.567}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(file.is_file() for file in FILES), reason=f"the real data is not in {DATA}"
    ),
]


@pytest.fixture(scope="module")
def measured():
    train, lists = pd.read_csv(FILES[0]), read_test(FILES[1]).lists
    scorers = {
        "random": RandomScorer(42),
        "candidate_order": CandidateOrder(),
        "char_jaccard": CharacterJaccard(),
        "tfidf_cosine": TfidfCosine([*train["sentence_0"], *train["sentence_1"]]),
        "bm25": Bm25(text for one in lists for text in one.candidates),
        "ngram_regression": NgramRegression(42).fit(train),
    }
    result = evaluate(scorers, lists, train.head(0), ties="worst", resamples=1000)
    return {row["scorer"]: row["ndcg@10"]["mean"] for row in result.metrics["rows"]}


@pytest.mark.parametrize("scorer", FIGURES)
def test_a_scorer_has_its_reference_figure(measured, scorer):
    assert measured[scorer] == pytest.approx(FIGURES[scorer], abs=0.015)


def test_the_trained_baseline_is_a_hard_one(measured):
    assert measured["ngram_regression"] >= 0.65
    assert measured["ngram_regression"] == max(measured.values())
