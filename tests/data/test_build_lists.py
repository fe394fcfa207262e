"""Lists built from the test split: what goes in, what stays out, what is reported as doubtful."""

import pytest

from tests.conftest import labelled
from workbench.data.build_lists import (
    build_test,
    look_alikes,
    query_groups,
    seen_queries,
    suspect_negatives,
)
from workbench.data.lists import CandidateList
from workbench.data.readers import PairsError
from workbench.data.texts import OverlapIndex, normalised


def test_the_index_finds_what_going_through_all_texts_finds(sample):
    queries, texts = list(sample["sentence_0"][:70]), list(sample["sentence_1"][:300])
    for query, (places, overlap) in zip(
        queries, OverlapIndex(texts).overlaps(queries), strict=True
    ):
        found = dict(zip(places.tolist(), overlap.tolist(), strict=True))
        for place, text in enumerate(texts):
            one, other = set(query) - {" "}, set(text) - {" "}
            expected = len(one & other) / len(one | other)
            assert found.get(place, 0) == pytest.approx(expected)
            assert (place in found) == (expected > 0)


def test_an_index_of_nothing_finds_nothing():
    for texts in ([], ["", " "]):
        places, overlap = next(OverlapIndex(texts).overlaps(["a"]))
        assert len(places) == len(overlap) == 0


def test_built_lists_have_positives_labelled_negatives_and_no_hidden_positive(sample):
    lists = build_test(sample, size=20, seed=3).lists
    assert lists == build_test(sample, size=20, seed=3).lists
    positive = sample[sample["label"] >= 0.5]
    partners = set(map(frozenset, zip(positive["sentence_0"], positive["sentence_1"], strict=True)))
    negative = sample[sample["label"] < 0.5].groupby("sentence_0")["sentence_1"].agg(set)
    texts = {*sample["sentence_0"], *sample["sentence_1"]}
    assert len(lists) > 100
    for query, candidates, relevance, _, kinds in lists:
        assert len(candidates) == len(set(candidates)) == 20
        assert query not in candidates
        assert set(candidates) <= texts
        for text, value, kind in zip(candidates, relevance, kinds, strict=True):
            assert (value == 1) == (kind == "positive")
            assert (kind == "labelled") == (value == 0 and text in negative.get(query, set()))
            assert not (value == 0 and frozenset((query, text)) in partners)
        assert negative.get(query, set()) <= set(candidates) | {query}
    firsts = [one.relevance[0] for one in lists]
    assert 0 < sum(firsts) < len(firsts) / 3  # positives do not stand first


def test_candidates_come_from_the_test_split_alone(chain):
    """Of the whole pipeline: no candidate of the lists it built is in another split."""
    from workbench.data.lists import read_test
    from workbench.data.pairs import read_split

    lists = read_test(chain / "evaluation/candidates.jsonl").lists
    texts = {
        name: {*split["sentence_0"], *split["sentence_1"]}
        for name, split in ((n, read_split(chain, n)) for n in ("train", "dev", "test"))
    }
    used = {text for one in lists for text in (one.query, *one.candidates)}
    assert used <= texts["test"]
    assert not used & (texts["train"] | texts["dev"])
    assert len(used) > 50


def test_look_alikes_are_the_nearest_and_the_recipe_counts_every_kind(sample):
    lists, recipe = build_test(sample, size=12, seed=1)
    texts = list(dict.fromkeys([*sample["sentence_0"], *sample["sentence_1"]]))
    one = lists[0]
    mined = [t for t, kind in zip(one.candidates, one.kinds, strict=True) if kind == "look_alike"]
    places, overlap = next(OverlapIndex(texts).overlaps([one.query]))
    by_text = dict(zip((texts[p] for p in places), overlap, strict=True))
    others = [value for text, value in by_text.items() if text not in (one.query, *one.candidates)]
    assert len(mined) >= 3
    assert min(by_text[text] for text in mined) >= sorted(others)[-10]
    kinds = [kind for each in lists for kind in each.kinds]
    assert recipe["kinds"] == {k: kinds.count(k) for k in recipe["kinds"]}
    assert set(recipe["kinds"]) == {"positive", "labelled", "look_alike", "random"}
    assert (recipe["size"], recipe["seed"], recipe["pairs"]) == (12, 1, len(sample))


def test_paraphrases_are_not_mined_by_group_or_by_normalised_form():
    """`a`-`b`-`c` are connected by positives; `ＡＢ？` is `ab` in other characters."""
    given = labelled(
        ("ab", "ba", 1), ("ba", "abc", 1), ("ＡＢ？", "zz", 0), ("abz", "yy", 0), ("xx", "ww", 0)
    )
    lists, recipe = build_test(given, size=9)
    one = next(one for one in lists if one.query == "ab")
    assert "ba" in one.positives()
    assert not {"abc", "ＡＢ？"} & set(one.candidates)
    assert "abz" in one.candidates
    assert recipe["paraphrases_kept_out"] >= 2
    assert suspect_negatives(lists).empty


def test_paraphrases_of_another_spelling_are_not_mined():
    """`ab` ~ `ba` and `BA!` ~ `abc`: so `abc` means the same as `ab`."""
    given = labelled(("ab", "ba", 1), ("BA!", "abc", 1), ("abz", "yy", 0))
    one = next(one for one in build_test(given, 9).lists if one.query == "ab")
    assert set(one.candidates) == {"ba", "abz", "yy"}


def test_a_pair_labelled_both_ways_counts_as_positive_and_is_reported():
    lists, recipe = build_test(labelled(("a", "b", 1), ("a", "b", 0), ("a", "c", 0)), size=3)
    assert lists[0].positives() == ["b"]
    assert lists[0].candidates.count("b") == 1
    assert recipe["labelled_both_ways_taken_as_positive"] == 1


def test_suspect_negatives_are_found_in_given_lists_and_clean_ones_are_not():
    lists = [
        CandidateList("怎么借钱", ("如何借钱", "怎么借钱？", "如何 借钱", "天气"), (1, 0, 0, 0)),
        CandidateList("如何借钱", ("哪里借钱", "天气"), (1, 0)),
        CandidateList("怎么还", ("哪里借钱",), (0,)),
        CandidateList("哪里借钱", ("怎么借钱",), (0,)),
    ]
    found = suspect_negatives(lists)
    assert found.to_dict("list") == {
        "number": [0, 0, 3],
        "query": ["怎么借钱", "怎么借钱", "哪里借钱"],
        "candidate": ["怎么借钱？", "如何 借钱", "怎么借钱"],
        "reason": ["equal", "equal", "group"],
    }
    connected = suspect_negatives(lists[2:3], labelled(("怎么还", "哪里借钱", 1)))
    assert connected["reason"].tolist() == ["group"]
    assert suspect_negatives(lists[2:3], labelled(("怎么还", "哪里借钱", 0))).empty


@pytest.mark.parametrize(
    ("text", "plain"),
    [("ＡＢ，c！", "abc"), (" 怎么\u00a0借？\u200b", "怎么借"), ("？！", "？！"), ("कि", "कि")],
)
def test_normalising_sets_aside_case_width_punctuation_and_space(text, plain):
    assert normalised(text) == plain


def test_queries_are_grouped_by_shared_queries_and_positives_not_by_negatives():
    lists = [
        CandidateList("a", ("b", "n"), (1, 0)),
        CandidateList("b", ("n",), (0,)),
        CandidateList("c", ("n", "d"), (0, 1)),
        CandidateList("e", ("d", "n"), (1, 0)),
        CandidateList("f", (), ()),
    ]
    groups = query_groups(lists)
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3


def test_without_a_positive_there_is_nothing_to_rank(sample):
    with pytest.raises(PairsError, match="none of these 9 pairs is a positive"):
        build_test(sample[sample["label"] == 0].head(9))


def test_look_alikes_are_nearest_first_without_the_query():
    assert look_alikes("abc", ["abc", "xyz", "abx", "abx"], 2) == ["abx", "xyz"]
    assert look_alikes("abc", ["abc"]) == []


def test_queries_seen_in_training_are_counted():
    lists = [CandidateList("ab", ("x",), (1,)), CandidateList("cd", ("y",), (1,))]
    assert seen_queries(lists, labelled(("q", "ab", 1))) == 1
