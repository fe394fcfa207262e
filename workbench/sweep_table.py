"""What a sweep shows while it runs: a table that updates at a terminal, else a line an event."""

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from workbench.files import read_json
from workbench.runs import ACTS
from workbench.sweeps import elapsed

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 30  # rows; of a larger sweep those that are running or have failed, then the newest


class SweepTable:
    """Shows the record of a sweep; a context manager.

    Args:
        folder: the sweep's.
        live: whether to draw a table in place; by default if standard output is a terminal.
    """

    def __init__(self, folder: Path, live: bool | None = None) -> None:
        self.folder = folder
        self.is_live = sys.stdout.isatty() if live is None else live
        self.told: dict[str, str] = {}
        self.start = time.monotonic()
        self.drawn = 0.0
        self.screen: Any = None

    def __enter__(self) -> Self:
        """Take the screen, if there is one."""
        if self.is_live:
            from rich.live import Live

            self.screen = Live(auto_refresh=False)
            self.screen.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table on the screen."""
        if self.screen is not None:
            self.screen.stop()

    def show(self, record: dict[str, Any]) -> None:
        """Draw the table, at most once a second, or print what has changed."""
        if self.screen is None:
            self._print(record)
        elif record["state"] != "running" or time.monotonic() - self.drawn >= 1:
            self.drawn = time.monotonic()
            self.screen.update(self.table(record), refresh=True)

    def table(self, record: dict[str, Any]) -> "Table":
        """The sweep as a table: a row a run."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title_justify="left")
        table.title = f"{self.folder.name}: {summary(record)}, {elapsed(self.start)}"
        for name in ("run", "state", "where", "dev AP", "nDCG@10", "s"):
            table.add_column(
                name, justify="right" if name in ("dev AP", "nDCG@10", "s") else "left"
            )
        colours = {"running": "cyan", "failed": "red", "done": "green", "kept": "green"}
        for name, entry in _chosen(record["jobs"]):
            where, loss, ranked = progress(self.folder / name, entry)
            state = Text(entry["state"], style=colours.get(entry["state"], ""))
            table.add_row(Text(name), state, Text(where), loss, ranked,
                          f"{entry['seconds']:.0f}" if "seconds" in entry else "")  # fmt: skip
        return table

    def _print(self, record: dict[str, Any]) -> None:
        for name, entry in record["jobs"].items():
            if entry["state"] != "waiting" and self.told.get(name) != entry["state"]:
                self.told[name] = entry["state"]
                more = entry.get("error") or entry.get("same_as") or entry.get("note") or ""
                line = f"{elapsed(self.start):>6}  {entry['state']:8} {name}"
                print(line + (f"  ({more})" if more else ""), flush=True)


def summary(record: dict[str, Any]) -> str:
    """How many runs are in which state."""
    counts = Counter(entry["state"] for entry in record["jobs"].values())
    return ", ".join(f"{count} {state}" for state, count in counts.most_common()) or "no run yet"


def progress(folder: Path, entry: dict[str, Any]) -> tuple[str, str, str]:
    """The act a run is in (or why it failed), the last average precision on dev, and nDCG@10."""
    where, precision, ranked = str(entry.get("error", ""))[:60], "", ""
    try:
        acts = read_json(folder / "status.json").get("acts", {})
        act = next((a for a, one in acts.items() if one.get("state") == "running"), "")
        if entry["state"] == "running" and act:
            where = ACTS[act]
        last = last_row(folder)
        precision = f"{last['dev_ap']:.3f}" if last.get("dev_ap") is not None else ""
        rows = read_json(folder / "evaluation" / "metrics.json")["rows"]
        ranked = next((f"{row['ndcg@10']['mean']:.3f}" for row in rows
                       if row["scorer"] == "model"), "")  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not written yet
    return where, precision, ranked


def last_row(folder: Path) -> dict[str, Any]:
    """The last complete row of a training log that has a value of dev; empty if there is none."""
    try:
        lines = (folder / "training_log.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:  # half written
            continue
        if row.get("dev_ap") is not None:
            return dict(row)
    return {}


def _chosen(jobs: dict[str, Any]) -> list[tuple[str, Any]]:
    if len(jobs) <= SHOWN:
        return list(jobs.items())
    first = ("running", "failed")
    urgent = [item for item in jobs.items() if item[1]["state"] in first][:SHOWN]
    rest = [item for item in jobs.items() if item[1]["state"] not in (*first, "waiting")]
    return urgent + rest[-(SHOWN - len(urgent)) :] if len(urgent) < SHOWN else urgent
