"""Words of a dictionary in a WordPiece tokenizer, and where their embeddings start."""

import gzip
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.models import BUNDLED_MODEL, ModelError, find_model, load_tokenizer
from workbench.vocabulary.dictionary import (
    HAN,
    letters_of,
    read_dictionary,
    segment,
    words_in,
)
from workbench.vocabulary.repair import MAX_RUN, gloss_rows, repair_vocabulary

CEDICT = """# CC-CEDICT
#! entries=7
開通 开通 [kai1 tong1] /to open up (a road etc)/to activate (a service)/CL:個|个[ge4]/
會員 会员 [hui4 yuan2] /member/
王 王 [wang2] /king/
王 王 [Wang2] /surname Wang/
行 行 [hang2] /row; line/
行 行 [xing2] /to walk/OK!/
么 么 [me5] /variant of 麼|么[me5]/
not an entry
"""
WORDS = ["怎么", "开通", "开通会员", "会员", "手机", "㐀㐁", "會員"]
HAN_CHARACTER, HAN_RUN = re.compile(f"[{HAN}]"), re.compile(f"[{HAN}]+")
CHARACTERS = "我的坏了怎么开通会员手机界世\U00020000豈"
TEXT = st.text(
    st.sampled_from(CHARACTERS + "会員龘𠀁")
    | st.sampled_from("aZ9 ,。！ｉé　ありÅ\u0301\t")
    | st.characters(exclude_categories=["Cs"]),
    max_size=30,
)


@pytest.fixture(scope="module")
def base():
    return load_tokenizer(find_model(BUNDLED_MODEL))


@pytest.fixture(scope="module")
def reader(base, tmp_path_factory):
    rows = "".join(f"{word}\tmeaning\n" for word in WORDS)
    file = write(tmp_path_factory.mktemp("words") / "own.tsv", rows)
    return repair_vocabulary(base, [*WORDS, CHARACTERS], "words", file).tokenizer


def write(path, text):
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@pytest.mark.parametrize("name", ["cedict.txt", "cedict_ts.u8", "cedict.txt.gz"])
def test_entries_are_read_by_sense_names_last_and_remarks_left_out(tmp_path, name):
    found = read_dictionary(write(tmp_path / name, CEDICT))
    assert found["么"] == ()  # only a reference to another entry
    assert {word: senses for word, senses in found.items() if senses} == {
        "开通": ("to open up", "to activate"),
        "開通": ("to open up", "to activate"),
        "会员": ("member",),
        "會員": ("member",),
        "王": ("king",),
        "行": ("row", "line", "to walk", "OK!"),
    }


def test_a_table_of_two_columns_serves_any_language(tmp_path):
    rows = (
        "食べる\tto eat; to live on\n食べる\tto take/to have (a meal)\n\nno separator\n 犬 \tdog\n"
    )
    found = read_dictionary(write(tmp_path / "ja.tsv", rows))
    assert found == {"食べる": ("to eat", "to live on", "to take", "to have"), "犬": ("dog",)}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("none.txt", None, "no such file"),
        ("empty.txt", "# nothing\n", "no entry"),
        ("not.txt.gz", None, "no such file"),
        ("pairs.csv", "a,b\n", "no entry"),
    ],
)
def test_a_file_that_is_no_dictionary_is_refused_and_says_why(tmp_path, name, text, reason):
    path = tmp_path / name
    if text is not None:
        write(path, text)
    with pytest.raises(ModelError, match=reason):
        read_dictionary(str(path))


def test_damaged_bytes_are_refused(tmp_path):
    (tmp_path / "cut.txt.gz").write_bytes(gzip.compress(CEDICT.encode())[:-20])
    (tmp_path / "gbk.txt").write_bytes("开通 开通 [kai1] /open/\n".encode("gbk"))
    for name in ("cut.txt.gz", "gbk.txt"):
        with pytest.raises(ModelError, match="cannot be read"):
            read_dictionary(str(tmp_path / name))


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("workbench.vocabulary.dictionary.PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match=r"\.\[dictionary\]"):
        read_dictionary()


@given(st.text("ABCD", max_size=12), st.sets(st.text("ABCD", min_size=2, max_size=4)))
def test_segments_are_the_longest_words_from_the_left(run, words):
    pieces = segment(run, words)
    assert "".join(pieces) == run
    start = 0
    for piece in pieces:
        longer = [w for w in words if run.startswith(w, start) and len(w) > len(piece)]
        assert not longer
        assert len(piece) == 1 or piece in words
        start += len(piece)


def test_words_that_occur_are_found_the_most_frequent_first():
    texts = ["怎么开通会员", "怎么开通", "手机a怎么", "开通会员"]
    found = words_in(texts, dict.fromkeys(WORDS, ("x",)))
    assert found == ["怎么", "开通会员", "开通", "手机"]


@given(TEXT)
def test_runs_are_cut_as_the_reference_does_and_all_else_is_as_before(base, reader, text):
    state = json.loads(base.to_str())
    state["normalizer"]["handle_chinese_chars"] = False
    unspaced = type(base).from_str(json.dumps(state))
    unspaced_text = unspaced.normalizer.normalize_str(text)
    found = reader.encode(text, add_special_tokens=False).tokens
    known = (
        set(CHARACTERS)
        | set("".join(WORDS))
        | {token for token in base.get_vocab() if HAN_CHARACTER.fullmatch(token)}
    )
    readable = "".join(map(re.escape, sorted(known)))
    pieces = []
    for part in re.split(f"([{readable}]+)", unspaced_text):
        if part and part[0] in known:
            for start in range(0, len(part), MAX_RUN):
                words = segment(part[start : start + MAX_RUN], WORDS)
                pieces += [w if place == 0 else f"##{w}" for place, w in enumerate(words)]
        else:
            pieces += base.encode(part, add_special_tokens=False).tokens
    assert found == pieces


@given(TEXT)
def test_a_text_without_chinese_characters_is_encoded_as_before(base, reader, text):
    text = HAN_RUN.sub("", text)
    assert reader.encode(text).ids == base.encode(text).ids
    assert reader.encode(text, "b").type_ids == base.encode(text, "b").type_ids


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("我的iPhone12坏了", ["我", "##的", "iphone", "##12", "坏", "##了"]),
        ("怎么开通会员", ["怎么", "##开通会员"]),
        ("開通會員", ["[UNK]", "通", "##會員"]),
        ("龘龘怎么", ["[UNK]", "[UNK]", "怎么"]),
        ("怎么\U00020000", ["怎么", "##\U00020000"]),
        ("", []),
    ],
)
def test_mixed_rare_and_unknown_texts(reader, text, tokens):
    assert reader.encode(text, add_special_tokens=False).tokens == tokens


def test_a_long_run_without_spaces_has_no_unknown_token(reader):
    tokens = reader.encode("怎么开通会员" * 500, add_special_tokens=False).tokens
    assert "".join(token.removeprefix("##") for token in tokens) == "怎么开通会员" * 500
    assert "[UNK]" not in tokens


JAPANESE = {"食べる": ["to eat"], "犬": ["dog"], "ご飯": ["meal"], "コーヒー": ["coffee"]}
KOREAN = {"학교": ["school"], "선생님": ["teacher"], "말": ["word"], "중화인민공화국": ["China"]}


@pytest.mark.parametrize(
    ("words", "texts", "text", "tokens"),
    [
        (
            JAPANESE,
            ["犬がご飯を食べる", "コーヒーを飲む"],
            "犬がご飯を食べる。ABC コーヒー",
            ["犬", "##が", "##ご飯", "##を", "##食べる", "。", "abc", "コーヒー"],
        ),
        (
            KOREAN,
            ["학교에 선생님이 있다", "말", "중화인민공화국"],
            "학교에 ABC선생님의 중화인민공화국",
            ["학교", "##ᄋ", "##ᅦ", "abc", "선생님", "##ᄋ", "##ᅴ", "중화인민공화국"],
        ),
    ],
)
def test_kana_and_hangul_are_read_as_words_of_such_a_dictionary(
    base, words, texts, text, tokens, tmp_path
):
    """The base takes Hangul apart and marks off kana, so words and tokens are compared so."""
    rows = "".join(f"{word}\t{glosses[0]}\n" for word, glosses in words.items())
    repair = repair_vocabulary(base, texts, "words", write(tmp_path / "own.tsv", rows))
    found = repair.tokenizer.encode(text, add_special_tokens=False).tokens
    plain = repair.tokenizer.normalizer.normalize_str
    assert found == [plain(token) for token in tokens]
    for other in ("The iPhone 12, é!", "mañana"):
        assert repair.tokenizer.encode(other).ids == base.encode(other).ids


def test_a_few_words_of_another_script_leave_a_dictionary_chinese():
    chinese = {chr(number): () for number in range(0x4E00, 0x4F00)}
    assert letters_of(chinese | {"の": ()}) == HAN
    assert letters_of(chinese | KOREAN) != HAN


def test_another_kind_of_tokenizer_is_refused(reader):
    from tokenizers import Tokenizer, models

    wrong = "'words': this base model's tokenizer is BPE with None .* with BERT's normalizer"
    with pytest.raises(ModelError, match=wrong):
        repair_vocabulary(Tokenizer(models.BPE()), ["怎么"], "words")
    extended = repair_vocabulary(reader, ["囧"], "extend")
    assert extended.added == ("囧",)
    with pytest.raises(ModelError, match="WordPiece with BertNormalizer with Sequence"):
        repair_vocabulary(reader, ["怎么"], "words")


def test_rows_are_the_mean_of_glosses_and_a_direction_of_the_characters(base):
    matrix = np.random.default_rng(0).standard_normal((30_522, 16)).astype(np.float32)
    glosses = {"开通": ("to open", "open member"), "会员": ("member",), "会": ("member",)}
    rows = gloss_rows(matrix, base, ["开通", "会员", "会", "员", "开通"], glosses, own_share=0.0)
    ids = base.get_vocab()
    opened, member = matrix[ids["open"]], matrix[ids["member"]]
    assert rows[0] == pytest.approx((opened + (opened + member) / 4) / 1.5, abs=1e-5)
    assert rows[1] == pytest.approx(member, abs=1e-5)
    assert np.array_equal(rows[0], rows[4])
    apart = gloss_rows(matrix, base, ["会员", "会", "员"], glosses)
    distance = np.linalg.norm(matrix - matrix.mean(axis=0), axis=1).mean()
    assert np.linalg.norm(apart[0] - member) == pytest.approx(0.5 * distance, rel=1e-4)
    assert np.linalg.norm(apart[2] - matrix.mean(axis=0)) == pytest.approx(distance, rel=1e-4)
    own, character = apart[0] - member, apart[1] - member
    alike = own @ character / np.linalg.norm(own) / np.linalg.norm(character)
    assert alike > 0.4  # they share a character
