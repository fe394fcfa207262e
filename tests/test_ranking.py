import numpy as np
import pandas as pd
import pytest

from workbench import findings
from workbench.baselines import CharacterJaccard, RandomScorer, TfidfCosine
from workbench.candidates import (
    CandidateError,
    CandidateList,
    build_candidates,
    character_overlap,
    look_alikes,
    read_candidates,
    write_candidates,
)
from workbench.evaluation import (
    evaluate,
    rank_query,
    save_evaluation,
    score_lists,
    seen_queries,
    worst_queries,
)
from workbench.files import read_json

LISTS = [
    CandidateList("ab", ("ab!", "cd", "xy"), (1.0, 0.0, 0.0)),
    CandidateList("cd", ("zz", "c", "ab"), (0.0, 1.0, 0.0)),
]
NO_PAIRS = pd.DataFrame({"sentence_0": [], "sentence_1": [], "label": []})


class Fixed:
    """A scorer that gives what it is told."""

    def __init__(self, values):
        self.values = values

    def score(self, pairs):
        return np.resize(np.asarray(self.values, dtype=np.float32), len(pairs))


def test_jaccard_by_hand():
    scores = CharacterJaccard().score([("ab", "bc"), ("a b", "ba"), ("", ""), ("x", "y")])
    assert scores.tolist() == pytest.approx([1 / 3, 1, 0, 0])
    assert scores.dtype == np.float32


def test_character_overlap_equals_jaccard(sample):
    queries, texts = list(sample["sentence_0"][:5]), list(sample["sentence_1"][:200])
    for query, overlap in zip(queries, character_overlap(queries, texts), strict=True):
        plain = [len(set(query) & set(t)) / len(set(query) | set(t)) for t in texts]
        assert overlap == pytest.approx(plain)


def test_tfidf_prefers_shared_ngrams_and_takes_unseen_texts():
    scorer = TfidfCosine(["怎么开通会员", "如何关闭会员", "今天天气"])
    same, near, far, unseen = scorer.score(
        [("怎么开通会员", "怎么开通会员"), ("怎么开通会员", "怎么关闭会员"),
         ("怎么开通会员", "今天天气"), ("怎么开通会员", "qwerty")]
    )  # fmt: skip
    assert same == pytest.approx(1)
    assert 1 > near > far
    assert unseen == 0
    assert scorer.score([]).shape == (0,)


def test_random_repeats_with_its_seed():
    pairs = [("a", "b")] * 5
    assert (RandomScorer(1).score(pairs) == RandomScorer(1).score(pairs)).all()
    assert (RandomScorer(1).score(pairs) != RandomScorer(2).score(pairs)).any()


def test_candidate_lists_survive_writing_and_reading(tmp_path):
    path = tmp_path / "lists.jsonl"
    write_candidates(path, LISTS)
    read = read_candidates(path)
    assert read[0] == LISTS[0]
    assert read[1] == CandidateList("cd", ("c", "zz", "ab"), (1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", "line 2"),
        ("[]", "not a JSON object"),
        ({"query": " ", "positive": [], "negative": ["x"]}, "field 'query'"),
        ({"query": "q", "positive": ["a"]}, "field 'negative' must be a list"),
        ({"query": "q", "positive": [""], "negative": []}, "'positive' holds ''"),
        ({"query": "q", "positive": ["a"], "negative": ["a"]}, "both positive and negative"),
        ({"query": "q", "positive": [], "negative": []}, "has no candidates"),
    ],
)
def test_a_bad_candidate_row_is_named(write_jsonl, row, message):
    path = write_jsonl([{"query": "q", "positive": ["a"], "negative": ["b"]}, row])
    with pytest.raises(CandidateError, match=message) as error:
        read_candidates(path)
    assert "line 2" in str(error.value)


def test_missing_and_empty_candidate_files(tmp_path):
    with pytest.raises(CandidateError, match="no such file"):
        read_candidates(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(CandidateError, match="no candidate list"):
        read_candidates(tmp_path / "empty.jsonl")


def test_built_lists_have_positives_labelled_negatives_and_no_hidden_positive(sample):
    lists = build_candidates(sample, size=20, seed=3)
    assert lists == build_candidates(sample, size=20, seed=3)
    positive = sample[sample["label"] >= 0.5]
    partners = set(map(frozenset, zip(positive["sentence_0"], positive["sentence_1"], strict=True)))
    negative = sample[sample["label"] < 0.5].groupby("sentence_0")["sentence_1"].agg(set)
    texts = {*sample["sentence_0"], *sample["sentence_1"]}
    for query, candidates, relevance in lists:
        assert len(candidates) == len(set(candidates)) == 20
        assert query not in candidates
        assert set(candidates) <= texts
        for text, value in zip(candidates, relevance, strict=True):
            assert (frozenset((query, text)) in partners) == (value == 1) or value == 0
            assert not (value == 0 and frozenset((query, text)) in partners)
        assert negative.get(query, set()) <= set(candidates) | {query}


def test_without_a_positive_there_is_nothing_to_rank(sample):
    with pytest.raises(CandidateError, match="none of these 9 pairs is a positive"):
        build_candidates(sample[sample["label"] == 0].head(9))


def test_look_alikes_are_nearest_first_without_the_query():
    assert look_alikes("abc", ["abc", "xyz", "abx", "abx"], 2) == ["abx", "xyz"]
    assert look_alikes("abc", ["abc"]) == []


def test_scores_go_back_to_their_lists():
    first, second = score_lists(Fixed(range(6)), LISTS)
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [3, 4, 5]


def test_evaluation_by_hand(tmp_path):
    scorers = {"model": Fixed([3, 2, 1, 3, 2, 1]), "char_jaccard": CharacterJaccard(),
               "constant": Fixed([0])}  # fmt: skip
    result = evaluate(scorers, LISTS, NO_PAIRS)
    rows = {row["scorer"]: row for row in result.metrics["rows"]}
    assert rows["model"]["mrr@10"]["mean"] == pytest.approx((1 + 1 / 2) / 2)
    assert rows["char_jaccard"]["ndcg@10"]["mean"] == 1
    assert rows["constant"]["mrr@10"]["mean"] == pytest.approx(1 / 3)
    gap = result.metrics["model_minus"]["char_jaccard"]["mean"]
    assert gap == pytest.approx(rows["model"]["ndcg@10"]["mean"] - 1)
    assert result.metrics["ties"] == "worst"
    folder = save_evaluation(tmp_path, result)
    assert read_json(folder / "metrics.json") == result.metrics
    assert len(pd.read_parquet(folder / "per_query.parquet")) == 6
    worst = worst_queries(result, 1)
    assert worst.loc[0, ["query", "best_positive", "ranked_first"]].tolist() == ["cd", "c", "zz"]
    assert worst.loc[0, "rank"] == 2
    assert result.table().index[0] == "char_jaccard"
    assert "worse than `char_jaccard`" not in findings.ranking_finding(result.metrics)


@pytest.mark.parametrize(("values", "error"), [([np.nan], "scorer 'model': query 0"),
                                               ([np.inf], "it must be finite")])  # fmt: skip
def test_a_broken_scorer_is_caught(values, error):
    with pytest.raises(ValueError, match=error):
        evaluate({"model": Fixed(values)}, LISTS, NO_PAIRS)


def test_a_reversed_scorer_is_reported_as_worse(sample):
    lists = build_candidates(sample, 20)[:80]

    class Reversed(CharacterJaccard):
        def score(self, pairs):
            return -super().score(pairs)

    result = evaluate({"model": Reversed(), "char_jaccard": CharacterJaccard()}, lists, NO_PAIRS)
    assert "worse than `char_jaccard`" in findings.ranking_finding(result.metrics)
    swapped = evaluate({"char_jaccard": Reversed(), "model": CharacterJaccard()}, lists, NO_PAIRS)
    assert "better than every baseline" in findings.ranking_finding(swapped.metrics)
    same = evaluate({"a": CharacterJaccard(), "model": CharacterJaccard()}, lists, NO_PAIRS)
    assert "cannot be told apart" in findings.ranking_finding(same.metrics)


def test_pairs_of_one_class_are_not_averaged_over_nothing(sample):
    positives = sample[sample["label"] == 1].head(5)
    result = evaluate({"model": CharacterJaccard()}, LISTS, positives)
    assert result.metrics["rows"][0]["ap"] == {"mean": None, "low": None, "high": None}
    assert result.table().loc["model", "ap"] == "not defined"
    assert "nothing to compare" in findings.ranking_finding(result.metrics)


def test_no_list_is_an_error():
    with pytest.raises(ValueError, match="no candidate list"):
        evaluate({"model": Fixed([1])}, [], NO_PAIRS)


def test_one_query_is_ranked_by_the_first_scorer():
    ranked = rank_query({"model": CharacterJaccard(), "b": Fixed([1])}, "ab", ["x", "ab", "a", "x"])
    assert ranked["candidate"].tolist() == ["ab", "a", "x"]
    assert list(ranked.columns) == ["candidate", "model", "b"]


def test_queries_seen_in_training_are_counted():
    train = pd.DataFrame({"sentence_0": ["q"], "sentence_1": ["ab"]})
    assert seen_queries(LISTS, train) == 1
    assert "1 of the 2 queries" in findings.leak_finding(1, 2)
    assert "None of the 2" in findings.leak_finding(0, 2)
