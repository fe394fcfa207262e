"""The table of bases, and what their tokenizers make of texts whose tokens are counted by hand."""

import json
import math

import pytest

from tests.conftest import labelled
from workbench.cli import main
from workbench.models import BUNDLED_MODEL, HUB_NAME
from workbench.vocabulary import inspection as bases
from workbench.vocabulary.coverage import vocabulary_verdict

PAIRS = labelled(("hello", "hi", 1.0), ("你", "们", 0.0))


def test_the_table_is_whole_and_every_base_has_its_source():
    table = bases.known_bases()
    assert len(table) >= 12
    assert list(table) == [
        *("parameters", "languages", "licence", "tokenizer", "positions", "weights"),
        *("note", "unverified", "source"),
    ]
    assert table.notna().all().all()
    assert (table["positions"] >= 512).all()
    assert set(table["weights"]) == {"safetensors", "pytorch"}
    assert {*" ".join(table["unverified"]).split()} <= {*table}
    facts = table.drop(columns=["note", "unverified"]).astype(str)
    assert (facts != "").all().all()
    for name, source in table["source"].items():
        assert HUB_NAME.fullmatch(name) or name == BUNDLED_MODEL
        assert source.startswith("https://huggingface.co/")


def test_tokens_unknown_and_equal_texts_are_counted(tiny_model):
    found = bases.read_by_bases(PAIRS, [BUNDLED_MODEL, "BAAI/bge-reranker-base", str(tiny_model)])
    bundled = found.loc[BUNDLED_MODEL]
    # hello, hi, and two unknown characters, which are 9 characters; the two look the same
    assert bundled["tokens"] == pytest.approx(4 / 9)
    assert bundled["unknown"] == pytest.approx(1 / 2)
    assert bundled["equal"] == pytest.approx(1 / 2)
    assert bundled["problem"] == ""
    assert found.loc["BAAI/bge-reranker-base", "problem"] == "not on disk"
    assert math.isnan(found.loc["BAAI/bge-reranker-base", "tokens"])
    assert found.loc[str(tiny_model), "tokens"] > 0


def test_only_tokenizers_are_fetched_and_only_when_asked(tiny_model, monkeypatch):
    asked = []

    def fetch(name, allow_patterns, local_files_only):
        asked.append((name, local_files_only))
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        return str(tiny_model)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    for download in (False, True):
        bases.read_by_bases(PAIRS, ["hfl/chinese-macbert-base"], download)
    assert asked == [("hfl/chinese-macbert-base", True), ("hfl/chinese-macbert-base", False)]

    def fail(*_, **__):
        raise OSError("the server is ill")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    (row,) = bases.read_by_bases(PAIRS, ["hfl/chinese-macbert-base"], True).itertuples()
    assert row.problem == "cannot be fetched: the server is ill"


def test_the_command_shows_the_table_and_reads_a_file(tmp_path, tiny_model, capsys, monkeypatch):
    assert main(["bases"]) == 0
    (row,) = [one for one in capsys.readouterr().out.splitlines() if "mengzi" in one]
    assert row.split("WordPiece")[1].split() == [
        *("512", "pytorch", "safetensors", "at", "base_revision", "refs/pr/1")
    ]
    file = tmp_path / "我的 pairs.csv"
    file.write_text("q,sentence_1,label\n你,们,1\nhello,hi,0\n", encoding="utf-8")
    asked = ["bases", "--pairs", str(file), "--base", str(tiny_model)]
    assert main(asked) == 2
    assert "no column 'sentence_0'" in capsys.readouterr().err
    asked += ["-p", "sentence_0_column", "q"]
    assert main(asked) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        *("base", "parameters", "languages", "weights", "tokens", "unknown", "equal", "problem")
    ]
    (bundled,) = [line.split() for line in lines if line.startswith(BUNDLED_MODEL)]
    assert bundled[-3:] == ["0.4444", "0.5", "0.5"]
    (own,) = [line for line in lines if line.startswith(str(tiny_model))]
    assert float(own.split()[1]) > 0
    assert main([*asked, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[BUNDLED_MODEL]["unknown"] == 0.5
    assert rows["BAAI/bge-reranker-base"]["problem"] == "not on disk"
    assert rows["BAAI/bge-reranker-base"]["source"].startswith("https://")


def test_a_red_verdict_names_a_base_the_dictionary_and_characters_in_this_order():
    def how(unknown, lost=0.0, folded=0.0, added=9):
        shares = {"unk_share": unknown, "unread_share": unknown, "byte_share": 0.0}
        return {**shares, "lost_share": lost, "folded_share": folded, "added": added}

    red = {"keep": how(0.5, 0.5), "extend": how(0.0), "words": how(0.1)}
    verdict = vocabulary_verdict(red)
    assert verdict["colour"] == "red"
    places = [verdict["action"].index(way) for way in ("`workbench bases`", "dictionary", "extend")]
    assert places == sorted(places)
    useless = red | {"words": how(0.5)}
    assert "dictionary" not in vocabulary_verdict(useless)["action"]
    for other in ({"keep": how(0.5, 0.5)}, red | {"keep": how(0.5), "extend": how(0, 0, 0.5)}):
        assert "`workbench bases`" in vocabulary_verdict(other)["action"]


def test_a_base_that_is_only_partly_on_disk_stops_nobody(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_bytes((tiny_model / "tokenizer.json").read_bytes())
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    found = bases.read_by_bases(PAIRS, ["hfl/chinese-macbert-base", BUNDLED_MODEL])
    assert "config.json" in found.loc["hfl/chinese-macbert-base", "problem"]
    assert found.loc[BUNDLED_MODEL, "problem"] == ""
