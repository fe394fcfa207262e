"""Runs in comparison: what differs, which is best, and how sure that is.

A paired test needs the same queries with the same candidates; if two runs do not share any, the
tables say so and give no p-value.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.build_lists import query_groups
from workbench.data.lists import CandidateList, read_test
from workbench.data.readers import read_parquet
from workbench.files import comma_separated, display_path
from workbench.ranking.metrics import LOWER_IS_BETTER, RANKING_METRICS
from workbench.ranking.uncertainty import bootstrap_means, range_test
from workbench.run_folder import RunFolder
from workbench.runs.catalog import BASELINE, RunRecord, read_run, run_folders
from workbench.runs.folder import NOT_RECORDED

RESAMPLES = 2000
START = ("vocabulary", "new_embeddings")
NOT_COMPARED = {*NOT_RECORDED, "compare_runs", "zero_shot", "query"}  # parameters


def find_runs(compare_runs: str, run_dir: str | Path) -> list[RunRecord]:
    """The runs in `compare_runs`: run folders, sweeps or folders of runs, separated by commas.

    If it is empty, those in `run_dir`.

    Example:
        >>> import workbench as wb
        >>> wb.find_runs("", "runs/none")
        []
    """
    places = comma_separated(compare_runs) or [str(run_dir)]
    records = [read_run(one) for one in dict.fromkeys(chain(*map(run_folders, places)))]
    counts = Counter(record.name for record in records)
    for record in records:
        if counts[record.name] > 1:
            record.name = f"{record.folder.parent.name}/{record.name}"
    return records


def differences(records: Sequence[RunRecord]) -> pd.DataFrame:
    """What is not the same in all runs: a row per fact, a column per run; empty if absent."""
    table = pd.DataFrame({one.name: pd.Series(_facts(one), dtype=object) for one in records})
    shown = table.map(lambda value: "" if value is None or value is np.nan else _text(value))
    return shown[shown.nunique(axis=1) > 1]


def _facts(record: RunRecord) -> dict[str, Any]:
    """All that a run records of how it was made, one value per name."""
    environment, asked = record.environment, record.parameters
    return {
        **{f"parameters.{k}": v for k, v in asked.items() if k not in NOT_COMPARED},
        **{f"data.{k}": record.data.get(k) for k in ("source", "sha256", "rows")},
        "data.test lists": record.test[:12],
        "code.commit": environment.get("commit"),
        "code.digest": str(environment.get("code", ""))[:12],
        **{f"versions.{k}": v for k, v in environment.get("packages", {}).items()},
        "versions.python": environment.get("python"),
        **{f"machine.{k}": environment.get(k) for k in ("platform", "cores")},
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def varied(records: Sequence[RunRecord]) -> list[str]:
    """The parameters that are not the same in all runs, the seed last."""
    names = dict.fromkeys(name for record in records for name in record.parameters)
    values = {name: {_text(record.parameters.get(name)) for record in records} for name in names}
    different = [name for name in names if len(values[name]) > 1 and name not in NOT_COMPARED]
    return sorted(different, key=lambda name: name == "seed")


def settings(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Of each run what varies: parameters without the seed, digests of `code` and `data`."""
    names = [name for name in varied(records) if name != "seed"]
    made = {
        "code": [str(record.environment.get("code", ""))[:12] for record in records],
        "data": [str(record.data.get("sha256", ""))[:12] for record in records],
    }
    return [
        {name: record.parameters.get(name) for name in names}
        | {name: digests[place] for name, digests in made.items() if len({*digests}) > 1}
        for place, record in enumerate(records)
    ]


def runs_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """A row per run, the best first: state, what varies, the metric with its interval, seconds."""
    names, parts = varied(records), ["mean", "low", "high"]
    rows = [
        {"run": one.name, "state": one.state}
        | {name: one.parameters.get(name) for name in names}
        | {part: one.metrics.get(metric, {}).get(part) for part in parts}
        | {"seconds": one.seconds, "problem": one.problem[:80]}
        for one in records
    ]
    table = pd.DataFrame(rows, columns=["run", "state", *names, *parts, "seconds", "problem"])
    table = table.astype(dict.fromkeys(parts, float)).rename(columns={"mean": metric})
    ascending = metric in LOWER_IS_BETTER
    return table.sort_values(metric, ascending=ascending, kind="stable", ignore_index=True)


def best_run(records: Sequence[RunRecord], metric: str = "ndcg@10") -> RunRecord | None:
    """The run with the best mean of a metric; None if no run has it.

    Example:
        >>> import workbench as wb
        >>> wb.best_run(wb.find_runs("", "runs/none")) is None
        True
    """
    measured = [record for record in records if record.value(metric) is not None]
    return min(measured, key=lambda record: _loss([record], metric), default=None)


def _loss(runs: Sequence[RunRecord], metric: str) -> float:
    """The mean of a metric over runs, with the sign with which less is better."""
    mean = float(np.mean([record.value(metric) for record in runs]))
    return mean if metric in LOWER_IS_BETTER else -mean


def paired_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """The best run against each of the others, query by query.

    The mean `difference` is over the `queries` in common (with the same candidates); `p_corrected`
    allows for having chosen the best on them. NaN, and a `note`, if no query is shared.
    """
    best = best_run(records, metric)
    columns = ["run", "queries", "difference", "low", "high", "p_corrected", "note"]
    if best is None or metric not in RANKING_METRICS:
        return pd.DataFrame(columns=columns)
    measured = [one for one in records if one.value(metric) is not None]
    others = [one for one in measured if one is not best]
    tests = len({record.test for record in measured})
    gaps = [_gap([(best, other)], metric) for other in others]
    table = _tests(gaps, tests).rename(columns={"mean": "difference"})
    table["run"] = [record.name for record in others]
    whole = len(per_query(best, metric))
    lost, *damaged = (one.problem if one.state == "damaged" else "" for one in (best, *others))
    nothing = "no query in common with the same candidates: not comparable"
    table["note"] = [
        lost or problem or nothing if not count else "only the queries in common" * (count < whole)
        for count, problem in zip(table["queries"], damaged, strict=True)
    ]
    return table.sort_values("difference", kind="stable", ignore_index=True)[columns]


def seed_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """Runs that differ only in their seed, taken together; the best mean first.

    Returns:
        A row per setting (see `settings`): what varies, how many `runs`, `mean`, `sd`, `min` and
        `max` of the metric over them, and its `values`; then the `lead` of the best setting on the
        `queries` shared under the same seed, and `p_corrected`, which allows for having chosen it.
    """
    groups: dict[str, tuple[dict[str, Any], list[RunRecord]]] = {}
    for record, setting in zip(records, settings(records), strict=True):
        if record.value(metric) is not None:
            groups.setdefault(_text(setting), (setting, []))[1].append(record)
    ordered = sorted(groups.values(), key=lambda one: _loss(one[1], metric))
    table = pd.DataFrame([setting for setting, _ in ordered])
    values = [pd.Series([one.value(metric) for one in runs], dtype=float) for _, runs in ordered]
    shown = {"runs": "count", "mean": "mean", "sd": "std", "min": "min", "max": "max"}
    for name, function in (shown | {"values": "tolist"}).items():
        table[name] = [getattr(one, function)() for one in values]
    (_, best), *others = ordered or [({}, [])]
    if metric not in RANKING_METRICS:
        others = []
    tests = len({frozenset(record.test for record in runs) for _, runs in ordered})
    gaps = []
    for _, other in others:
        by_seed = {record.parameters.get("seed"): record for record in other}
        pairs = [(one, by_seed.get(one.parameters.get("seed"))) for one in best]
        gaps.append(_gap(pairs, metric))
    found = _tests(gaps, tests)
    found.index += 1  # the row of the best setting itself stays empty
    return table.join(found.rename(columns={"mean": "lead"}))


def label_table(records: Sequence[RunRecord], metric: str = "ndcg@10") -> pd.DataFrame:
    """A metric by number of training labels, of the models and of the regression on the same pairs.

    Returns:
        A row per `start` (what varies, such as `words, dictionary`) and `max_pairs`: whether it is
        the `baseline`; means over its `runs`, one per seed, of `labels`, the metric and its
        interval; the metric's `values`, and digests of their `tests`. Empty with fewer than three
        different `max_pairs`.
    """
    rows = []
    for record, setting in zip(records, settings(records), strict=True):
        asked, labels = record.parameters, record.data.get("sides", {}).get("train", {})
        kept = asked.get("vocabulary") == "keep"
        parts = ["keep"] if kept else [str(asked.get(name)) for name in START]
        parts += [f"{n} {_text(v)}" for n, v in setting.items() if n not in ("max_pairs", *START)]
        for start, scorer in ((", ".join(parts), "model"), (BASELINE, BASELINE)):
            point = {"start": start, "max_pairs": asked.get("max_pairs"), "seed": asked.get("seed")}
            point |= {"baseline": start == BASELINE, "labels": labels.get("pairs")}
            found = record.scorers.get(scorer, {}).get(metric) or {}
            rows.append(point | {"test": record.test} | found)
    names = ["start", "max_pairs", "seed", "baseline", "labels", "test", "mean", "low", "high"]
    table = pd.DataFrame(rows, columns=names).dropna(subset=["labels", "mean"])
    table = table.drop_duplicates([*names[:3], "mean"])  # the regression comes with every start
    if table["max_pairs"].nunique() < 3:
        return table.head(0)
    points = table.astype(dict.fromkeys(["mean", "low", "high"], float)).groupby(
        ["start", "max_pairs", "baseline"], sort=False
    )
    found = points[["labels", "mean", "low", "high"]].mean()
    found["runs"], found["values"] = points.size(), points["mean"].agg(list)
    found["tests"] = points["test"].agg(lambda tests: " ".join(sorted({*tests})))
    order = ["baseline", "labels"]
    return found.reset_index().sort_values(order, kind="stable", ignore_index=True)


Gap = tuple[tuple[CandidateList, ...], np.ndarray]  # lists, and the lead of one run on each


def _tests(gaps: Sequence[Gap], tests: int) -> pd.DataFrame:
    """Each mean gap, as rows of `queries`, `mean`, `low`, `high` and `p_corrected`."""
    columns = ["mean", "low", "high", "p_corrected"]
    table = pd.DataFrame({"queries": [len(gap) for _, gap in gaps]}, columns=["queries", *columns])
    for lists in {of for of, _ in gaps if of}:  # one draw for all runs with the same queries
        rows = [row for row, (of, _) in enumerate(gaps) if of == lists]
        matrix, groups = np.array([gaps[row][1] for row in rows]).T, query_groups(lists)
        # `range_test` allows for the choice among the runs of one test, Bonferroni for that among
        # different tests, which takes more resamples
        p = np.minimum(1, tests * range_test(matrix, groups, RESAMPLES * tests))
        means = bootstrap_means(matrix, groups, RESAMPLES)
        table.loc[rows, columns] = np.column_stack([means, p])
    return table.astype(dict.fromkeys(columns, float))


_lists: dict[str, list[CandidateList]] = {}  # by the sha256 of their file, which most runs share


@lru_cache(maxsize=1024)
def per_query(record: RunRecord, metric: str) -> dict[CandidateList, float]:
    """The model's value for each candidate list of a run; empty if not recorded or damaged."""
    run = RunFolder(record.folder)
    if not run.per_query.is_file() or not record.test:
        return {}
    try:
        table = read_parquet(run.per_query, ["scorer", "number", metric])
        values = table[table["scorer"] == "model"].sort_values("number")[metric].astype(float)
        if record.test not in _lists:
            _lists[record.test] = read_test(run.candidates).lists
        lists = _lists[record.test]
        if len(lists) != len(values):
            name = run.per_query.name
            raise ValueError(f"{name} has {len(values)} values for {len(lists)} lists")
    except (ValueError, TypeError, OSError) as error:
        record.state, record.problem = "damaged", f"{display_path(run.evaluation)}: {error}"
        return {}
    return dict(zip(lists, values, strict=True))


def _gap(pairs: Iterable[tuple[RunRecord, RunRecord | None]], metric: str) -> Gap:
    """The lists that two runs of a pair share, of all pairs, and the lead of the first on each."""
    values = [(per_query(one, metric), per_query(two, metric)) for one, two in pairs if two]
    leads = [
        (of, first[of] - second[of]) for first, second in values for of in first if of in second
    ]
    return tuple(of for of, _ in leads), np.array([lead for _, lead in leads])
