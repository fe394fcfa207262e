"""Findings follow their numbers; phrases; and the names that the rooms lend to notebooks."""

import numpy as np
import pandas as pd
import pytest

from workbench.data.lists import CandidateList
from workbench.ranking.evaluation import evaluate
from workbench.ranking.slices import (
    Blend,
    equal_overlap,
    pairwise_orders,
    query_features,
    slice_table,
)
from workbench.reports import figures, findings
from workbench.training.log import LOG_COLUMNS


@pytest.fixture
def manifest():
    splits = {
        "train": {"pairs": 80, "positives": 40, "label_mean": 0.5},
        "dev": {"pairs": 0, "positives": 0, "label_mean": None},
        "test": {"pairs": 20, "positives": 9, "label_mean": 0.45},
    }
    rows = {"read": 1000, "usable": 1000, "bad": 0, "used": 100}
    groups = {"count": 60, "largest_share": 0.1}
    return {"rows": rows, "bad_rows": {}, "sides": splits, "groups": groups}


def test_phrases():
    assert findings.count(1, "query") == "1 query"
    assert findings.count(2000, "query") == "2,000 queries"
    assert findings.count(0, "pair") == "0 pairs"
    assert findings.names(["a", "b", "c"]) == "`a`, `b` and `c`"
    assert findings.code("a`b\n\nc") == "`a'b c`"
    assert findings.sentences("{a}", False, "", "b.") == "{a} b."


def test_rows_and_splits(manifest):
    assert findings.bad_rows(manifest).endswith("No row was set aside.")
    bad = {"empty": {"count": 2, "meaning": "a text is {empty}"}}
    rows = manifest["rows"] | {"bad": 2}
    text = findings.bad_rows(manifest | {"rows": rows, "bad_rows": bad})
    assert "**2 set aside**: 2 because a text is {empty}." in text
    text = findings.split(manifest)
    assert "train 80 (label mean 0.500), dev 0, test 20 (label mean 0.450)." in text
    assert "only 9 positives" in text
    manifest["groups"]["largest_share"] = 0.5
    manifest["sides"]["test"]["positives"] = 0
    text = findings.split(manifest | {"test_pairs": {"pairs_kept_out_of_train": 7}})
    for words in ("a text with it: 7.", "holds 50 % of the pairs", "has no positive"):
        assert words in text


def test_runs_in_words():
    assert findings.states([]) == "0 runs: none."
    assert findings.differences([], pd.DataFrame()) == "There are not two runs to compare."
    assert findings.seeds(pd.DataFrame()) == "No run has `ndcg@10` yet."
    rows = [{"runs": 1, "mean": 0.5, "sd": None, "p_corrected": None}]
    assert "more than one seed" in findings.seeds(pd.DataFrame(rows))
    rows = [{"runs": 2, "mean": 0.5, "sd": 0.1, "p_corrected": None}]
    assert findings.seeds(pd.DataFrame(rows)).endswith("(mean standard deviation of 1 setting).")


@pytest.mark.parametrize("room", [findings, figures])
def test_every_lazy_name_is_a_function_of_the_room(room):
    names = dir(room)
    assert len(names) > 8
    for name in names:
        found = getattr(room, name)
        assert found.__module__.startswith(room.__name__), name
        assert found.__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = room.no_such_name


PRAISE = (
    "ranks better than every",
    "The blend ranks better",
    "nearly right",
    "and tell more than",
    "Its probabilities tell more",
    "still rising",
    "An easy test has few",
    "ahead of 1",
    "is ahead in 1",
    "picture is stable",
)


class Fixed:
    """A scorer of logits: 1 for texts that hold the mark, else 0; or one value for all."""

    log_odds = True

    def __init__(self, mark):
        self.mark = mark

    def score(self, pairs):
        return np.array([self.mark in text for _, text in pairs], dtype=np.float32) - 1.6


NO_GAP = {"mean": 0.0, "low": -0.01, "high": 0.01, "p_holm": 1.0}


def world(queries, groups, model, other="none", dev=0, ties="expected"):
    """Findings of notebook 4 on `queries` lists of `groups` independent ones, by name."""
    more = ((1.0, 0.0, 0.0), (), ("positive", "look_alike", "random"))
    lists = [
        CandidateList(f"q{n}", (f"q{n % groups} right", f"q{n} wrong", f"wrong {n}"), *more)
        for n in range(queries)
    ]
    rows = [(f"a{n % groups}", f"b{n} {'right' * (n % 6 == 0)}", n % 6 == 0) for n in range(90)]
    pairs = pd.DataFrame(rows, columns=["sentence_0", "sentence_1", "label"])
    pairs["label"] = pairs["label"].astype(float)
    scorers = {"model": Fixed(model), "other": Fixed(other)}
    found = evaluate(scorers, lists, pairs, ties=ties, resamples=200, dev=pairs.head(dev))
    metrics, orders = found.metrics, pairwise_orders(found)
    curve = pd.DataFrame([{"pairs": n} | metrics["rows"][0]["ndcg@10"] for n in (0, 10, 20)])
    gap = metrics["model_minus"]["other"] if model == other or groups < 10 else NO_GAP
    blend = Blend(means={n: {"mean": 0.5} for n in ("model", "blend")}, minus={"model": gap})
    return metrics, {
        "backends": findings.backends(metrics),
        "blend": findings.blend(blend),
        "calibration": findings.calibration(metrics),
        "curve": findings.curve(curve.astype(float)),
        "equal_overlap": findings.equal_overlap(equal_overlap(found)),
        "intervals": findings.intervals(metrics),
        "leak": findings.leak(0, queries, 0),
        "left_out": findings.left_out({}),
        "negatives": findings.negatives(orders),
        "pairs": findings.pairs(metrics),
        "scatter": findings.scatter(found.values("model"), found.values("other"), "other"),
        "slices": findings.slices(slice_table(found, query_features(lists))),
        "ties": findings.ties(metrics),
        "verdict": findings.verdict(metrics),
    }


WORLDS = {
    "a constant model": (
        {"queries": 60, "groups": 60, "model": "none", "other": "wrong"},
        {
            "verdict": "it does not rank",
            "ties": "No ranking in most queries: `model`",
            "calibration": "is not shown that its probabilities tell more",
            "equal_overlap": "not shown to be better than guessing",
            "negatives": "no difference that could not be chance",
        },
    ),
    "a constant model with the worst ties": (
        {"queries": 60, "groups": 60, "model": "none", "other": "right", "ties": "worst"},
        {"verdict": "ranks worse than `other`", "ties": "irrelevant candidates are put first"},
    ),
    "ten dev pairs": (
        {"queries": 60, "groups": 60, "model": "none", "dev": 10},
        {
            "pairs": "constant answer.**",
            "verdict": "gives all candidates of most queries the same score",
        },
    ),
    "one group of queries": (
        {"queries": 60, "groups": 1, "model": "right"},
        {
            "verdict": "Too few queries to say anything",
            "intervals": "there is none",
            "calibration": "too few independent test pairs",
            "blend": "no interval",
            "curve": "no trend is shown",
            "slices": "too small",
        },
    ),
    "nine queries": (
        {"queries": 9, "groups": 9, "model": "right"},
        {"verdict": "Too few queries to say anything", "intervals": "there is none"},
    ),
    "equal scorers": (
        {"queries": 60, "groups": 60, "model": "wrong", "other": "wrong"},
        {
            "verdict": "`other` cannot be told apart",
            "scatter": "equal: 60.",
            "blend": "adds nothing that can be shown",
        },
    ),
    "a model that ranks in reverse": (
        {"queries": 60, "groups": 60, "model": "wrong", "other": "right"},
        {"verdict": "ranks worse than `other`", "equal_overlap": "guessing"},
    ),
    "twelve groups": (
        {"queries": 60, "groups": 12, "model": "wrong", "other": "wrong"},
        {"verdict": "too narrow", "intervals": "12 groups that share no query"},
    ),
}


@pytest.mark.parametrize("name", WORLDS)
def test_numbers_that_show_nothing_are_never_praised(name):
    given, said = WORLDS[name]
    _, texts = world(**given)
    for finding, text in texts.items():
        assert not [words for words in PRAISE if words in text], (finding, text)
        assert "nan" not in text, (finding, text)
    for finding, words in said.items():
        assert words in texts[finding], texts[finding]


def test_a_model_that_is_right_may_be_praised():
    """Otherwise the test above could pass because nothing is ever said."""
    metrics, texts = world(60, 60, "right", "wrong", dev=90)
    assert "ranks better than every baseline" in texts["verdict"]
    assert "constant answer.**" not in texts["pairs"]
    assert metrics["query_groups"] == 60


EMPTY = pd.DataFrame([{"stage": "stage 1", "step": 1, "steps": 9}], columns=LOG_COLUMNS)
RUNS = pd.DataFrame({"state": ["failed", "done"]})
LEADS = {"runs": [2, 2], "mean": [0.7, 0.6], "sd": [0.1, 0.1], "queries": [None, 60]}


def leads(lead, low, high, p):
    columns = {"lead": lead, "low": low, "high": high, "p_corrected": p}
    return pd.DataFrame(LEADS | {name: [None, value] for name, value in columns.items()})


ELSEWHERE = {
    "best": lambda: findings.best([], pd.DataFrame()),
    "differences": lambda: findings.differences([], pd.DataFrame()),
    "failures": lambda: findings.failures(RUNS),
    "states": lambda: findings.states([]),
    "unmeasured": lambda: findings.unmeasured([]),
    "seeds": lambda: findings.seeds(leads(-0.1, -0.2, -0.05, 0.001)),
    "dev": lambda: findings.dev(EMPTY, {}),
    "dev of an empty log": lambda: findings.dev(EMPTY.head(0), {}),
    "loss of an empty log": lambda: findings.loss(EMPTY.head(0)),
    "label_efficiency": lambda: findings.label_efficiency(EMPTY.head(0)),
    "gradient": lambda: findings.gradient(EMPTY, {}),
    "warm_up": lambda: findings.warm_up(None),
}


def test_every_finding_meets_adversarial_numbers():
    _, texts = world(20, 20, "none")
    texts |= {name: finding() for name, finding in ELSEWHERE.items()}
    own = [
        n for n in dir(findings) if getattr(findings, n).__module__.endswith(("ranking", "runs"))
    ]
    helpers = {"lists", "claimed", "gap", "use"}  # which conclude nothing, or are in the others
    assert texts.keys() >= set(own) - helpers
    assert {name.partition(" ")[0] for name in texts} <= set(dir(findings))
    for name, text in texts.items():
        assert text, name
        assert not [words for words in PRAISE if words in text], (name, text)


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        ((-0.1, -0.2, -0.05, 0.001), "ahead of 0 and **clearly behind 1** of the 1 other"),
        ((0.1, 0.05, 0.2, 0.001), "ahead of 1 of the 1 other"),
        ((0.1, -0.05, 0.2, 0.001), "ahead of 0 of the 1 other"),
        ((0.1, 0.05, 0.2, 0.06), "ahead of 0 of the 1 other"),
        ((0.1, None, None, 0.001), "ahead of 0 of the 1 other"),
        ((None, None, None, None), "With 1 it shares no seed and query"),
    ],
)
def test_the_lead_of_a_setting_has_a_sign_and_an_interval(lead, words):
    assert words in findings.seeds(leads(*lead))
