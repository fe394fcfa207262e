import pandas as pd
import pytest

from workbench.data.build_lists import build_candidates
from workbench.data.lists import write_candidates
from workbench.files import read_json
from workbench.models import BUNDLED_MODEL, find_model, load_tokenizer
from workbench.reports import findings
from workbench.vocabulary.inspection import (
    contradictory_rows,
    inspect_pairs,
    lists_for_ceiling,
    pair_tokens,
    sample_rows,
    save_inspection,
    token_view,
)
from workbench.vocabulary.tokens import count_tokens, tokenize


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(find_model(BUNDLED_MODEL))


@pytest.fixture(scope="module")
def inspection(sample, tokenizer):
    return inspect_pairs(sample, tokenizer, 512)


def test_six_unknown_characters_are_six_unknown_tokens(tokenizer):
    tokens = tokenize(tokenizer, "谁说你可爱了")
    assert [token.token for token in tokens] == ["[UNK]"] * 6
    assert "".join(token.text for token in tokens) == "谁说你可爱了"
    counts = count_tokens(tokenizer, ["谁说你可爱了", "谁说你可怜了", "hello"])
    assert counts["unknown"].tolist() == [6, 6, 0]
    assert counts["sequence"].tolist() == [0, 0, 1]


def test_an_inspection_by_hand(tokenizer):
    pairs = pd.DataFrame(
        [("谁说你可爱了", "hello", 1.0), ("谁说你可怜了", "hello", 0.0), ("a b", "a b", 0.4)],
        columns=["sentence_0", "sentence_1", "label"],
    )
    found = inspect_pairs(pairs, tokenizer, max_length=9)
    assert found["labels"] == {
        "pairs": 3,
        "mean": pytest.approx(1.4 / 3),
        "positive": 1,
        "negative": 2,
        "graded": 1,
    }
    assert found["lengths"]["characters"]["mean"] == pytest.approx((12 + 10 + 6) / 6)
    assert found["lengths"]["tokens"]["max"] == 10  # 6 + 1 + three special ones
    assert found["truncation"] == {"max_length": 9, "share": pytest.approx(2 / 3)}
    assert found["tokens"]["unk_share"] == pytest.approx(12 / 18)
    assert found["texts"]["with_unk_share"] == 0.5
    assert found["texts"]["collapsed_share"] == 0.5
    assert found["texts"]["largest_collapsed"][0]["size"] == 2
    assert found["reuse"]["max_uses"] == 2


def test_the_sample_shows_what_the_base_cannot_read(inspection, sample):
    assert inspection["labels"]["mean"] == sample["label"].mean()
    assert 0.6 < inspection["tokens"]["unk_share"] < 0.85
    assert inspection["texts"]["with_unk_share"] > 0.95
    characters = inspection["lengths"]["characters"]
    assert (characters["min"], characters["max"]) == (1, 99)


def test_contradictions_are_found_in_either_order():
    pairs = pd.DataFrame(
        [("a", "b", 1.0), ("b", "a", 0.0), ("a", "c", 1.0), ("a", "c", 0.9)],
        columns=["sentence_0", "sentence_1", "label"],
    )
    assert contradictory_rows(pairs).index.tolist() == [0, 1]


def test_sample_rows_have_both_labels_and_repeat(sample):
    rows = sample_rows(sample, 4, seed=1)
    assert rows["label"].tolist() == [1] * 4 + [0] * 4
    pd.testing.assert_frame_equal(rows, sample_rows(sample, 4, seed=1))


def test_the_length_of_a_pair_is_what_the_model_takes_in(sample, tokenizer):
    head = sample.head(20)
    pairs = list(zip(head["sentence_0"], head["sentence_1"], strict=True))
    expected = [len(encoding.ids) for encoding in tokenizer.encode_batch(pairs)]
    assert pair_tokens(head, tokenizer).tolist() == expected


def test_the_token_view_gives_shares(tokenizer):
    view = token_view(tokenizer, ["谁hi"])
    assert view.to_dict("records") == [{"text": "谁hi", "tokens": "[UNK] hi", "unk_share": 0.5}]


def test_the_inspection_is_saved_as_json(tmp_path, inspection):
    assert read_json(save_inspection(tmp_path, inspection)) == inspection


def test_findings_follow_the_numbers(inspection):
    assert "cannot read this data" in findings.vocabulary(inspection)
    good = {**inspection, "verdict": {"colour": "green"}}
    assert "covers the data" in findings.vocabulary(good)
    some = {**inspection, "verdict": {"colour": "amber"}}
    assert "Part of the meaning" in findings.vocabulary(some)
    assert "Nothing is cut" in findings.lengths(inspection)
    cut = {**inspection, "truncation": {"max_length": 16, "share": 0.5}}
    assert "50.0% of the pairs are cut" in findings.lengths(cut)
    one = {"labels": {"pairs": 2, "positive": 2, "mean": 1.0}}
    assert "only one class" in findings.labels(one)
    assert "No pair" in findings.contradictions(inspection)
    both = {"contradictions": {"rows": 2, "share": 0.01}}
    assert "2 rows (1.00%)" in findings.contradictions(both)
    unused = {"reuse": {**inspection["reuse"], "reused_share": 0.0}}
    assert "hardly leak" in findings.reuse(unused)
    assert "by group" in findings.reuse(inspection)


def test_what_is_missing_and_repaired_in_words(inspection, tokenizer):
    missing = inspection["missing"]
    text = findings.missing(inspection)
    assert text.startswith(f"{missing['distinct']:,} different characters are missing")
    table = findings.repair_table(inspection)
    assert table.index.tolist() == ["keep", "unused", "extend", "words"]
    assert table.loc["extend", "unknown tokens"] == "0.00%"
    assert float(table.loc["keep", "best accuracy"]) < float(table.loc["extend", "best accuracy"])
    text = findings.repair(inspection)
    assert f"`extend` adds {inspection['repairs']['extend']['added']:,} tokens" in text
    assert inspection["verdict"]["action"] in text
    english = pd.DataFrame(
        [("how do I pay", "how to pay", 1.0), ("open it", "close it", 0.0)],
        columns=["sentence_0", "sentence_1", "label"],
    )
    fine = inspect_pairs(english, tokenizer)
    assert findings.missing(fine) == "No character is missing from the vocabulary."
    assert fine["verdict"]["colour"] == "green"


def test_a_repair_is_learned_from_the_training_side_alone(sample, tokenizer):
    train = sample.head(200)
    found = inspect_pairs(sample, tokenizer, 512, train)
    assert 0 < found["repairs"]["extend"]["unk_share"] < found["repairs"]["keep"]["unk_share"]
    assert found["repairs"]["keep"]["ceiling"] == found["ceiling"]
    assert found["ceiling"]["ndcg@10"] is None  # no lists were given


def test_lists_for_the_ceiling_are_those_that_will_be_ranked(sample, tmp_path, tokenizer):
    lists = lists_for_ceiling("", sample, 10, seed=1)
    assert lists == build_candidates(sample, 10, seed=1)
    found = inspect_pairs(sample, tokenizer, 512, sample, lists)
    assert 0.5 < found["ceiling"]["ndcg@10"] < 1
    assert found["repairs"]["extend"]["ceiling"]["ndcg@10"] == 1
    write_candidates(tmp_path / "lists.jsonl", lists)
    assert len(lists_for_ceiling(str(tmp_path / "lists.jsonl"), sample, 10)) == len(lists)
    assert lists_for_ceiling("", sample[sample["label"] == 0]) == []
