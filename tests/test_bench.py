"""The benchmark: its table, its JSON and what the README quotes agree. No time is asserted."""

import json

import pytest

from tests.benchmarks import bench, sides
from tests.conftest import ROOT
from workbench.files import read_json


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    out = tmp_path_factory.mktemp("bench") / "bench.json"
    bench.main(
        ["splitting", "--only", "reading", "--rounds", "2", "--rows", "3000", "--out", str(out)]
    )
    return out


def test_json_and_markdown_agree(measured, capsys):
    record = read_json(measured)
    assert list(record["measured"]) == ["reading", "splitting"]  # in the order of the table
    rows = [row for one in record["measured"].values() for row in one["rows"]]
    named = [(row["peer"]["name"], row["ours"]["name"]) for row in rows]
    assert named == [
        ("`pandas.read_csv`", "`read_pairs`"),
        ('`datasets.load_dataset("csv")`', "`read_pairs`"),
        ("`GroupShuffleSplit`, given the groups", "`split_pairs`"),
    ]
    for row in rows:
        ratios = [
            a / b for a, b in zip(row["peer"]["seconds"], row["ours"]["seconds"], strict=True)
        ]
        assert (row["low"], row["high"]) == (min(ratios), max(ratios))
        assert row["ratio"] == pytest.approx(sum(ratios) / 2)
        assert row["ours"]["value"] == pytest.approx(sum(row["ours"]["seconds"]) / 2)
        assert 2**25 < row["ours"]["most_bytes"] < 2**32
    assert rows[0]["ours"]["found"] == "3,000 rows checked, 3 bad ones named"
    bench.main(["--readme", "--out", str(measured)])
    shown = capsys.readouterr().out
    assert record["machine"]["processor"] in shown
    table = [line.strip("| ").split(" | ") for line in shown.splitlines() if line[:2] == "| "]
    assert table[0] == list(bench.HEAD)
    assert table[2:] == [list(bench.cells(row)) for row in rows]
    for row, (_, peer, ours, ratio) in zip(rows, table[2:], strict=True):
        assert f"{row['peer']['name']}: {row['peer']['value']:.3g} s, " in peer
        assert f"{row['ours']['most_bytes'] / 2**30:.2f} GiB" in ours
        assert ratio == f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    assert "make bench BENCH_FLAGS='splitting reading --rounds 2 --count 1000 --rows 3000'" in shown


def test_another_row_is_added_on_the_same_machine_and_replaces_all_on_another(
    measured, tmp_path, capsys, monkeypatch
):
    def one_row(options, folder):
        path = bench.made_up(10, folder)
        yield bench.Group("few rows", "s", (), ("`read_pairs`",), values={"file": path}, rounds=1)

    monkeypatch.setitem(bench.ROWS, "memory", one_row)
    out = tmp_path / "bench.json"
    out.write_bytes(measured.read_bytes())
    bench.main(["memory", "--out", str(out)])
    assert list(read_json(out)["measured"]) == ["reading", "splitting", "memory"]
    assert "few rows\n    `read_pairs`: " in capsys.readouterr().out
    other = read_json(out)
    other["machine"]["processor"] = "another"
    out.write_text(json.dumps(other), encoding="utf-8")
    bench.main(["memory", "--out", str(out)])
    assert list(read_json(out)["measured"]) == ["memory"]


def test_a_row_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["scorring"])
    assert "'scorring' is none of scoring, training" in capsys.readouterr().err


@pytest.mark.parametrize(
    "way",
    [name for name in sides.WAYS if "backend" in name or "predict" in name or "batches" in name],
)
def test_every_way_with_a_model_goes_through_all_pairs(way, tiny_model):
    given = {"model": str(tiny_model), "pairs": "data/sample_pairs.csv", "count": 70}
    try:
        run = sides.WAYS[way](given)
    except sides.NotHereError as error:
        pytest.skip(str(error))
    found = run()
    assert found["amount"] == 70
    assert found["detail"].startswith("pairs of ")
    assert len(found.get("scores", [0.0] * 70)) == 70


def test_each_row_of_the_table_asks_for_ways_that_exist(tmp_path):
    class Options:
        rows, model = (10,), "bundled:all-MiniLM-L6-v2"

    groups = [group for make in bench.ROWS.values() for group in make(Options, tmp_path)]
    assert {name for group in groups for name in group.peers + group.ours} <= set(sides.WAYS)


def test_the_readme_quotes_what_was_measured():
    if not (bench.RESULTS / "bench.json").is_file():
        pytest.skip("nothing has been measured yet")
    quoted = bench.markdown(read_json(bench.RESULTS / "bench.json"))
    assert quoted in (ROOT / "README.md").read_text(encoding="utf-8")
