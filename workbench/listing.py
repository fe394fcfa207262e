"""The command `workbench runs`: list, filter, sort, compare, export and remove run folders."""

import argparse
import csv
import json
import operator
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workbench.catalog import RunRecord, in_use, read_run, run_folders
from workbench.cells import csv_cell, terminal_text
from workbench.files import display_path, project_path
from workbench.runs import RequestError

SHOWN = ("ndcg@10", "mrr@10", "ap")
CONDITION = re.compile(r"([\w@.]+)(<=|>=|!=|=|<|>)(.*)", re.DOTALL)
TESTS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
    "=": operator.eq, "!=": operator.ne,
}  # fmt: skip


def runs(options: argparse.Namespace) -> int:
    """Carry out `workbench runs`; the exit code."""
    place = project_path(options.runs_dir)
    if not place.is_dir():
        raise RequestError(f"{display_path(place)}: there is no such folder")
    if options.action == "diff":
        return diff(place, options.names, options.json)
    if options.action == "rm":
        return remove(place, options.names, options.yes)
    if options.names:
        raise RequestError(f"list takes no names; did you mean --filter name={options.names[0]}?")
    records = [read_run(folder) for folder in run_folders(place)]
    rows = choose([row(record) for record in records], options.filters, options.sort)
    if options.export:
        from workbench.tracking import export_runs

        chosen = {one["folder"] for one in rows}
        return export_runs([r for r in records if display_path(r.folder) in chosen],
                           options.export, options.uri)  # fmt: skip
    show(rows, "json" if options.json else "csv" if options.csv else "")
    return 0


def row(record: RunRecord) -> dict[str, Any]:
    """A run as one flat mapping: what can be listed, filtered and sorted by."""
    return {
        "name": record.name,
        "state": record.state,
        "started": record.status.get("started", ""),
        "seconds": record.seconds,
        "folder": display_path(record.folder),
        "problem": record.problem,
        **{name: value.get("mean") for name, value in record.metrics.items()},
        **{f"p.{name}": value for name, value in record.parameters.items()},
    }


def choose(
    rows: list[dict[str, Any]], filters: Sequence[str], sort: str = ""
) -> list[dict[str, Any]]:
    """The rows that fulfil every condition, sorted; metrics have their best first.

    Args:
        rows: from `row`.
        filters: such as `state=done`, `ndcg@10>0.5`, `vocabulary!=keep`; a parameter may be named
            with or without `p.`.
        sort: a column; with `-` before it, in falling order.

    Raises:
        RequestError: a condition cannot be read, or no run has such a column.
    """
    known = set().union(*rows) if rows else set()
    for condition in filters:
        found = CONDITION.fullmatch(condition)
        if not found:
            raise RequestError(f"--filter {condition!r}: must be like state=done or ndcg@10>0.5")
        name, test, wanted = found.groups()
        name = _column(name, known, bool(rows))
        rows = [one for one in rows if _holds(one.get(name), test, wanted)]
    if sort and rows:
        falling = sort.startswith("-")
        name = _column(sort.removeprefix("-"), known, True)
        there = [one for one in rows if one.get(name) is not None]
        texts = any(isinstance(one[name], str) for one in there)
        there.sort(key=lambda one: str(one[name]) if texts else one[name], reverse=falling)
        rows = there + [one for one in rows if one.get(name) is None]
    return rows


def _column(name: str, known: set[str], any_rows: bool) -> str:
    for column in (name, f"p.{name}"):
        if column in known or not any_rows:
            return column
    raise RequestError(f"no run has {name!r}; there are {', '.join(sorted(known))}")


def _holds(value: Any, test: str, wanted: str) -> bool:
    if value is None:
        return test == "!="
    if isinstance(value, bool):
        return bool(TESTS[test](str(value).lower(), wanted.lower()))
    if isinstance(value, int | float):
        try:
            return bool(TESTS[test](float(value), float(wanted)))
        except ValueError:
            return test == "!="
    return bool(TESTS[test](str(value), wanted))


def show(rows: list[dict[str, Any]], form: str = "") -> None:
    """Print rows as a table for people, or with everything in them as JSON or CSV."""
    if form == "json":
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    if form == "csv":
        columns = list(dict.fromkeys(name for one in rows for name in one))
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(columns)
        out.writerows([csv_cell(one.get(name, "")) for name in columns] for one in rows)
        return
    columns = ["name", "state", *(m for m in SHOWN if any(m in one for one in rows)), "seconds"]
    lines = [columns, *([_cell(one.get(name)) for name in columns] for one in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        print(
            "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        )
    for one in rows:
        if one["problem"]:
            print(f"{terminal_text(one['name'])}: {terminal_text(one['problem'])[:200]}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else terminal_text(value)


def find(place: Path, name: str) -> Path:
    """The run of that name in a folder of runs or in a sweep there (`SWEEP/RUN` or `RUN`).

    Raises:
        RequestError: there is none, or there are several.
    """
    direct = place / name
    inside = (
        direct.resolve().is_relative_to(place.resolve()) and direct.resolve() != place.resolve()
    )
    if inside and not direct.is_symlink() and (direct / "parameters.yaml").is_file():
        return direct
    found = [folder for folder in run_folders(place) if folder.name == name]
    if len(found) == 1:
        return found[0]
    several = ", ".join(display_path(folder) for folder in found)
    reason = f"is several runs: {several}" if found else "is no run folder there"
    raise RequestError(f"{terminal_text(name)} {reason}")


def diff(place: Path, names: Sequence[str], as_json: bool) -> int:
    """Print in what two runs differ and how their figures do; the exit code."""
    from workbench.comparison import PER_QUERY, differences, paired_table

    if len(names) != 2:
        raise RequestError("diff takes two runs: workbench runs diff A B")
    both = [read_run(find(place, name)) for name in names]
    if both[0].name == both[1].name:  # of two sweeps
        raise RequestError("diff: the two runs go by the same name; give SWEEP/RUN from above both")
    table = differences(both)
    metrics = [m for m in PER_QUERY if all(one.value(m) is not None for one in both)]
    figures = {}
    for metric in metrics:
        paired = paired_table(both, metric).iloc[0].to_dict()
        better = next(one.name for one in both if one.name != paired["run"])
        figures[metric] = {one.name: one.value(metric) for one in both} | {
            "better": better if paired["queries"] else None,
            **{k: None if paired[k] != paired[k] else paired[k] for k in
               ("queries", "difference", "low", "high", "p", "note")},
        }  # fmt: skip
    if as_json:
        different = {str(k): v for k, v in table.to_dict("index").items()}
        print(
            json.dumps({"differences": different, "metrics": figures}, ensure_ascii=False, indent=2)
        )
        return 0
    for fact, values in table.iterrows():
        first, second = (terminal_text(values[one.name])[:60] for one in both)
        print(f"{terminal_text(fact)}: {first or '(none)'} | {second or '(none)'}")
    if table.empty:
        print("no difference in anything that is recorded")
    for metric, gap in figures.items():
        values = " | ".join(f"{gap[one.name]:.4f}" for one in both)
        text = f"{metric}: {values}; {gap['note']}"
        if gap["queries"]:
            text = (
                f"{metric}: {values}; {terminal_text(gap['better'])} ahead by "
                f"{gap['difference']:.4f} [{gap['low']:.4f}, {gap['high']:.4f}], "
                f"p = {gap['p']:.3g}, {gap['queries']} queries in common"
            )
        print(text)
    return 0


def remove(place: Path, names: Sequence[str], sure: bool) -> int:
    """Delete run folders after asking; the exit code."""
    if not names:
        raise RequestError("rm: say which runs")
    folders = list(dict.fromkeys(find(place, name) for name in names))
    for folder in folders:
        if not folder.resolve().is_relative_to(place.resolve()) or folder.is_symlink():
            raise RequestError(f"{display_path(folder)} is not in {display_path(place)}, so it is "
                               "not removed: give its own place with --runs-dir")  # fmt: skip
        if in_use(folder):
            raise RequestError(f"{display_path(folder)} is in use by another process")
    others = [read_run(folder) for folder in run_folders(place) if folder not in folders]
    for folder in folders:
        users = [other.name for other in others if _uses(other, folder)]
        needed = f"; {', '.join(users)} started from it or compares with it" if users else ""
        print(f"{display_path(folder)}{needed}")
    if not sure:
        if not sys.stdin.isatty():
            raise RequestError("rm: nobody is there to ask; add --yes")
        if input(f"delete {len(folders)} run folders for good? [y/N] ").strip().lower() != "y":
            print("nothing was deleted")
            return 0
    for folder in folders:
        shutil.rmtree(folder)  # does not follow links
    print(f"deleted {len(folders)}")
    return 0


def _uses(record: RunRecord, folder: Path) -> bool:
    values = [str(record.parameters.get("base_model", ""))]
    values += str(record.parameters.get("compare_runs", "")).split(",")
    return any(value.strip() and project_path(value.strip()) in (folder, folder / "model")
               for value in values)  # fmt: skip
