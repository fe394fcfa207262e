"""Repairing a vocabulary: what was readable stays, what was not becomes so, anyone can load it."""

import json
import unicodedata

import numpy as np
import pandas as pd
import pytest
from scipy.special import logit
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.conftest import interrupted_at, labelled
from workbench.data.pairs import prepare_data, read_split
from workbench.data.texts import distinct_texts
from workbench.files import read_json
from workbench.models import BUNDLED_MODEL, ModelError, find_model, load_tokenizer
from workbench.reports import findings, verdict_card
from workbench.scoring.cross_encoder import load_cross_encoder
from workbench.training.recipe import Recipe
from workbench.training.stages import agreement, fine_tune
from workbench.vocabulary.coverage import missing_characters, repair_outlook, vocabulary_verdict
from workbench.vocabulary.repair import (
    missing_tokens,
    random_rows,
    repair_model,
    repair_vocabulary,
    spectral_rows,
)
from workbench.vocabulary.tokens import count_tokens, tokenize

TEXTS = ["谁说你可爱了", "谁说你可怜了", "ﾊﾛｰ world", "Ｑ币怎么充值", "hello"]
ENGLISH = ["Hello, World! Don't panic.", "naïve café 3.14", "unbelievably tokenization", "你是我"]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(find_model(BUNDLED_MODEL))


def outlook_of(pairs, tokenizer):
    texts = distinct_texts(pairs)
    return repair_outlook(tokenizer, count_tokens(tokenizer, texts), pairs, texts)[0]


@pytest.mark.parametrize("how", ["unused", "extend"])
def test_what_was_unknown_is_read_and_what_was_known_stays(tokenizer, how):
    repair = repair_vocabulary(tokenizer, TEXTS, how)
    for text in TEXTS:
        assert not any(token.unknown for token in tokenize(repair.tokenizer, [text])[0]), text
    for text in ENGLISH[:3]:
        assert repair.tokenizer.encode(text).ids == tokenizer.encode(text).ids
    sizes = [one.get_vocab_size() for one in (tokenizer, repair.tokenizer)]
    assert sizes[1] - sizes[0] == (len(repair.added) if how == "extend" else 0)
    assert len(set(repair.ids)) == len(repair.added) > 0
    assert not repair.left_out


def test_too_few_slots_go_to_the_most_frequent_and_the_rest_is_reported(tokenizer):
    texts = [chr(0x4E00 + n) + "呗" for n in range(3000)] + ["呗啦" + str(n) for n in range(20)]
    repair = repair_vocabulary(tokenizer, texts, "unused")
    assert len(repair.added) == 994
    assert repair.added[:2] == ("呗", "啦")
    assert len(repair.left_out) > 1000
    assert sum(repair.left_out.values()) == len(repair.left_out)
    assert max(repair.ids) < tokenizer.get_vocab_size()


def test_only_texts_given_are_learned_from(tokenizer):
    repair = repair_vocabulary(tokenizer, ["谁"], "extend")
    assert repair.added == ("谁",)
    assert [t.unknown for t in tokenize(repair.tokenizer, ["谁说"])[0]] == [False, True]


def test_a_word_of_unknown_characters_gets_continuing_tokens(tokenizer):
    assert count_tokens(tokenizer, ["ﾊﾛｰ", "hello"])["pieces"].tolist() == [("ﾊﾛｰ",), ()]
    assert missing_tokens(tokenizer, ["ﾊﾛｰ"]) == {"ﾊ": 1, "##ﾛ": 1, "##ｰ": 1}


def test_other_tokenizers_are_refused_with_a_reason(tokenizer):
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ModelError, match="is Unigram, and only a WordPiece"):
        repair_vocabulary(unigram, ["谁"], "extend")
    with pytest.raises(ModelError, match="'mend' is none of keep, unused, extend"):
        repair_vocabulary(tokenizer, ["谁"], "mend")


def test_a_tokenizer_that_is_no_wordpiece_is_inspected_all_the_same():
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], unk_id=0))
    pairs = labelled(("a谁", "a", 1.0), ("a说", "a", 0.0))
    outlook = outlook_of(pairs, unigram)
    assert "Unigram" in outlook["extend"]["refused"]
    assert outlook["keep"]["ceiling"]["accuracy"] == 0.5
    verdict = vocabulary_verdict(outlook)
    assert verdict["colour"] == "red"
    assert "cannot be repaired" in verdict["action"]
    assert findings.repair({"repairs": outlook}).startswith("No repair is possible")


def test_a_vocabulary_of_another_model_is_refused(tmp_path, tiny_model):
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    state = read_json(folder / "tokenizer.json")
    state["model"]["vocab"]["谁"] = len(state["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    with pytest.raises(ModelError, match="belongs to another model"):
        load_tokenizer(find_model(str(folder)))


def test_missing_characters_by_hand(tokenizer):
    pairs = labelled(
        ("谁说", "谁", 1.0), ("谁谁", "hi", 0.0), ("hi", "yo", 0.0), ("ﾊﾛｰ", "yo", 1.0)
    )
    found = missing_characters(
        pairs, count_tokens(tokenizer, [*pairs["sentence_0"], *pairs["sentence_1"]])
    )
    assert found["distinct"] == 5
    assert found["pairs"] == 3
    assert found["characters"][0] == {
        "character": "谁",
        "block": "CJK Unified Ideographs",
        "occurrences": 4,
        "texts": 3,
        "pairs": 2,
    }
    blocks = {
        row["block"]: (row["characters"], row["occurrences"], row["pairs"])
        for row in found["blocks"]
    }
    assert blocks == {
        "CJK Unified Ideographs": (2, 5, 2),
        "Halfwidth and Fullwidth Forms": (3, 3, 1),
    }


def test_the_verdict_is_green_on_english_and_red_on_chinese(tokenizer, sample):
    english = labelled(("how do I pay", "How to pay?", 1.0), ("open account", "close it", 0.0))
    verdict = vocabulary_verdict(outlook_of(english, tokenizer))
    assert verdict["colour"] == "green"
    outlook = outlook_of(sample, tokenizer)
    verdict = vocabulary_verdict(outlook)
    assert verdict["colour"] == "red"
    assert "vocabulary: extend" in verdict["action"]
    assert 'class="verdict red"' in verdict_card(verdict)
    assert outlook["extend"]["unk_share"] == 0.0
    assert outlook["keep"]["lost_share"] > outlook["extend"]["lost_share"] == 0.0


def test_the_verdict_is_green_on_chinese_with_a_chinese_vocabulary(tokenizer, sample):
    texts = [*sample["sentence_0"], *sample["sentence_1"]]
    chinese = repair_vocabulary(tokenizer, texts, "extend").tokenizer
    assert vocabulary_verdict(outlook_of(sample, chinese))["colour"] == "green"


@pytest.mark.parametrize(
    ("unknown", "lost", "colour"),
    [
        (0.0, 0.0, "green"),
        (0.0099, 0.0049, "green"),
        (0.01, 0.0, "amber"),
        (0.0, 0.005, "amber"),
        (0.2, 0.0, "red"),
        (0.0, 0.05, "red"),
    ],
)
def test_the_thresholds_of_the_verdict(unknown, lost, colour):
    keep = {"unk_share": unknown, "lost_share": lost, "folded_share": 0.0}
    keep |= {"unread_share": unknown, "byte_share": 0.0}
    mended = keep | {"unk_share": 0.0, "added": 3}
    assert vocabulary_verdict({"keep": keep, "extend": mended})["colour"] == colour


def test_texts_made_equal_by_the_normaliser_are_counted_and_no_repair_is_promised():
    words = ("[UNK]", "cafe", "open", "is", "か", "は")
    tokenizer = Tokenizer(models.WordPiece({w: n for n, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    accents = labelled(("café open", "is cafe", 1.0), ("cafe open", "is café", 0.0))
    outlook = outlook_of(accents, tokenizer)
    assert outlook["keep"]["folded_share"] == outlook["extend"]["folded_share"] == 1.0
    verdict = vocabulary_verdict(outlook)
    assert verdict["colour"] == "red"
    assert "normaliser (lower case, accents) makes 100.0 % of them equal" in verdict["why"]
    assert "no repair helps" in verdict["action"]
    # Unknown characters besides: a repair gives them tokens, and the texts stay equal.
    kana = labelled(("か いろ", "が いろ", 1.0), ("は いろ", "ば いろ", 0.0))
    verdict = vocabulary_verdict(outlook_of(kana, tokenizer))
    assert "no repair helps" in verdict["action"]
    case = labelled(("Cafe open", "is cafe", 1.0), ("cafe open", "is Cafe", 0.0))
    assert vocabulary_verdict(outlook_of(case, tokenizer))["colour"] == "green"


def test_a_text_in_the_verdict_cannot_become_markup():
    card = verdict_card({"colour": "red", "why": "<script>alert(1)</script>", "action": "&"})
    assert "<script>" not in card
    assert "&lt;script&gt;" in card


def test_new_rows_lie_where_the_old_ones_do(tokenizer):
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((tokenizer.get_vocab_size(), 16)) + 3).astype(np.float32)
    texts = [a + b + "好" for a in "谁说怜爱借呗" for b in "花开关闭通"]
    repair = repair_vocabulary(tokenizer, texts, "extend")
    centre = matrix.mean(axis=0)
    typical = np.linalg.norm(matrix - centre, axis=1).mean()
    spectral = spectral_rows(matrix, repair.tokenizer, texts, repair.ids, seed=1)
    drawn = random_rows(matrix, len(repair.ids), seed=1)
    for rows in (spectral, drawn):
        assert rows.shape == (len(repair.ids), 16)
        assert np.linalg.norm(rows - centre, axis=1) == pytest.approx(typical, rel=1e-3)
    assert (spectral == spectral_rows(matrix, repair.tokenizer, texts, repair.ids, seed=1)).all()


def test_tokens_in_the_same_company_start_near_each_other(tokenizer):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((tokenizer.get_vocab_size(), 32)).astype(np.float32)
    before, after = ("hello", "open", "pay"), ("account", "card", "money")
    texts = [f"{a} {c} {b}" for a in before for b in after for c in "呗啦"]
    texts += [f"{a} {c} {b}" for a in ("red", "green") for b in ("sky", "tree") for c in "嘛喔"]
    repair = repair_vocabulary(tokenizer, texts, "extend")
    rows = dict(
        zip(repair.added, spectral_rows(matrix, repair.tokenizer, texts, repair.ids), strict=True)
    )
    near = np.linalg.norm(rows["呗"] - rows["啦"])
    assert near < 0.5 * np.linalg.norm(rows["呗"] - rows["嘛"])


@pytest.mark.parametrize("how", ["unused", "extend", "words"])
def test_a_repaired_model_is_loaded_by_anyone_with_the_same_ids(tmp_path, tokenizer, how, stranger):
    base = find_model(BUNDLED_MODEL)
    repair = repair_vocabulary(tokenizer, TEXTS, how)
    model = load_cross_encoder(base, 64)
    body = model[0].model
    before = body.get_input_embeddings().weight.detach().clone()
    rows = random_rows(before.numpy(), len(repair.ids))
    repair_model(model, tokenizer, TEXTS, how, "random")
    after = body.get_input_embeddings().weight.detach()
    assert after.shape[0] == (before.shape[0] + len(rows) if how != "unused" else before.shape[0])
    untouched = np.setdiff1d(np.arange(len(before)), repair.ids)
    assert (after[untouched] == before[untouched]).all()
    assert (after.numpy()[list(repair.ids)] == rows).all()
    model.save_pretrained(str(tmp_path / "model"))
    texts = [*TEXTS, *ENGLISH]
    ids, own, score = stranger(tmp_path / "model", None, texts, [texts[:2]])
    assert ids == own == [repair.tokenizer.encode(text).ids for text in texts]
    assert score == pytest.approx(model.predict([(texts[0], texts[1])]).tolist(), abs=1e-6)


@pytest.mark.parametrize(
    ("how", "start", "glossed"),
    [("words", "random", 4), ("extend", "dictionary", 1), ("extend", "random", None)],
)
def test_the_record_counts_the_new_tokens_with_a_gloss(tiny_model, tmp_path, how, start, glossed):
    """Of `谁说` and `谁`, with their forms inside a run; none where no gloss is read."""
    file, base = tmp_path / "own.tsv", find_model(str(tiny_model))
    file.write_text("谁\twho\n谁说\twho says\n", encoding="utf-8")
    model, tokenizer = load_cross_encoder(base, 32), load_tokenizer(base)
    record = repair_model(model, tokenizer, ["谁说"], how, start, str(file))
    assert record.get("tokens_with_gloss") == glossed
    assert record.get("dictionary") == (str(file) if glossed else None)


def test_new_words_of_another_language_start_from_their_glosses(tiny_model, tmp_path):
    file, base = tmp_path / "korean.tsv", find_model(str(tiny_model))
    file.write_text("학교\tschool\n말\tword; speech\n사람\tperson\n", encoding="utf-8")
    model, tokenizer = load_cross_encoder(base, 32), load_tokenizer(base)
    record = repair_model(model, tokenizer, ["학교에 말"], "words", "dictionary", str(file))
    assert record["tokens_with_gloss"] == 4  # two words that occur, and their forms inside a run
    first, *_ = model.tokenizer.tokenize("학교에")
    assert unicodedata.normalize("NFC", first) == "학교"


def test_whether_the_warm_up_has_taught_anything_is_measured_and_told():
    pairs = pd.DataFrame(
        {"sentence_0": ["a", "b", "c"], "sentence_1": ["d", "e", "f"], "label": [0.1, 0.5, 0.8]}
    )
    target = dict(
        zip(zip(pairs["sentence_0"], pairs["sentence_1"], strict=True), pairs["label"], strict=True)
    )

    class Scores:
        def __init__(self, change):
            self.change = change

        def score(self, asked):
            return self.change(np.array([target[pair] for pair in asked]))

    def found(change):
        return agreement(Scores(change), pairs)

    assert found(logit) == pytest.approx(1)
    assert found(lambda right: -logit(right)) == pytest.approx(-1)
    assert found(np.zeros_like) is None
    assert "has learned to compare" in findings.warm_up(0.9)
    assert "has not learned to compare characters yet" in findings.warm_up(0.2)
    assert "taught nothing" in findings.warm_up(None)


def test_the_whole_recipe_runs_is_recorded_and_resumes_the_same(tmp_path, tiny_model):
    from workbench.training.log import read_training_log

    recipe = Recipe(
        max_length=48,
        learning_rate=1e-3,
        embedding_learning_rate=3e-3,
        warmup_ratio=0.1,
        speed="fast",
        vocabulary="extend",
        lexical_pairs=120,
        hard_negatives=1,
        symmetric=True,
    )
    base = find_model(str(tiny_model))
    for name in ("whole", "cut"):
        prepare_data(tmp_path / name, "data/sample_pairs.csv", max_pairs=200)
    record = fine_tune(tmp_path / "whole", base, recipe)
    assert record["vocabulary"]["added_tokens"] > 100
    assert record["lexical_warm_up"]["pairs"] == 120
    assert -1 <= record["lexical_warm_up"]["agreement"] <= 1
    train = read_split(tmp_path / "whole", "train")
    assert record["pairs_seen"]["labelled"] == len(train)
    assert record["pairs_seen"]["swapped_positives"] == (train["label"] >= 0.5).sum()
    assert record["pairs_seen"]["hard_negatives"] > 0
    log = read_training_log(tmp_path / "whole")
    assert log["stage"].unique().tolist() == ["lexical warm-up", "stage 1"]
    text = findings.outcome(record)
    assert "lexical warm-up took" in text
    assert "hard negatives" in text
    assert "repair the vocabulary" in findings.recipe(recipe)
    assert findings.recipe(Recipe(precision="float32")).startswith("Labels only")

    # Killed in the second phase, it goes on there and ends with the very same weights.
    with interrupted_at(8):
        fine_tune(tmp_path / "cut", base, recipe, checkpoint_steps=5)
    assert (tmp_path / "cut/checkpoints/stage-1/lexical/model").is_dir()
    fine_tune(tmp_path / "cut", base, recipe, resume=True)
    weights = [(tmp_path / n / "model/model.safetensors").read_bytes() for n in ("whole", "cut")]
    assert weights[0] == weights[1]
    again = read_training_log(tmp_path / "cut")
    pd.testing.assert_frame_equal(again[["stage", "step"]], log[["stage", "step"]])
