"""Runs in comparison: what differed, the best, paired tests, seeds; and notebook 5 itself."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.benchmarks.comparing import make_runs
from tests.conftest import ROOT, run_notebook
from workbench.cli import main
from workbench.files import read_json, write_json, write_text
from workbench.ranking.uncertainty import randomisation_test
from workbench.reports import findings
from workbench.reports.figures.ranking import run_intervals, seed_spread
from workbench.runs.catalog import done_runs, read_run
from workbench.runs.comparison import (
    best_run,
    differences,
    find_runs,
    paired_table,
    per_query,
    runs_table,
    seed_table,
    varied,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight made-up runs: four settings, two seeds each; runs with the same seed share a test."""
    place = tmp_path_factory.mktemp("compare")
    make_runs(place, 8, queries=60, seeds=2)
    return place


@pytest.fixture(scope="module")
def records(folder):
    return find_runs("", folder)


def test_runs_are_found_in_folders_sweeps_and_by_name(folder, tmp_path):
    assert len(find_runs("", folder)) == 8
    named = find_runs(f"{folder}/run-003, {folder}/run-001", tmp_path)
    assert [record.name for record in named] == ["run-003", "run-001"]
    write_json(tmp_path / "s/sweep.json", {"jobs": {"x": {"same_as": str(folder / "run-002")}}})
    assert [record.name for record in find_runs("", tmp_path)] == ["run-002"]
    assert find_runs("", tmp_path / "none") == []


def test_what_differed_is_told_and_nothing_else(records):
    assert sorted(varied(records)[:2]) == ["learning_rate", "vocabulary"]
    assert varied(records)[2:] == ["seed"]
    table = differences(records[:2])  # the same setting, two seeds: another test too
    assert list(table.index) == ["parameters.seed", "data.test lists"]
    assert list(table.loc["parameters.seed"]) == ["0", "1"]
    same = differences([records[0], records[0]])
    assert same.empty
    text = findings.differences(records[:2], table)
    assert "`seed`" in text
    assert "the data" in text


def test_runs_of_one_name_are_told_apart_by_their_folder(tmp_path):
    for place in ("before", "after"):
        make_runs(tmp_path / place, 2, queries=10, seeds=2)
    file = tmp_path / "after/run-000/environment.json"
    write_json(file, read_json(file) | {"code": "other"})
    records = find_runs(f"{tmp_path}/before, {tmp_path}/after", tmp_path)
    names = [f"{place}/run-00{n}" for place in ("before", "after") for n in (0, 1)]
    assert [record.name for record in records] == names
    assert list(differences([records[0], records[2]]).index) == ["code.digest"]
    table = seed_table(records).set_index("code")  # other code is not another seed
    assert table["runs"].to_dict() == {"other": 1, "c": 3}


def test_a_text_with_other_line_ends_in_it_is_one_line(tmp_path):
    make_runs(tmp_path, 2, queries=10, seeds=1)
    for run in ("run-000", "run-001"):
        file = tmp_path / run / "evaluation/candidates.jsonl"
        text = file.read_text(encoding="utf-8")
        first = json.loads(text.split("\n")[0])
        first["query"] = "a\u2028b\x85c"
        lines = [json.dumps(first, ensure_ascii=False), *text.split("\n")[1:]]
        file.write_text("\n".join(lines), encoding="utf-8")
    assert paired_table(find_runs("", tmp_path))["queries"].tolist() == [10]


def test_the_best_run_has_the_highest_mean_and_the_table_is_sorted(records):
    best = best_run(records)
    table = runs_table(records)
    assert table["run"].iloc[0] == best.name
    assert table["ndcg@10"].is_monotonic_decreasing
    assert (table["low"] <= table["ndcg@10"]).all()
    assert best_run(records, "map") is None


def test_a_paired_test_is_that_of_the_shared_queries_only(records):
    best = best_run(records)
    table = paired_table(records).set_index("run")
    seed = best.parameters["seed"]
    for record in records:
        if record is best:
            continue
        row = table.loc[record.name]
        if record.parameters["seed"] != seed:
            assert row["queries"] == 0
            assert np.isnan(row["p_corrected"])
            assert "not comparable" in row["note"]
            continue
        own, other = (list(per_query(one, "ndcg@10").values()) for one in (best, record))
        gap = np.subtract(own, other)
        assert row["queries"] == 60
        assert row["difference"] == pytest.approx(gap.mean())
        assert row["low"] < gap.mean() < row["high"]
        assert row["p_corrected"] >= randomisation_test(gap[:, None], None, 2000)[0] - 0.02
    assert table["p_corrected"].notna().sum() == 3
    text = findings.best(records, paired_table(records))
    assert "with the same candidates with 4:" in text
    assert "best of 8" in text


def test_the_same_query_with_other_candidates_is_another_query(tmp_path):
    make_runs(tmp_path, 2, queries=10, seeds=1)
    file = tmp_path / "run-001/evaluation/candidates.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for row in rows[:4]:
        row["negative"][0] = "another"
    write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    (row,) = paired_table(find_runs("", tmp_path)).to_dict("records")
    assert row["queries"] == 6
    assert row["note"] == "only the queries in common"


def test_seeds_are_taken_together(records):
    table = seed_table(records)
    assert list(table["runs"]) == [2, 2, 2, 2]
    assert table["mean"].is_monotonic_decreasing
    setting = table.iloc[0]
    members = [
        record.value("ndcg@10")
        for record in records
        if record.parameters["vocabulary"] == setting["vocabulary"]
        and record.parameters["learning_rate"] == setting["learning_rate"]
    ]
    assert setting["mean"] == pytest.approx(np.mean(members))
    assert setting["sd"] == pytest.approx(np.std(members, ddof=1))
    assert list(table["queries"].iloc[1:]) == [120, 120, 120]  # both seeds' queries
    leads = table["mean"].iloc[0] - table["mean"].iloc[1:]
    assert list(table["lead"].iloc[1:]) == pytest.approx(list(leads))
    assert "4 settings" in findings.seeds(table)


def with_values(run, values):
    """Give a made-up run other nDCG@10, and the mean that belongs to them."""
    file = run / "evaluation/per_query.parquet"
    frame = pd.read_parquet(file)
    frame["ndcg@10"] = values
    frame.to_parquet(file)
    metrics = read_json(run / "evaluation/metrics.json")
    metrics["rows"][0]["ndcg@10"]["mean"] = float(np.mean(values))
    write_json(run / "evaluation/metrics.json", metrics)


def test_a_setting_that_is_behind_where_both_were_run_is_not_called_ahead(tmp_path):
    """One setting has an easy seed that the other lacks: its mean is higher, its ranking worse."""
    make_runs(tmp_path, 4, queries=60, seeds=2)
    shutil.rmtree(tmp_path / "run-003")  # the second setting has the first seed only
    noise = np.random.default_rng(0).normal(0, 0.02, 60)
    for run, level in (("run-000", 0.5), ("run-001", 0.9), ("run-002", 0.6)):
        with_values(tmp_path / run, level + noise * level)
    table = seed_table(find_runs("", tmp_path))
    assert table["mean"].tolist() == pytest.approx([0.7, 0.6], abs=0.02)
    assert table["lead"].iloc[1] < 0
    text = findings.seeds(table)
    assert "clearly ahead of 0 and **clearly behind 1** of the 1 other" in text
    assert "have not the same seeds" in text


@pytest.mark.parametrize("lead", [0.3, 0.0])
def test_of_120_runs_a_best_one_that_leads_is_seen_and_an_equal_one_is_not(tmp_path, lead):
    make_runs(tmp_path, 120, queries=40, seeds=1)
    rng = np.random.default_rng(1)
    for number in range(120):
        run, level = tmp_path / f"run-{number:03d}", 0.4 + lead * (number == 7)
        with_values(run, level + rng.normal(0, 0.1, 40))
    records = find_runs("", tmp_path)
    said = findings.best(records, paired_table(records))
    assert f"clearly ahead of {119 if lead else 0} of the 119 runs" in said


def test_runs_on_fewer_than_ten_queries_are_ahead_of_none(tmp_path):
    make_runs(tmp_path, 2, queries=9, seeds=1)
    with_values(tmp_path / "run-000", np.ones(9))
    with_values(tmp_path / "run-001", np.zeros(9))
    records = find_runs("", tmp_path)
    table = paired_table(records)
    assert table[["low", "high"]].isna().all().all()
    assert "clearly ahead of 0 of the 1 run" in findings.best(records, table)


def test_runs_without_figures_or_with_damage_stop_nobody(folder, tmp_path):
    write_text(tmp_path / "new/parameters.yaml", "seed: 3\n")
    write_text(tmp_path / "bad/parameters.yaml", "seed: [")
    (tmp_path / "bad/evaluation").mkdir()
    (tmp_path / "bad/evaluation/metrics.json").write_text("{")
    mixed = [*find_runs("", tmp_path), read_run(folder / "run-000")]
    table = runs_table(mixed)
    assert table["run"].iloc[0] == "run-000"
    assert table["ndcg@10"].isna().sum() == 2
    assert paired_table(mixed).empty
    for nothing in ([], mixed[:1]):
        for ask in (runs_table, paired_table, seed_table):
            ask(nothing)
        seed_spread(seed_table(nothing))
        run_intervals(runs_table(nothing))
        assert findings.best(nothing, paired_table(nothing)).startswith("No run")


ROWS = '{"queries": 1, "model_minus": {}, "rows": [{"scorer": "m", "ndcg@10": {"mean": 1%s}}]%s}'
DAMAGED = {
    "status.json": (
        *("[]", "[" * 100_000, '{"notebooks":null}', '{"notebooks":[1,2]}'),
        *('{"notebooks":{"01":"x"}}', '{"notebooks":{"01":{"seconds":"abc"}}}'),
    ),
    "evaluation/metrics.json": (
        *("{", "[" * 100_000, '{"rows":null}', '{"rows":["x"]}'),
        *(ROWS % (', "low": 0', ""), ROWS % (', "low": null, "high": 1', "")),
        *(ROWS % ("", f', "{name}": []') for name in ("query_groups", "flips", "queries_all_tied")),
    ),
    "data/manifest.json": ("[]", "[" * 100_000, '{"sha256": 5}'),
    "environment.json": ("[]", "{" * 10),
}


@pytest.mark.parametrize(("name", "text"), [(n, t) for n, all in DAMAGED.items() for t in all])
def test_a_damaged_record_stops_nobody(tmp_path, name, text):
    make_runs(tmp_path, 2, queries=5, seeds=1)
    (tmp_path / "run-000" / name).write_text(text, encoding="utf-8")
    records = find_runs("", tmp_path)
    assert len(runs_table(records)) == 2
    assert records[0].seconds >= 0
    assert records[0].state == "damaged"
    assert records[0].problem.count(f"{name} is damaged") == 1
    assert done_runs(tmp_path) == {}


def test_a_folder_that_may_not_be_looked_into_stops_nobody(tmp_path, capsys, monkeypatch):
    for name in ("open", "shut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "parameters.yaml").write_text("seed: 1")

    def look(path, *given, plain=Path.stat, **how):
        if tmp_path / "shut" in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *given, **how)

    monkeypatch.setattr(Path, "stat", look)
    assert main(["runs", "--runs-dir", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert "open  incomplete" in table
    assert "shut  damaged" in table
    assert main(["runs", "rm", "shut", "--yes", "--runs-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("shut/parameters.yaml: Permission denied\n")


@pytest.mark.parametrize("jobs", ["[]", '{"a":1}', '{"a":{"same_as":1}}'])
def test_a_damaged_sweep_stops_nobody(tmp_path, jobs):
    make_runs(tmp_path / "s", 1, queries=5, seeds=1)
    write_text(tmp_path / "s/sweep.json", f'{{"schema":"x","jobs":{jobs}}}')
    assert [record.name for record in find_runs("", tmp_path)] == ["run-000"]


DAMAGED_VALUES = {
    "per_query.parquet: not a Parquet file": lambda e: (e / "per_query.parquet").write_bytes(
        b"PAR1 and no more"
    ),
    "there is no column 'number'": lambda e: pd.DataFrame({"scorer": ["model"]}).to_parquet(
        e / "per_query.parquet"
    ),
    "has 4 values for 5 lists": lambda e: pd.read_parquet(e / "per_query.parquet")[:4].to_parquet(
        e / "per_query.parquet"
    ),
    "line 1: the line is not a JSON object": lambda e: (e / "candidates.jsonl").write_text("[]\n"),
}


@pytest.mark.parametrize("said", DAMAGED_VALUES)
@pytest.mark.parametrize("run", ["run-000", "run-001"])
def test_damaged_values_of_a_run_are_named_and_stop_nobody(tmp_path, said, run):
    """In the best run as in another one."""
    make_runs(tmp_path, 2, queries=5, seeds=1)
    DAMAGED_VALUES[said](tmp_path / run / "evaluation")
    (row,) = paired_table(find_runs("", tmp_path)).to_dict("records")
    assert row["queries"] == 0
    assert f"{run}/evaluation: " in row["note"]
    assert said in row["note"]


def test_the_figures_show_every_run_and_name_the_best(records):
    labels = run_intervals(runs_table(records)).get_yticklabels()
    assert labels[-1].get_text() == best_run(records).name
    assert len(seed_spread(seed_table(records)).get_yticklabels()) == 4


def test_notebook_5_compares_a_folder_of_runs(folder, tmp_path):
    out = tmp_path / "out.ipynb"
    run_notebook(ROOT / "notebooks/05_compare_runs.ipynb", out, run_dir=str(folder))
    for figure in ("runs", "seeds"):
        assert (folder / f"figures/{figure}.png").stat().st_size > 5000
    text = out.read_text(encoding="utf-8")
    assert "8 runs: 8 done." in text
    assert "has the best ndcg@10" in text


def test_notebook_5_stands_an_empty_folder(tmp_path):
    out = tmp_path / "out.ipynb"
    run_notebook(ROOT / "notebooks/05_compare_runs.ipynb", out, run_dir=str(tmp_path / "none"))
    assert "0 runs: none." in out.read_text(encoding="utf-8")
