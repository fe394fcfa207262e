"""The benchmark: its table and its JSON agree, and every way runs. No time is asserted."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.benchmarks import bench, ways
from workbench.files import read_json


def test_json_and_table_agree(tmp_path, capsys):
    out = tmp_path / "bench.json"
    bench.main(["reading", "splitting", "--rounds", "2", "--rows", "3000", "--out", str(out)])
    record, shown = read_json(out), capsys.readouterr().out
    rows = record["rows"]
    assert [(row["peer"]["name"], row["ours"]["name"]) for row in rows] == [
        ("`pandas.read_csv`", "`read_pairs`"),
        ('`datasets.load_dataset("csv")`', "`read_pairs`"),
        ("`GroupShuffleSplit`, given the groups", "`split_pairs`"),
    ]
    for row in rows:
        times = zip(row["peer"]["seconds"], row["ours"]["seconds"], strict=True)
        ratios = [first / second for first, second in times]
        assert (row["low"], row["high"]) == (min(ratios), max(ratios))
        assert row["ratio"] == pytest.approx(sum(ratios) / 2)
        assert row["ours"]["value"] == pytest.approx(sum(row["ours"]["seconds"]) / 2)
        assert 2**25 < row["ours"]["most_bytes"] < 2**32
    assert rows[0]["ours"]["found"] == "3,000 rows checked, 3 bad ones named"
    assert bench.processor(record["machine"]) in shown
    table = [line.strip("| ").split(" | ") for line in shown.splitlines() if line[:2] == "| "]
    assert table[0] == list(bench.HEAD)
    assert table[2:] == [list(bench.cells(row)) for row in rows]
    for row, (_, peer, ours, ratio) in zip(rows, table[2:], strict=True):
        assert f"{row['peer']['name']}: {row['peer']['value']:.3g} s, " in peer
        assert f"{row['ours']['most_bytes'] / 2**30:.2f} GiB" in ours
        assert ratio == f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def test_a_way_that_is_not_here_is_left_out_and_one_without_a_peer_has_no_ratio(
    tmp_path, capsys, monkeypatch
):
    def rows(options, folder):
        file = {"file": bench.made_up(10, folder)}
        absent = bench.Way("absent", "backend", {"backend": "torch-bfloat16"})
        yield bench.Group("few rows", "s", [], [bench.Way("ours", "read_by_us", file), absent])

    monkeypatch.setitem(bench.ROWS, "memory", rows)
    monkeypatch.setattr(bench.Process, "__init__", absent_if_model(bench.Process.__init__))
    bench.main(["memory", "--rounds", "1", "--out", str(tmp_path / "bench.json")])
    told = capsys.readouterr()
    assert "left out: absent: not on this machine" in told.err
    assert "| few rows |  | ours: " in told.out


def absent_if_model(make):
    def init(self, way, options, stack):
        if way.function == "backend":
            self.way, self.not_here = way, "not on this machine"
        else:
            make(self, way, options, stack)

    return init


def test_a_row_that_does_not_exist_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench.main(["scorring"])
    assert "'scorring' is none of scoring, training" in capsys.readouterr().err


WITH_MODEL = [
    ("predict", {}),
    ("backend", {"backend": "auto"}),
    ("backend", {"backend": "torch-float32"}),
    ("backend", {"backend": "onnx-int8"}),
    ("library_training", {"batch_size": 32, "precision": "float32"}),
    ("fast_training", {"batch_size": 32, "precision": "float32"}),
    ("predict", {"vocabulary": "extend"}),
    ("fast_training", {"batch_size": 32, "precision": "float32", "vocabulary": "words"}),
]


@pytest.mark.parametrize(("way", "more"), WITH_MODEL)
def test_every_way_with_a_model_goes_through_all_pairs(way, more, tiny_model):
    given = {"model": str(tiny_model), "pairs": "data/sample_pairs.csv", "count": 70}
    try:
        run = getattr(ways, way)(given | more)
    except ways.NotHereError as error:
        pytest.skip(str(error))
    found = run()
    assert found["amount"] == 70
    assert found["found" if "vocabulary" in more else "detail"].startswith("70 pairs of ")
    assert len(found.get("scores", [0.0] * 70)) == 70


def test_a_random_head_is_given_the_spread_of_a_trained_one(tiny_model, tmp_path):
    folder = tmp_path / "headless"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    body = {name: value for name, value in weights.items() if name.startswith("bert.")}
    save_file(body, folder / "model.safetensors", metadata={"format": "pt"})
    given = {"model": str(folder), "pairs": "data/sample_pairs.csv", "count": 200}
    scores = np.array(ways.predict(given)()["scores"])
    assert scores.std() == pytest.approx(ways.TRAINED_SPREAD, rel=0.01)
    assert scores.mean() == pytest.approx(0, abs=0.1)


def test_each_row_of_the_table_has_ways_that_exist(tmp_path):
    class Options:
        rows = (10,)

    for make in bench.ROWS.values():
        for group in make(Options, tmp_path):
            assert all(callable(getattr(ways, way.function)) for way in group.peers + group.ours)
