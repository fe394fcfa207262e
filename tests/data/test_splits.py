import itertools

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import labelled
from workbench.data.build_lists import build_test, query_groups, seen_queries
from workbench.data.pairs import (
    DataError,
    known_positives,
    prepare_data,
    read_manifest,
    read_split,
    split_pairs,
)
from workbench.data.texts import meaning_groups, normalised, text_groups
from workbench.files import DamagedError, read_json

edges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=60)


def pairs_of(links):
    return labelled(*((f"t{a}", f"t{b}", float((a + b) % 2)) for a, b in links))


def texts_of(split):
    return {*split["sentence_0"], *split["sentence_1"]}


@given(edges, st.integers(0, 2**32 - 1), st.floats(0, 0.4), st.floats(0, 0.4))
def test_no_text_is_in_two_splits_and_no_pair_is_lost(links, seed, dev, test):
    pairs = pairs_of(links)
    splits = split_pairs(pairs, dev, test, seed)
    for one, other in itertools.combinations(map(texts_of, splits.values()), 2):
        assert not one & other
    assert sum(map(len, splits.values())) == len(pairs)
    assert len(splits["dev"]) <= dev * len(pairs)
    assert len(splits["test"]) <= test * len(pairs)


@given(edges, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_sides(links, seed):
    first, second = (split_pairs(pairs_of(links), 0.2, 0.2, seed) for _ in range(2))
    for name, split in first.items():
        pd.testing.assert_frame_equal(split, second[name])


@given(edges)
def test_groups_equal_a_plain_union_of_sets(links):
    groups = []
    for a, b in links:
        joined = {a, b}.union(*(g for g in groups if g & {a, b}))
        groups = [g for g in groups if not g & joined] + [joined]
    expected = [next(n for n, g in enumerate(groups) if a in g) for a, _ in links]
    found = text_groups(pairs_of(links)).tolist()
    assert len(set(zip(expected, found, strict=True))) == len(set(expected)) == len(set(found))


def test_another_seed_gives_another_split(sample):
    first, second = (split_pairs(sample, seed=seed)["test"] for seed in (1, 2))
    assert not first.equals(second)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (-0.1, 0.1), (0.0, 1.0)])
def test_shares_out_of_range_are_refused(sample, shares):
    with pytest.raises(DataError, match="dev_share"):
        split_pairs(sample, *shares)


def test_no_pairs_have_no_groups():
    assert text_groups(pairs_of([]).astype({"sentence_0": str})).shape == (0,)


def test_the_manifest_accounts_for_every_row(tmp_path):
    source = tmp_path / "pairs.csv"
    source.write_text(
        "sentence_0,sentence_1,label\n"
        + "".join(f"q{n},c{n},{n % 2}\n" for n in range(50))
        + "x,,1\nq0,c0,0\ny,z,5\n",
        encoding="utf-8",
    )
    manifest = prepare_data(tmp_path / "run", str(source), max_pairs=40)
    assert manifest == read_json(tmp_path / "run/data/manifest.json")
    assert manifest["rows"] == {"read": 53, "bad": 3, "usable": 50, "used": 40}
    lines = {reason: entry["lines"] for reason, entry in manifest["bad_rows"].items()}
    assert lines == {"empty_text": [52], "duplicate": [53], "label_out_of_range": [54]}
    sizes = {n: len(read_split(tmp_path / "run", n)) for n in ("train", "dev", "test")}
    assert sizes == {n: split["pairs"] for n, split in manifest["sides"].items()}
    assert sum(sizes.values()) == 40


def test_the_same_data_is_kept_and_other_data_sets_the_old_aside(tmp_path, sample):
    run = tmp_path / "run"
    prepare_data(run, "data/sample_pairs.csv")
    (run / "model").mkdir()
    prepare_data(run, "data/sample_pairs.csv")
    lost = run / "data/test.parquet"
    before = lost.read_bytes()
    lost.unlink()
    prepare_data(run, "data/sample_pairs.csv")
    assert lost.read_bytes() == before
    assert (run / "model").is_dir()
    assert not (run / "earlier").exists()
    prepare_data(run, "data/sample_pairs.csv", seed=7)
    assert not (run / "model").exists()
    (aside,) = (run / "earlier").iterdir()
    assert (aside / "model").is_dir()
    assert read_json(aside / "data/manifest.json")["seed"] == 42
    assert read_manifest(run)["seed"] == 7


def variants(text):
    """The same question as people type it: case, width, white space, invisible, punctuation."""
    return [text, text.upper(), f" {text.replace(' ', '  ')}?", f"{text}\u200b.", f"Ｈ{text[1:]}"]


def test_texts_that_differ_in_spelling_alone_are_in_one_split(tmp_path):
    rows = [
        (text, f"answer {number} {place}", float(place % 2))
        for number in range(60)
        for place, text in enumerate(variants(f"how do I pay bill {number}"))
    ]
    pairs = labelled(*rows)
    splits = split_pairs(pairs, 0.2, 0.3)
    seen = [{normalised(text) for text in texts_of(split)} for split in splits.values()]
    assert all(map(len, seen))
    assert not (seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2])
    lists = build_test(pairs, 10).lists
    assert seen_queries(lists, pairs.iloc[::5]) == len(lists)
    assert len(set(query_groups(lists))) == 60


def test_positives_kept_out_of_training_are_no_negatives_of_the_test(tmp_path):
    text = "sentence_0,sentence_1,label\n"
    (tmp_path / "test.csv").write_text(f"{text}a b,b a!,1\na c,zz,0\nb c,cc,1\n")
    (tmp_path / "pairs.csv").write_text(f"{text}A b?,a c,1\nx,y,1\na b,b c,0\n")
    prepare_data(
        tmp_path / "run", str(tmp_path / "pairs.csv"), test_pairs=str(tmp_path / "test.csv")
    )
    known = known_positives(tmp_path / "run")
    assert known["sentence_1"].tolist() == ["a c"]
    test = read_split(tmp_path / "run", "test")
    found = {}
    for name, more in (("with", known), ("without", None)):
        one = build_test(test, 9, known=more).lists[0]
        found[name] = {t for t, gain in zip(one.candidates, one.relevance, strict=True) if not gain}
    assert found["without"] - found["with"] == {"a c"}
    assert known_positives(tmp_path / "none").empty


def test_a_run_without_data_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="01_inspect_data"):
        read_split(tmp_path, "train")
    with pytest.raises(DataError, match="01_inspect_data"):
        read_manifest(tmp_path)


def test_a_damaged_record_or_split_is_named_and_not_a_traceback(tmp_path):
    run = tmp_path / "run"
    prepare_data(run, "data/sample_pairs.csv", max_pairs=50)
    (run / "data/train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train\.parquet: not a Parquet file.*: delete .* again"):
        read_split(run, "train")
    for content in ("{", '{"sides": 3}', "[]"):
        (run / "data/manifest.json").write_text(content)
        for call in (read_manifest, lambda run: prepare_data(run, "data/sample_pairs.csv")):
            with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
                call(run)


def test_one_notion_of_the_same_text_groups_splits_lists_and_meanings():
    positive = labelled(("Pay now", "Bill?", 1.0))
    groups = meaning_groups(["pay  now!", "ＢＩＬＬ", "open", "OPEN", "close"], positive)
    assert groups[0] == groups[1]
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3
    assert len(meaning_groups([], positive)) == 0


def test_a_test_file_of_its_own_is_kept_apart(tmp_path, sample):
    own = sample.iloc[:100]
    rest = sample.iloc[90:]  # ten rows are in both
    own.to_csv(tmp_path / "own.csv", index=False)
    rest.to_csv(tmp_path / "rest.csv", index=False)
    manifest = prepare_data(
        tmp_path / "run", str(tmp_path / "rest.csv"), test_pairs=str(tmp_path / "own.csv")
    )
    train, dev, test = (read_split(tmp_path / "run", split) for split in ("train", "dev", "test"))
    assert len(test) == 100
    assert not (texts_of(train) | texts_of(dev)) & texts_of(test)
    apart = manifest["test_pairs"]
    assert apart["pairs_kept_out_of_train"] == len(rest) - len(train) - len(dev) >= 10
    assert apart["rows"] == 100
    with pytest.raises(DataError, match="every pair has a text"):
        prepare_data(
            tmp_path / "none", str(tmp_path / "own.csv"), test_pairs=str(tmp_path / "own.csv")
        )
