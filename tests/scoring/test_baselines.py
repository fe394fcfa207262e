"""The lexical scorers: hand-computed values, what they must prefer, and what they refuse."""

import numpy as np
import pytest

from tests.conftest import labelled
from workbench.data.lists import CandidateList
from workbench.data.texts import text_pairs
from workbench.models import find_model
from workbench.scoring.baselines import (
    BASELINES,
    Bm25,
    CandidateOrder,
    CharacterJaccard,
    NgramRegression,
    RandomScorer,
    TfidfCosine,
    TokenJaccard,
)


def test_candidate_order_counts_down_along_each_query():
    pairs = [("q", "a"), ("q", "b"), ("q", "c"), ("r", "a"), ("r", "b")]
    scores = CandidateOrder().score(pairs)
    assert scores.tolist() == [0, -1, -2, 0, -1]
    assert scores.dtype == np.float32
    assert CandidateOrder().score([]).shape == (0,)


def test_bm25_by_hand():
    """One term each, so that Lucene's formula can be worked out: idf * tf / (tf + k1 * length)."""
    score = Bm25(["a", "b", "c"]).score([("a", "a"), ("a", "b")])
    idf = np.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    assert score.tolist() == pytest.approx([idf * 1 / (1 + 1.5), 0])


def test_bm25_prefers_rare_shared_characters_and_takes_candidates_it_does_not_know():
    collection = ["怎么开通会员", "怎么关闭会员", "怎么还款", "怎么借钱", "今天天气"]
    scorer = Bm25(collection)
    rare, common, none = scorer.score(
        [("怎么开通", "怎么开通会员"), ("怎么开通", "怎么借钱"), ("怎么开通", "今天天气")]
    )
    assert rare > common > none == 0
    fresh = scorer.score([("abc", "abx"), ("abc", "怎么还款"), ("好", "怎么还款")])
    assert fresh[0] > 0
    assert fresh[1:].tolist() == [0, 0]
    assert scorer.score([("怎么开通", "怎么借钱")])[0] == common  # no call changes the next one


def test_bm25_without_pairs_or_collection():
    assert Bm25().score([]).shape == (0,)
    assert Bm25().score([("", "a")]).tolist() == [0]


def test_ngram_regression_learns_what_a_shared_character_means(sample):
    scorer = NgramRegression(7).fit(sample.head(1500))
    rest = sample.tail(len(sample) - 1500)
    pairs = text_pairs(rest)
    logits = scorer.score(pairs)
    assert logits.dtype == np.float32
    assert logits.shape == (len(pairs),)
    positive = rest["label"].to_numpy() >= 0.5
    assert logits[positive].mean() > logits[~positive].mean() + 1
    assert (NgramRegression(7).fit(sample.head(1500)).score(pairs) == logits).all()
    assert scorer.score([]).shape == (0,)


def test_ngram_regression_can_reverse_what_overlap_would_say():
    """Trained where sharing `x` means irrelevant, it must rank such a pair below."""
    rows = [("ax", "ax", 0), ("bx", "bx", 0), ("cx", "dx", 0), ("a", "b", 1), ("b", "c", 1)]
    pairs = labelled(*rows * 20)
    shared, different = (
        NgramRegression(inverse_penalty=10).fit(pairs).score([("ax", "ax"), ("a", "b")])
    )
    assert shared < 0 < different


def test_ngram_regression_does_not_care_which_text_is_the_query(sample):
    scorer = NgramRegression().fit(sample)
    pairs = text_pairs(sample.head(50))
    swapped = [(second, first) for first, second in pairs]
    assert scorer.score(pairs) == pytest.approx(scorer.score(swapped), abs=1e-5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "of 0 pairs 0 are positive"),
        ([("a", "b", 1.0), ("a", "c", 0.6)], "of 2 pairs 2 are positive"),
        ([("a", "b", 0.0)], "of 1 pairs 0 are positive"),
        ([("a", "b", 1.0), ("c", "d", 0.0)], "n-gram regression"),
    ],
)
def test_ngram_regression_says_what_it_cannot_learn_from(rows, message):
    pairs = labelled(*rows)
    with pytest.raises(ValueError, match=message):
        NgramRegression().fit(pairs)


def test_ngram_regression_must_be_fitted_first():
    with pytest.raises(ValueError, match="call fit"):
        NgramRegression().score([("a", "b")])


def test_every_baseline_is_built_by_name(sample, tiny_model):
    lists = [CandidateList("怎么借钱", ("如何借款", "天气好"), (1.0, 0.0))]
    pairs = lists[0].pairs()
    given = {"train": sample, "lists": lists, "seed": 7, "tokenizer": words()}
    given["base"] = find_model(str(tiny_model))
    built = {name: one(**given) for name, one in BASELINES.items()}
    for scorer in built.values():
        assert scorer.score(pairs).shape == (2,)
        assert scorer.score(pairs).dtype == np.float32
    same = {
        "ngram_regression": NgramRegression(7).fit(sample),
        "bm25": Bm25(lists[0].candidates),
        "tfidf_cosine": TfidfCosine([*sample["sentence_0"], *sample["sentence_1"]]),
        "random": RandomScorer(7),
    }
    for name, scorer in same.items():
        assert (built[name].score(pairs) == scorer.score(pairs)).all()


def words():
    """A tokenizer that knows the words a and b."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = {"[UNK]": 0, "a": 1, "b": 2}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def test_shared_tokens_by_hand_and_all_unknown_words_are_one():
    pairs = [("a b", "b a"), ("a x", "a b"), ("xx", "yy zz"), ("", "")]
    assert TokenJaccard(words()).score(pairs).tolist() == pytest.approx([1, 1 / 3, 1, 0])


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u2003", "\u3000", "\x1d", "\x85", "\r"])
def test_white_space_of_any_kind_is_no_shared_character(space):
    same, none = CharacterJaccard().score([("a b", f"a{space}b"), (f"a{space}", f"b{space}")])
    assert (same, none) == (1, 0)


def test_without_training_pairs_tfidf_fits_the_candidates(sample):
    lists = [CandidateList("ab", ("abc", "xyz"), (1.0, 0.0))]
    tfidf = BASELINES["tfidf_cosine"](train=sample.head(0), lists=lists, seed=1)
    right, wrong = tfidf.score(lists[0].pairs())
    assert right > wrong == 0


def test_without_base_and_tokenizer_only_what_is_made_from_them_is_not_built(sample):
    built = {n: one(train=sample, lists=[], seed=1) for n, one in BASELINES.items()}
    left_out = [name for name, scorer in built.items() if scorer is None]
    assert left_out == ["base_dictionary", "token_jaccard"]


@pytest.mark.parametrize("query", ["label == 0", "label < 0"])
def test_pairs_that_teach_nothing_say_why_there_is_no_regression(sample, query):
    with pytest.raises(ValueError, match="needs training pairs of both classes"):
        BASELINES["ngram_regression"](train=sample.query(query), lists=[], seed=1)
