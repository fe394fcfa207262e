"""Labelled text pairs, read from many formats and checked row by row."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.data import readers
from workbench.data.lists import candidate_rows, holds_lists
from workbench.data.readers import COLUMNS, BadRow, PairsError, Record
from workbench.files import display_path, project_path, sha256

Float32Array = NDArray[np.float32]
TextPair = tuple[str, str]


class LabelledPairs(NamedTuple):
    """What a source held, and its name as shown to people."""

    frame: pd.DataFrame  # usable rows: sentence_0, sentence_1 (str), label (float), line (int)
    bad_rows: tuple[BadRow, ...]  # the others, in file order
    source: str
    sha256: str  # of the file's bytes; empty for a `hub:` source

    @property
    def rows_read(self) -> int:
        """Rows in the source, usable or not."""
        return len(self.frame) + len(self.bad_rows)

    def bad_counts(self) -> dict[str, int]:
        """Bad rows by reason, the most frequent first."""
        return dict(Counter(row.reason for row in self.bad_rows).most_common())


def read_pairs(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: str = "report",
    label_map: str = "",
) -> LabelledPairs:
    """Labelled pairs from CSV, TSV, JSONL or Parquet (each also as `.gz`) or from the Hub.

    Candidate lists are pairs too, one for each candidate, with its grade as the label: JSONL rows
    with `query`, `positive` and `negative`, or a folder of TREC files, as `read_test` takes them.

    Args:
        source: a path, or `hub:name[:config][:split]` (split `train` unless given).
        columns: the source's names of `sentence_0` (the query), `sentence_1` (the candidate) and
            `label` (the relevance), where they differ.
        on_bad_rows: `report` returns bad rows with the good ones, `fail` raises on the first.
        label_map: the value in [0, 1] of each label, such as `-1=0,1=1`; empty for such labels.

    Returns:
        The pairs, texts stripped of surrounding white space, and every bad row.

    Raises:
        PairsError: the source cannot be read, lacks a column, or has no usable row; its labels are
            on another scale; or it has a bad row and `on_bad_rows` is `fail`.

    Example:
        >>> len(read_pairs("data/sample_pairs.csv").frame)
        2000
    """
    if on_bad_rows not in ("report", "fail"):
        raise PairsError(f"on_bad_rows is {on_bad_rows!r}; it must be 'report' or 'fail'")
    names = dict(zip(COLUMNS, COLUMNS, strict=True)) | dict(columns or {})
    if str(source).startswith("hub:"):
        shown, digest = str(source), ""
        good, bad = readers.check_rows(readers.hub_records(shown, names), label_map)
    else:
        path = project_path(source)
        good, bad = readers.check_rows(pair_records(path, names), label_map)
        shown, digest = display_path(path), sha256(path)
    if scale := readers.other_scale(good, bad):
        raise PairsError(f"{shown}: {scale}")
    if bad and on_bad_rows == "fail":
        raise PairsError(f"{shown}: {len(bad)} bad rows, the first at {bad[0]}")
    if not good:
        first = f"; the first problem is at {bad[0]} -> {readers.remedy(bad)}" if bad else ""
        raise PairsError(f"{shown}: no usable pair in it{first}")
    frame = pd.DataFrame(good, columns=["line", *COLUMNS])[[*COLUMNS, "line"]]
    return LabelledPairs(frame, tuple(bad), shown, digest)


def pair_records(path: Path, names: Mapping[str, str]) -> Iterator[Record | BadRow]:
    """The rows of a file of pairs, unchecked; of candidate lists, a row for each candidate."""
    lists = holds_lists(path)
    yield from candidate_rows(path) if lists else readers.file_records(path, names)


def text_pairs(frame: pd.DataFrame | Mapping[str, Sequence[str]]) -> list[TextPair]:
    """The texts of columns `sentence_0` and `sentence_1`, one pair per row."""
    return list(zip(frame["sentence_0"], frame["sentence_1"], strict=True))
