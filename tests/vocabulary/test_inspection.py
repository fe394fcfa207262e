from functools import cache

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.benchmarks.tiny import write_tiny_kind
from tests.conftest import labelled
from workbench.data.build_lists import build_test, ranking_lists
from workbench.data.lists import write_candidates
from workbench.files import read_json
from workbench.models import BUNDLED_MODEL, find_model, load_tokenizer
from workbench.reports import findings
from workbench.vocabulary import dictionary
from workbench.vocabulary.inspection import (
    contradictory_rows,
    inspect_pairs,
    pair_tokens,
    reading_examples,
    sample_rows,
    save_inspection,
)
from workbench.vocabulary.repair import repair_vocabulary
from workbench.vocabulary.tokens import count_tokens, tokenize


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(find_model(BUNDLED_MODEL))


@pytest.fixture(scope="module")
def inspection(sample, tokenizer):
    return inspect_pairs(sample, tokenizer, 512)


def test_six_unknown_characters_are_six_unknown_tokens(tokenizer):
    (tokens,) = tokenize(tokenizer, ["谁说你可爱了"])
    assert tokens == [("[UNK]", place, place + 1, True) for place in range(6)]
    counts = count_tokens(tokenizer, ["谁说你可爱了", "谁说你可怜了", "hello"])
    assert counts["unknown"].tolist() == [6, 6, 0]
    assert counts["sequence"].tolist() == [0, 0, 1]


def test_an_inspection_by_hand(tokenizer):
    rows = [("谁说你可爱了", "hello", 1.0), ("谁说你可怜了", "hello", 0.0), ("a b", "a b", 0.4)]
    pairs = labelled(*rows)
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
    pairs = labelled(("a", "b", 1.0), ("b", "a", 0.0), ("a", "c", 1.0), ("a", "c", 0.9))
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


def test_examples_are_read_by_the_dictionary_that_is_asked_for(tokenizer, tmp_path):
    file = tmp_path / "korean.tsv"
    file.write_text("학교\tschool\n말\tword; speech\n", encoding="utf-8")
    pairs = labelled(("학교 말", "말", 1), ("학교", "hi", 0))
    found = inspect_pairs(pairs, tokenizer, dictionary=str(file))
    assert {row["text"]: row["words"] for row in found["examples"]} == {
        "학교 말": "학교 (school) · 말 (word)",
        "말": "말 (word)",
        "학교": "학교 (school)",
        "hi": "",
    }
    assert found["repairs"]["words"]["unk_share"] == 0


def test_examples_show_tokens_and_words_with_glosses(tokenizer):
    words = repair_vocabulary(tokenizer, ["谁", "开通", "hi"], "words")
    assert reading_examples(tokenizer, ["谁hi", "hi"], words) == [
        {"text": "谁hi", "tokens": "[UNK] hi", "unk_share": 0.5, "words": "谁 (who) · hi"},
        {"text": "hi", "tokens": "hi", "unk_share": 0.0, "words": ""},
    ]
    assert reading_examples(tokenizer, ["谁hi"], None)[0]["words"] == ""


def test_words_are_learned_once(sample, tokenizer, monkeypatch):
    calls = []

    def counted(texts, dictionary, *more, learn=dictionary.words_in):
        calls.append(dictionary)
        return learn(texts, dictionary, *more)

    monkeypatch.setattr("workbench.vocabulary.repair.words_in", counted)
    found = inspect_pairs(sample.head(40), tokenizer)
    assert any(one["words"] for one in found["examples"])
    assert len(calls) == 1


def test_the_inspection_is_saved_as_json(tmp_path, inspection):
    assert read_json(save_inspection(tmp_path, inspection)) == inspection


def test_findings_follow_the_numbers(inspection):
    assert "cannot read this data" in findings.vocabulary(inspection)
    good = {**inspection, "verdict": {"colour": "green"}}
    assert "covers the data" in findings.vocabulary(good)
    some = {**inspection, "verdict": {"colour": "amber"}}
    assert "incomplete, or byte by byte" in findings.vocabulary(some)
    assert "Nothing is cut" in findings.lengths(inspection)
    cut = {**inspection, "truncation": {"max_length": 16, "share": 0.5}}
    assert "50.0 % of the pairs are cut" in findings.lengths(cut)
    one = {"labels": {"pairs": 2, "positive": 2, "mean": 1.0}}
    assert "only one class" in findings.labels(one)
    assert "No pair" in findings.contradictions(inspection)
    both = {"contradictions": {"rows": 2, "share": 0.01}}
    assert "2 rows (1.00 %)" in findings.contradictions(both)
    unused = {"reuse": {**inspection["reuse"], "reused_share": 0.0}}
    assert "hardly leak" in findings.reuse(unused)
    assert "by group" in findings.reuse(inspection)


def test_what_is_missing_and_repaired_in_words(inspection, tokenizer):
    missing = inspection["missing"]
    text = findings.missing(inspection)
    assert text.startswith(f"{missing['distinct']:,} different characters are missing")
    table = findings.repair_table(inspection)
    assert table.index.tolist() == ["keep", "unused", "extend", "words"]
    assert table.loc["extend", "unknown tokens"] == "0.00 %"
    assert float(table.loc["keep", "best accuracy"]) < float(table.loc["extend", "best accuracy"])
    text = findings.repair(inspection)
    assert f"`extend` adds {inspection['repairs']['extend']['added']:,} tokens" in text
    assert inspection["verdict"]["action"] in text
    english = labelled(("how do I pay", "how to pay", 1.0), ("open it", "close it", 0.0))
    fine = inspect_pairs(english, tokenizer)
    assert findings.missing(fine) == "No character is missing from the vocabulary."
    assert fine["verdict"]["colour"] == "green"


def test_a_repair_is_learned_from_the_training_side_alone(sample, tokenizer):
    pairs = sample.head(400)
    found = inspect_pairs(pairs, tokenizer, 512, pairs.head(200))
    assert 0 < found["repairs"]["extend"]["unk_share"] < found["repairs"]["keep"]["unk_share"]
    assert found["repairs"]["keep"]["ceiling"] == found["ceiling"]
    assert found["ceiling"]["ndcg@10"] is None  # no lists were given


def test_lists_for_the_ceiling_are_those_that_will_be_ranked(sample, tmp_path, tokenizer):
    pairs = sample.head(400)
    lists = ranking_lists("", pairs, 10, seed=1)
    assert lists == build_test(pairs, 10, seed=1).lists
    found = inspect_pairs(pairs, tokenizer, 512, pairs, lists)
    assert 0.5 < found["ceiling"]["ndcg@10"] < 1
    assert found["repairs"]["extend"]["ceiling"]["ndcg@10"] == 1
    write_candidates(tmp_path / "lists.jsonl", lists)
    assert len(ranking_lists(str(tmp_path / "lists.jsonl"), sample, 10)) == len(lists)
    assert ranking_lists("", sample[sample["label"] == 0]) == []


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """The tokenizer of a tiny model of a kind, or of SentencePiece with bytes in reserve."""
    top = tmp_path_factory.mktemp("kinds")

    @cache
    def read(kind):
        if kind != "byte fallback":
            return load_tokenizer(find_model(str(write_tiny_kind(top / kind, kind))))
        scores = [("<unk>", 0.0), ("▁", -1.0), *((one, -2.0) for one in "怎么")]
        scores += [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        return tokenizer

    return read


# Of a kind: tokens of all texts, unknown ones, bytes; share of characters nobody reads; colour.
KNOWN = {"electra": (17, 6, 0, 6 / 17, "red"), "albert": (20, 3, 0, 6 / 17, "red")}
KNOWN |= {"roberta": (51, 0, 51, 0.0, "amber"), "byte fallback": (35, 0, 18, 0.0, "amber")}
KNOWN["modernbert"] = KNOWN["roberta"]
KNOWN["xlm-roberta"] = KNOWN["deberta-v2"] = KNOWN["albert"]


@pytest.mark.parametrize("kind", KNOWN)
def test_every_kind_of_tokenizer_is_audited(reader, kind):
    """Of 17 characters, 6 are unknown: 谁说 twice, 话听 once."""
    tokenizer, (count, unknown, parts, unread, colour) = reader(kind), KNOWN[kind]
    pairs = labelled(("怎么谁说", "怎么", 1.0), ("怎么话听", "么怎", 0.0), ("怎", "怎么谁说", 1.0))
    found = inspect_pairs(pairs, tokenizer)
    assert found["tokens"] == {
        "count": count,
        "per_character": pytest.approx(count / 17),
        "unk_share": pytest.approx(unknown / count),
        "byte_share": pytest.approx(parts / count),
    }
    assert found["repairs"]["keep"]["unread_share"] == pytest.approx(unread)
    assert found["verdict"]["colour"] == colour
    same = found["texts"]["largest_collapsed"]
    assert same == ([{"size": 2, "examples": ["怎么谁说", "怎么话听"]}] if unknown else [])
    missing = {one["character"] for one in found["missing"]["characters"]}
    assert missing == (set("谁说话听") if unknown else set())
    assert found["texts"]["with_unk_share"] == (0.4 if unknown else 0.0)
    both = list(zip(pairs["sentence_0"], pairs["sentence_1"], strict=True))
    whole = [len(one.ids) for one in tokenizer.encode_batch(both)]
    assert pair_tokens(pairs, tokenizer).tolist() == whole
    assert ("byte by byte" in found["verdict"]["action"]) == bool(parts)
    assert ("are bytes: parts of a character" in findings.vocabulary(found)) == bool(parts)


def test_tokens_are_shown_as_people_can_read_them(reader):
    shown = {
        kind: [token.token for token in tokenize(reader(kind), ["a 谁说"])[0]]
        for kind in ("roberta", "xlm-roberta", "byte fallback")
    }
    assert shown["roberta"] == ["a", "▁", *"�" * 6]
    assert shown["xlm-roberta"] == ["▁", "a", "▁", "<unk>"]
    assert shown["byte fallback"][2:] == [
        "▁",
        *["<0xE8>", "<0xB0>", "<0x81>", "<0xE8>", "<0xAF>", "<0xB4>"],
    ]
    counts = count_tokens(reader("xlm-roberta"), ["谁 说", "a", "\u3000"])
    assert counts["unknown"].tolist() == [2, 0, 0]
    assert counts["blank"].tolist()[:2] == [2, 1]


def test_a_text_of_unknown_tokens_alone_and_one_without_tokens(reader):
    rows = [("谁 说", "怎么", 1.0), ("\u200b", "怎 谁", 0.0)]
    pairs = labelled(*rows)
    for kind in ("electra", "xlm-roberta"):
        texts = inspect_pairs(pairs.head(1), reader(kind))["texts"]
        assert (texts["with_unk_share"], texts["only_unk_share"]) == (0.5, 0.5)
    texts = inspect_pairs(pairs, reader("electra"))["texts"]  # of the last row, no token is left
    assert (texts["with_unk_share"], texts["only_unk_share"]) == (0.5, 0.25)


def test_a_long_run_of_unknown_characters_weighs_more_than_its_one_token(reader):
    text = "怎么" * 20
    pairs = labelled(*[(text, text + "谁说话听" * 20, 1.0)] * 2)
    found = inspect_pairs(pairs, reader("xlm-roberta"))
    assert found["tokens"]["unk_share"] == pytest.approx(1 / 83)
    assert found["verdict"]["colour"] == "red"
    assert "hide 50.0 % of the characters" in found["verdict"]["why"]


def test_missing_characters_count_pairs_and_not_row_labels(tokenizer):
    pairs = labelled(("谁", "a", 1.0))
    found = inspect_pairs(pd.concat([pairs, pairs.replace("谁", "谁说")]), tokenizer)
    assert found["missing"]["pairs"] == 2
