"""Runs beside one another: what differed, which is best, and what may be said about it.

A paired test needs the same queries with the same candidates; where two runs do not share any, the
tables say so and give no p-value.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.splits import text_groups
from workbench.ranking.metrics import LOWER_IS_BETTER, RANKING_METRICS
from workbench.ranking.uncertainty import bootstrap_draws, estimate, holm, randomisation_test
from workbench.runs.catalog import RunRecord, read_run, run_folders
from workbench.runs.folder import NOT_RECORDED

PER_QUERY = tuple(RANKING_METRICS)


RESAMPLES = 2000  # of the tests on this page


def find_runs(compare_runs: str, run_dir: str | Path) -> list[RunRecord]:
    """The runs to compare.

    Args:
        compare_runs: run folders, sweeps or folders of runs, separated by commas; empty for the
            runs beside or in `run_dir`.
        run_dir: the folder of this comparison: a sweep, a folder of runs, or a run.
    """
    asked = [place for place in map(str.strip, compare_runs.split(",")) if place]
    places: Sequence[str | Path] = asked or [run_dir]
    folders = dict.fromkeys(folder for place in places for folder in run_folders(place))
    records = [read_run(folder) for folder in folders]
    counts = Counter(record.name for record in records)
    return [
        record
        if counts[record.name] == 1
        else replace(record, name=f"{record.folder.parent.name}/{record.name}")
        for record in records
    ]


def facts(record: RunRecord) -> dict[str, Any]:
    """All that a run records of how it was made, one value a name, for finding what differs."""
    skipped = {*NOT_RECORDED, "compare_runs", "query"}
    environment = record.environment
    return {
        **{f"parameters.{k}": v for k, v in record.parameters.items() if k not in skipped},
        **{
            f"data.{k}": _flat(record.data.get(k))
            for k in ("source", "sha256", "rows")
            if k in record.data
        },
        "data.test lists": record.test[:12],
        "code.commit": environment.get("commit"),
        "code.digest": str(environment.get("code", ""))[:12],
        **{f"versions.{k}": v for k, v in environment.get("packages", {}).items()},
        "versions.python": environment.get("python"),
        "machine.platform": environment.get("platform"),
        "machine.cores": environment.get("cores"),
    }


def differences(records: Sequence[RunRecord]) -> pd.DataFrame:
    """What is not the same in all runs: a row a name, a column a run; absent values are empty."""
    table = pd.DataFrame(
        {record.name: pd.Series(facts(record), dtype=object) for record in records}
    )
    if table.empty:
        return table
    shown = table.map(lambda value: "" if value is None or value is np.nan else _flat(value))
    return shown[shown.nunique(axis=1) > 1]


def varied(records: Sequence[RunRecord]) -> list[str]:
    """The parameters that are not the same in all runs, the seed last."""
    names = dict.fromkeys(name for record in records for name in record.parameters)
    skipped = {*NOT_RECORDED, "compare_runs", "query"}
    different = [
        name
        for name in names
        if name not in skipped
        and len({_flat(record.parameters.get(name)) for record in records}) > 1
    ]
    return sorted(different, key=lambda name: name == "seed")


def settings(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Of each run what tells it from the others besides the seed.

    These are the parameters that vary and, where not all runs have the same, digests of the `code`
    that made them and of the `data`: to take runs of other code for other seeds would be wrong.
    """
    names = [name for name in varied(records) if name != "seed"]
    made = {
        "code": [str(record.environment.get("code", ""))[:12] for record in records],
        "data": [str(record.data.get("sha256", ""))[:12] for record in records],
    }
    marks = [name for name, values in made.items() if len(set(values)) > 1]
    return [
        {
            **{name: record.parameters.get(name) for name in names},
            **{name: made[name][place] for name in marks},
        }
        for place, record in enumerate(records)
    ]


def runs_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """A row a run, the best first: state, what was varied, the metric with its interval, seconds.

    Runs without the metric stand at the end.
    """
    names = varied(records)
    rows = []
    for record in records:
        found = record.metrics.get(metric, {})
        values = {name: record.parameters.get(name) for name in names}
        rows.append(
            {
                "run": record.name,
                "state": record.state,
                **values,
                metric: found.get("mean"),
                "low": found.get("low"),
                "high": found.get("high"),
                "seconds": record.seconds,
                "problem": record.problem[:80],
            }
        )
    columns = ["run", "state", *names, metric, "low", "high", "seconds", "problem"]
    table = pd.DataFrame(rows, columns=columns)
    for name in (metric, "low", "high"):
        table[name] = table[name].astype(float)
    up = metric in LOWER_IS_BETTER
    ordered = table.sort_values(metric, ascending=up, na_position="last", kind="stable")
    return ordered.reset_index(drop=True)


def best_run(records: Sequence[RunRecord], metric: str = "ndcg@10") -> RunRecord | None:
    """The run with the best mean of a metric; None if no run has it."""
    able = [record for record in records if record.value(metric) is not None]
    sign = 1 if metric in LOWER_IS_BETTER else -1
    return min(able, key=lambda record: sign * float(record.value(metric) or 0), default=None)


def paired_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """The best run against each of the others, query by query.

    Returns:
        A row a run: `queries` in common (the same query with the same candidates), the mean
        `difference` of the best run with its 95 % interval, `p` and `p_holm` (corrected for all
        rows with a test); NaN, and a `note`, where no query is shared.
    """
    best = best_run(records, metric)
    columns = ["run", "queries", "difference", "low", "high", "p", "p_holm", "note"]
    if best is None or metric not in PER_QUERY:
        return pd.DataFrame(columns=columns)
    others = [one for one in records if one is not best and one.value(metric) is not None]
    count = len(per_query(best, metric))
    rows: list[dict[str, Any]] = []
    together: dict[tuple[str, ...], list[tuple[int, np.ndarray]]] = {}
    for record in others:
        keys, gap = _gap(best, record, metric)
        rows.append({"run": record.name, "queries": len(keys)})
        if keys:
            together.setdefault(tuple(keys), []).append((len(rows) - 1, gap))
        else:
            rows[-1]["note"] = "no query in common with the same candidates: not comparable"
    for key, gaps in together.items():  # one draw for all runs with the same queries
        matrix = np.column_stack([gap for _, gap in gaps])
        groups = list_groups(key)
        p = randomisation_test(matrix, groups, RESAMPLES)
        draws = bootstrap_draws(matrix, groups, RESAMPLES)
        for column, (row, gap) in enumerate(gaps):
            found = estimate(gap.mean(), draws[:, column])
            note = "" if len(key) == count else "only the queries in common"
            rows[row] |= {
                "difference": found.mean,
                "low": found.low,
                "high": found.high,
                "p": float(p[column]),
                "note": note,
            }
    table = pd.DataFrame(rows, columns=columns)
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].astype(float).to_numpy())
    return table.sort_values("difference", na_position="last", kind="stable", ignore_index=True)


def seed_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """Runs that differ in their seed alone, taken together; the best mean first.

    The best setting is compared with each other one over all queries that they share with the same
    seed; a query that comes back with another seed is drawn together with itself.

    Returns:
        A row a setting (see `settings`): what was varied, `runs`, and over these `mean`, `sd` (NaN
        for one), `min` and `max` of the metric; then `queries` shared with the best setting, its
        `lead` there, `p`, and `p_holm`.
    """
    groups: dict[str, list[RunRecord]] = {}
    given, names = {}, []
    for record, setting in zip(records, settings(records), strict=True):
        names = list(setting)
        if record.value(metric) is not None:
            key = json.dumps(setting, default=str, ensure_ascii=False)
            groups.setdefault(key, []).append(record)
            given[key] = setting
    sign = 1 if metric in LOWER_IS_BETTER else -1
    ordered = sorted(groups.items(), key=lambda one: sign * _mean(one[1], metric))
    rows = []
    for key, members in ordered:
        values = np.array([record.value(metric) for record in members], dtype=float)
        rows.append(
            {
                **given[key],
                "runs": len(members),
                "mean": values.mean(),
                "sd": values.std(ddof=1) if len(values) > 1 else np.nan,
                "min": values.min(),
                "max": values.max(),
            }
        )
    together: dict[tuple[str, ...], list[tuple[int, np.ndarray]]] = {}
    for place, (_, members) in enumerate(ordered[1:] if metric in PER_QUERY else [], start=1):
        keys, gap = _gaps(ordered[0][1], members, metric)
        rows[place]["queries"] = len(gap)
        if len(gap):
            together.setdefault(keys, []).append((place, gap))
    for keys, gaps in together.items():  # one draw for all settings with the same queries
        matrix = np.column_stack([gap for _, gap in gaps])
        p = randomisation_test(matrix, list_groups(keys), RESAMPLES)
        for column, (place, gap) in enumerate(gaps):
            rows[place] |= {"lead": float(gap.mean()), "p": float(p[column])}
    columns = [*names, "runs", "mean", "sd", "min", "max", "queries", "lead", "p", "p_holm"]
    table = pd.DataFrame(rows, columns=columns)
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"].astype(float).to_numpy())
    return table


def _mean(runs: Sequence[RunRecord], metric: str) -> float:
    return float(np.mean([record.value(metric) or 0.0 for record in runs]))


def _gaps(
    first: Sequence[RunRecord], second: Sequence[RunRecord], metric: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """The lists that two settings share with the same seed, and the lead of the first on each."""
    by_seed = {record.parameters.get("seed"): record for record in second}
    gaps, keys = [np.empty(0)], []
    for record in first:
        other = by_seed.get(record.parameters.get("seed"))
        if other is not None:
            common, gap = _gap(record, other, metric)
            gaps.append(gap)
            keys += common
    return tuple(keys), np.concatenate(gaps)


def _gap(first: RunRecord, second: RunRecord, metric: str) -> tuple[list[str], np.ndarray]:
    own, other = per_query(first, metric), per_query(second, metric)
    if first.test == second.test and len(own) == len(other):  # the usual case, and much quicker
        return list(own.index), own.to_numpy() - other.to_numpy()
    common = own.index.intersection(other.index, sort=False)
    return list(common), own[common].to_numpy() - other[common].to_numpy()


def per_query(record: RunRecord, metric: str) -> pd.Series:
    """The model's value for each candidate list of a run, indexed by the list as text."""
    file = record.folder / "evaluation" / "per_query.parquet"
    return _values(record, file, file.stat().st_mtime_ns if file.is_file() else 0, metric)


@lru_cache(maxsize=1024)
def _values(record: RunRecord, file: Path, changed: int, metric: str) -> pd.Series:
    if not changed:
        return pd.Series(dtype=float)
    import pyarrow.parquet as pq

    columns = ["scorer", "number", metric]
    table = pq.ParquetFile(file).read(columns=columns).to_pandas()  # much quicker than pandas' own
    own = table[table["scorer"] == "model"].sort_values("number")
    keys = _lists(record)
    if len(keys) != len(own):
        return pd.Series(dtype=float)
    values = pd.Series(own[metric].to_numpy(dtype=float), index=keys)
    return values if keys.is_unique else values[~keys.duplicated()]


def _lists(record: RunRecord) -> pd.Index:
    """The candidate lists of a run, each as one text: equal texts are equal lists."""
    if not record.test:
        return pd.Index([], dtype=object)
    if record.test not in _read:  # runs that are compared mostly have the same lists: read once
        text = (record.folder / "evaluation" / "candidates.jsonl").read_text(encoding="utf-8")
        keys = [
            json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False)
            for line in text.split("\n")
            if line
        ]
        _read[record.test] = pd.Index(keys, dtype=object)
    return _read[record.test]


_read: dict[str, pd.Index] = {}  # by the sha256 of their file


@lru_cache(maxsize=64)
def list_groups(keys: tuple[str, ...]) -> np.ndarray:
    """The group of each list, shape (lists,): lists that share a query or a positive share it."""
    rows = [
        (str(number), "q" + text)
        for number, key in enumerate(keys)
        for row in (json.loads(key),)
        for text in (row["query"], *row["positive"])
    ]
    frame = pd.DataFrame(rows, columns=["sentence_0", "sentence_1"])
    group = dict(zip(frame["sentence_0"], text_groups(frame), strict=True))
    return np.array([group[str(number)] for number in range(len(keys))])


def _flat(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
