"""Tests of the program that writes the sample pairs."""

from __future__ import annotations

import csv
import importlib.util
import os
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from workbench.data.lists import read_test

DATA = Path(__file__).resolve().parents[2] / "data"
SHIPPED = DATA / "sample_pairs.csv"


def load_generator():
    """Load the program by its path: data/ is not a package."""
    spec = importlib.util.spec_from_file_location("sample_generator", DATA / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generator = load_generator()


@pytest.fixture(scope="module")
def rows():
    """Return the rows of the shipped sample, with their kinds."""
    return generator.generate()


@pytest.mark.parametrize("hash_seed", ["0", "4242"])
def test_the_shipped_file_is_reproduced_byte_for_byte(tmp_path, hash_seed):
    out = tmp_path / "pairs.csv"
    subprocess.run(
        [sys.executable, str(DATA / "generate.py"), "--out", str(out)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        check=True,
        timeout=60,
    )
    for suffix in (".csv", ".lists.jsonl", ".gloss.tsv"):
        assert out.with_suffix(suffix).read_bytes() == SHIPPED.with_suffix(suffix).read_bytes()


def test_the_shipped_file_has_the_stated_form(rows):
    content = SHIPPED.read_bytes()
    assert content.startswith(b"sentence_0,sentence_1,label\n")
    assert b"\r" not in content
    with SHIPPED.open(encoding="utf-8", newline="") as file:
        read = [(a, b, int(label)) for a, b, label in list(csv.reader(file))[1:]]
    assert read == [row[:3] for row in rows]
    assert len(read) == 2000


def test_paraphrases_mean_the_same_and_hard_negatives_do_not(rows):
    for row in rows:
        assert all(row.english)
        if row.kind != "random":
            assert (row.english[0] == row.english[1]) == (row.kind == "paraphrase"), row


def test_candidates_of_a_list_are_judged_by_what_they_mean(rows):
    """No negative means what the query does, and no text was seen among the pairs."""
    lists = read_test(SHIPPED.with_suffix(".lists.jsonl")).lists
    meant = dict(
        line.split("\t")
        for line in SHIPPED.with_suffix(".gloss.tsv").read_text(encoding="utf-8").splitlines()
    )
    assert len(lists) == len({meant[one.query] for one in lists}) == 150
    for one in lists:
        same = [meant[text] == meant[one.query] for text in one.candidates]
        assert same == [grade == 1 for grade in one.relevance]
        assert (sum(same), len(same)) == (2, 12)
    texts = [generator.bare(text) for one in lists for text in (one.query, *one.candidates)]
    assert len(set(texts)) == len(texts)
    assert {generator.bare(text) for row in rows for text in row[:2]}.isdisjoint(texts)


def test_label_mean_and_kinds(rows):
    kinds = Counter(row.kind for row in rows)
    assert 0.155 <= sum(row.label for row in rows) / len(rows) <= 0.165
    assert all(row.label == (row.kind == "paraphrase") for row in rows)
    assert 0.20 <= kinds["hard_negative"] / len(rows) <= 0.25


def test_text_lengths(rows):
    texts = [text for row in rows for text in row[:2]]
    lengths = [len(text) for text in texts]
    assert (min(lengths), max(lengths)) == (1, 99)
    assert 11 <= sum(lengths) / len(lengths) <= 13
    assert all(text == text.strip() for text in texts)
    assert not any(mark in text for text in texts for mark in "#+{}|/=")


def test_character_overlap_does_not_solve_the_pairs(rows):
    scored = [(generator.jaccard(*row[:2]), row.label) for row in rows]
    close = [pair for pair, row in zip(scored, rows, strict=True) if row.kind != "random"]
    assert 0.35 <= generator.auc(close) <= 0.65
    assert 0.75 <= generator.auc(scored) <= 0.93
    positive = [score for score, label in scored if label]
    assert sum(score < 0.3 for score in positive) / len(positive) >= 0.25
    lists = generator.generate_lists(150, rows)
    close = [
        (generator.jaccard(one.query, text), label)
        for one in lists
        for label, texts in ((1, one.positive), (0, one.negative[:3]))
        for text in texts
    ]
    assert 0.35 <= generator.auc(close) <= 0.65


def test_auc_on_cases_worked_by_hand():
    assert generator.auc([(0.1, 0), (0.2, 0), (0.9, 1)]) == 1.0
    assert generator.auc([(0.1, 1), (0.9, 0)]) == 0.0
    assert generator.auc([(0.5, 0), (0.5, 1), (0.5, 0)]) == 0.5
    assert generator.auc([(0.1, 0), (0.4, 1), (0.6, 0), (0.8, 1)]) == 0.75


@pytest.mark.parametrize("name", generator.OPERATIONS)
def test_each_operation_occurs_and_changes_the_text(rows, name):
    made = [row for row in rows if name in row.operations]
    assert len(made) >= 5
    assert all(row.label == 1 and row.sentence_0 != row.sentence_1 for row in made)


@pytest.mark.parametrize("name", generator.SURFACE)
def test_each_surface_operation_changes_a_fitting_text(name):
    text = "怎么修改身份证号码"
    changed = {generator.SURFACE[name](text, random.Random(seed)) for seed in range(20)}
    assert changed - {text}


def test_every_rewrite_entry_can_fire():
    """An entry that matches no hand-written phrasing would be dead weight."""
    families = generator.LEXICON.families
    bodies = [p.split(" ", 1)[1] for f in families for i in f.intents for p in i]
    names = [alias for family in families for aliases in family.objects for alias in aliases]
    frames = [frame[0] for group in generator.FRAMES.values() for frame in group]
    known = [*bodies, *names, *frames, "请问一下"]
    for kind, entries in generator.LEXICON.rewrites.items():
        for pattern, _ in entries:
            assert any(pattern.search(text.format(v="", o="")) for text in known), (kind, pattern)


def test_no_duplicate_and_no_contradiction_even_swapped(rows):
    pairs = [frozenset(row[:2]) for row in rows]
    assert all(len(pair) == 2 for pair in pairs)
    assert len(set(pairs)) == len(pairs)


def test_no_negative_joins_texts_that_paraphrases_connect(rows):
    group = {}
    for row in rows:
        if row.label:
            merged = group.get(row.sentence_0, {row.sentence_0})
            merged = merged | group.get(row.sentence_1, {row.sentence_1})
            group.update(dict.fromkeys(merged, merged))
    for row in rows:
        if not row.label:
            assert row.sentence_1 not in group.get(row.sentence_0, ())


@pytest.mark.parametrize("seed", [1, 2])
def test_hard_negatives_are_never_written_from_one_meaning(seed, monkeypatch):
    seen = []
    keep = generator.Writer.keep

    def spy(self, label, kind, left, right, local):
        seen.append((kind, left, right))
        keep(self, label, kind, left, right, local)

    monkeypatch.setattr(generator.Writer, "keep", spy)
    generator.generate(pairs=600, seed=seed)
    for kind, left, right in seen:
        if kind == "paraphrase":
            assert left.meaning == right.meaning
        elif kind == "hard_negative":
            assert left.meaning != right.meaning
            assert left.meaning[0] == right.meaning[0]
        else:
            assert left.domain != right.domain


def test_components_are_small_and_many_hold_a_positive(rows):
    groups = generator.components(rows)
    assert sum(map(len, groups)) == len(rows)
    assert len(groups[0]) <= len(rows) * 0.10
    assert sum(any(row.label for row in group) for group in groups) >= 250
    owner = {}
    for number, group in enumerate(groups):
        for row in group:
            assert owner.setdefault(row.sentence_0, number) == number
            assert owner.setdefault(row.sentence_1, number) == number


def test_some_texts_are_reused_as_in_query_logs(rows):
    uses = Counter(text for row in rows for text in row[:2])
    assert 0.1 <= sum(count > 1 for count in uses.values()) / len(uses) <= 0.6
    assert max(uses.values()) <= 10


def test_another_seed_and_size_give_another_sample(rows):
    other = generator.generate(seed=43)
    assert len(other) == len(rows)
    assert {row[:2] for row in other} != {row[:2] for row in rows}
    assert len(generator.generate(pairs=300, seed=42)) == 300


def test_lexicon_is_large_and_every_phrasing_names_its_object():
    families = generator.LEXICON.families
    assert sum(len(family.intents) for family in families) >= 150
    assert len({family.domain for family in families}) >= 10
    for family in families:
        names = [alias for aliases in family.objects for alias in aliases]
        assert len(set(names)) == len(names)
        for intent in family.intents:
            assert len(intent) >= 2
            assert all(("#" in phrasing) == bool(names[0]) for phrasing in intent), intent


def test_the_datasheet_has_the_figures_of_the_sample(rows):
    lists = generator.generate_lists(150, rows)
    described = f"{generator.describe(rows)}\n{generator.describe_lists(lists)}"
    described += f"\n{sum(len(one.english) for one in lists)} texts"
    sheet = re.findall(r"\d[\d,]*(?:\.\d+)?", (DATA / "README.md").read_text(encoding="utf-8"))
    known = [(float(one.replace(",", "")), len(one.partition(".")[2])) for one in sheet]
    for found in re.findall(r"\d+(?:\.\d+)?", described):
        assert any(round(float(found), digits) == value for value, digits in known), found


def test_too_few_lists_to_describe_are_none():
    assert generator.describe_lists([]) == "lists: 0"


def test_too_many_pairs_are_refused_with_a_reason(monkeypatch):
    monkeypatch.setattr(generator.Writer, "realise", lambda *_: generator.Text("同", (0, 0, 0), ""))
    writer = generator.Writer(1)
    writer.used.add("同")
    with pytest.raises(ValueError, match="fewer pairs"):
        writer.fresh((0, 0, 0), {})
