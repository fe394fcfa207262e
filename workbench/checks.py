"""The files a run would read, looked at before it starts: rows to use and to rank."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from workbench.files import display_path, project_path
from workbench.formats import COLUMNS, BadRow, PairsError, Record, file_records
from workbench.parameters import Parameters
from workbench.rows import GoodRow, check_rows

READING_SECONDS = 1.0
BAD_SHOWN = 3


class Finding(NamedTuple):
    """One line of a preflight: a `problem` (nothing may start), a `warning` or a `note`."""

    level: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """The finding with what to do about it."""
        return f"{self.text} -> {self.fix}" if self.fix else self.text


class Rows(NamedTuple):
    """What was read of a source: good and bad rows, and whether that was all of it."""

    good: list[GoodRow]
    bad: list[BadRow]
    whole: bool
    estimated: int  # rows in the source, as far as can be told without reading it all

    @property
    def positive_share(self) -> float:
        """Of the good rows."""
        return sum(row[3] >= 0.5 for row in self.good) / max(1, len(self.good))


def check_pairs(parameters: Parameters, name: str, look: bool) -> tuple[list[Finding], Rows | None]:
    """What is wrong with a file of pairs, and its rows as far as they were read.

    Args:
        parameters: of the run.
        name: the parameter that names the file: `pairs` or `test_pairs`.
        look: whether the run will read it; if not, it need only be there.
    """
    value = getattr(parameters, name)
    if not value or value.startswith("hub:"):
        text = f"{name}: {value} is read from the Hub when the run starts; nothing of it was seen"
        return ([Finding("warning", text)] if value else []), None
    path = project_path(value)
    if not path.is_file():
        return [_no_file(name, value)], None
    if not look:
        return [], None
    try:
        rows = read_rows(path, parameters.columns)
    except (PairsError, OSError) as error:
        return [Finding("problem", f"{name}: {error}")], None
    shown = display_path(path)
    seen = len(rows.good) + len(rows.bad)
    extent = (
        f"all {seen:,} rows" if rows.whole else f"the first {seen:,} of {rows.estimated:,} rows"
    )
    found = []
    if rows.bad:
        examples = "; ".join(str(row) for row in rows.bad[:BAD_SHOWN])
        failing = parameters.on_bad_rows == "fail" or not rows.good
        text = f"{name}: {len(rows.bad):,} of {extent} of {shown} cannot be used, first {examples}"
        fix = "mend them" + ("" if not rows.good else ", or set on_bad_rows: report") * failing
        found.append(Finding("problem" if failing else "warning", text, fix * failing))
    if not rows.good and not rows.bad:
        found.append(Finding("problem", f"{name}: {shown} has no row", "give a file with pairs"))
    if rows.good and not rows.bad:
        found.append(Finding("note", f"{name}: {extent} of {shown} can be used"))
    return found, rows if rows.good else None


def _no_file(name: str, value: str) -> Finding:
    near = Path(value).resolve()
    hint = f"; did you mean {near}?" if near.is_file() else ""
    return Finding("problem", f"{name}: there is no file {value!r} (relative paths start at the "
                   f"project's root){hint}")  # fmt: skip


def read_rows(path: Path, columns: dict[str, str], seconds: float = READING_SECONDS) -> Rows:
    """Read and check the rows of a file for at most so many seconds.

    Raises:
        PairsError: the file cannot be read or lacks a column.
    """
    names = dict(zip(COLUMNS, COLUMNS, strict=True)) | columns
    deadline = time.monotonic() + seconds
    cut = False

    def in_time() -> Iterator[Record | BadRow]:
        nonlocal cut
        records = file_records(path, names)
        for number, record in enumerate(records):
            if number % 500 == 499 and time.monotonic() > deadline:
                cut = True
                return
            yield record

    good, bad = check_rows(in_time())
    read = len(good) + len(bad)
    if not cut:
        return Rows(good, bad, True, read)
    mean = sum(len(f"{row[1]}{row[2]}".encode()) + 8 for row in good) / max(1, len(good))
    return Rows(good, bad, False, max(read, round(path.stat().st_size / max(1.0, mean))))


def check_test_side(
    parameters: Parameters, acts: list[str], rows: Rows | None, prepared: bool, folder: Path
) -> list[Finding]:
    """Whether notebook 4 will have something to rank."""
    found = []
    if rows and rows.positive_share in (0, 1):
        which = "positive" if rows.positive_share else "negative"
        text = f"pairs: every label is {which}, so there is nothing to tell apart"
        found.append(Finding("warning", text))
    if "04" not in acts or parameters.candidates or prepared:
        return found
    if "01" not in acts:
        base = project_path(parameters.base_model) / "data" / "test.parquet"
        if base.is_file():
            return found
        text = "--only 04: there is nothing to rank, for this run has no data"
        fix = "give candidates, or have it prepare data as well (--only 01,04)"
        return [*found, Finding("problem", text, fix)]
    if rows is None or parameters.test_pairs:
        return found
    fix = "give candidates, more pairs or a larger test_share, or leave out notebook 4 (--only)"
    count = min(rows.estimated, parameters.max_pairs or rows.estimated)
    if int(parameters.test_share * count) < 1 or (not rows.positive_share and rows.whole):
        text = "the test side will hold no positive pair, so there is nothing to rank"
        found.append(Finding("problem", text, fix))
    elif (expected := parameters.test_share * count * rows.positive_share) < 10:
        text = f"the test side will hold about {expected:.0f} positive pairs: too few to claim from"
        found.append(Finding("warning", text, fix))
    return found


def check_candidates(parameters: Parameters) -> list[Finding]:
    """Every bad row of the candidate lists, or how many lists there are."""
    value = parameters.candidates
    if not value:
        return []
    if not project_path(value).exists():
        return [_no_file("candidates", value)]
    from workbench.list_formats import read_test
    from workbench.lists import CandidateError

    try:
        test = read_test(value, parameters.seed)
    except (CandidateError, OSError, ValueError) as error:
        return [Finding("problem", f"candidates: {error}")]
    counts = test.recipe
    text = f"candidates: {counts['queries']:,} queries with {counts['candidates']:,} candidates"
    return [Finding("note", text)]
