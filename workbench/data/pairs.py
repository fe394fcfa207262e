"""Labelled pairs: read and checked, then split into train, dev and test so that none share a text.

Two texts are the same here if they are equal once normalised (case, width, punctuation, spaces).
"""

from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from workbench.data import POSITIVE, readers
from workbench.data.lists import candidate_rows, holds_lists
from workbench.data.readers import COLUMNS, REASONS, BadRow, PairsError, read_parquet
from workbench.data.texts import distinct_texts, normalised, text_groups
from workbench.files import display_path, project_path, replacing, sha256, write_json
from workbench.run_folder import MADE_BY_TRAINING, RunFolder, read_record, set_aside

SPLITS = ("train", "dev", "test")
BAD_ROWS_SHOWN = 3  # to people
LINES_LISTED = 10_000  # line numbers of bad rows in a manifest, per reason
EXAMPLES_LISTED = 50


class DataError(ValueError):
    """The run folder has no prepared data, or the data cannot be split as asked."""


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

    def unusable(self, extent: str = "") -> str:
        """How many of the rows, or of an `extent` of them, cannot be used, and the first ones."""
        first = "; ".join(map(str, self.bad_rows[:BAD_ROWS_SHOWN]))
        counts = f"{len(self.bad_rows):,} of {extent or f'{self.rows_read:,}'} rows"
        return f"{self.source}: {counts} cannot be used, first {first}"


def read_pairs(
    source: str | Path,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: str = "report",
    label_map: str = "",
    limit: int | None = None,
) -> LabelledPairs:
    """Labelled pairs from CSV, TSV, JSONL or Parquet (each also as `.gz`) or from the Hub.

    Candidate lists as `read_test` takes them, in JSONL or TREC files, are pairs too: one for each
    candidate, with its grade as the label. Texts are stripped of surrounding white space.

    Args:
        source: a path, or `hub:name[:config][:split]` (split `train` unless given).
        columns: the source's names of `sentence_0` (the query), `sentence_1` (the candidate) and
            `label` (the relevance), where they differ.
        on_bad_rows: `report` returns bad rows with the good ones, `fail` raises on the first.
        label_map: the value in [0, 1] of each label, such as `-1=0,1=1`; empty for such labels.
        limit: rows to read of a file, of which no digest is made then; all if absent.

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
        records = candidate_rows(path) if holds_lists(path) else readers.file_records(path, names)
        good, bad = readers.check_rows(islice(records, limit), label_map)
        shown, digest = display_path(path), sha256(path) if limit is None else ""
    if scale := readers.other_scale(good, bad):
        raise PairsError(f"{shown}: {scale}")
    if not (good or bad):
        raise PairsError(f"{shown}: there is no row in it -> give a file with pairs")
    frame = pd.DataFrame(good, columns=["line", *COLUMNS])[[*COLUMNS, "line"]]
    pairs = LabelledPairs(frame, tuple(bad), shown, digest)
    extent = f"the first {limit:,}" if pairs.rows_read == limit else ""
    if not good:
        raise PairsError(f"{pairs.unusable(extent)} -> {readers.remedy(bad) or 'correct them'}")
    if bad and on_bad_rows == "fail":
        raise PairsError(f"{pairs.unusable(extent)} -> correct them, or set on_bad_rows: report")
    return pairs


def split_pairs(
    pairs: pd.DataFrame, dev_share: float = 0.1, test_share: float = 0.1, seed: int = 42
) -> dict[str, pd.DataFrame]:
    """Train, dev and test splits of the pairs; no text occurs in two of them.

    Groups of connected pairs come in random order; each goes to test if it still fits there, else
    to dev, else to train: one too large for either is trained on, so the shares are upper limits.
    The order of the rows is kept.

    Raises:
        DataError: the shares are out of range.
    """
    if min(dev_share, test_share) < 0 or dev_share + test_share >= 1:
        shares = f"dev_share {dev_share} and test_share {test_share}"
        raise DataError(f"{shares} must be 0 or more and together below 1")
    groups = text_groups(pairs)
    sizes = np.bincount(groups)
    room = {"test": int(test_share * len(pairs)), "dev": int(dev_share * len(pairs))}
    split_of_group = np.full(len(sizes), "train", dtype=object)
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        if split := next((name for name, left in room.items() if sizes[group] <= left), ""):
            split_of_group[group] = split
            room[split] -= sizes[group]
    split_of_pair = split_of_group[groups]
    return {name: pairs[split_of_pair == name].reset_index(drop=True) for name in SPLITS}


def sample_pairs(pairs: pd.DataFrame, size: int, seed: int = 42) -> pd.DataFrame:
    """A seeded random sample of `size` rows in their given order; all rows for 0 or too many."""
    if not 0 < size < len(pairs):
        return pairs
    chosen = np.random.default_rng(seed).choice(len(pairs), size, replace=False)
    return pairs.iloc[np.sort(chosen)].reset_index(drop=True)


def prepare_data(
    run_dir: str | Path,
    pairs: str | Path | LabelledPairs,
    *,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: str = "report",
    label_map: str = "",
    max_pairs: int = 0,
    dev_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 42,
    test_pairs: str | Path | LabelledPairs = "",
) -> dict[str, Any]:
    """Read, check and split the pairs into `run_dir/data`, and account for every row.

    Data prepared there before from the same bytes with the same settings is kept. Other data, and
    what was made from it, is set aside under `earlier/`. Arguments are as in `read_pairs`, which
    may have read `pairs` and `test_pairs` already, and in `split_pairs`; `max_pairs` is the size of
    a random sample of the usable rows, 0 for all.

    `test_pairs` are the test split, in place of a share of `pairs`. Pairs that have a text in
    common with it are kept out of train and dev, and counted; the positive ones are kept (see
    `known_positives`), so that no list has them as negatives.

    Returns:
        The manifest, as written to `data/manifest.json`.

    Raises:
        PairsError: a source cannot be read or has no usable row.
        DataError: the shares are out of range, or no pair is left to train on.

    Example:
        >>> prepare_data("/tmp/run", "data/sample_pairs.csv")["rows"]["usable"]
        2000
    """

    def read(given: str | Path | LabelledPairs) -> LabelledPairs:
        if isinstance(given, LabelledPairs):
            return given
        return read_pairs(given, columns, on_bad_rows, label_map)

    source = read(pairs)
    separate = read(test_pairs) if test_pairs else None
    used, known = source.frame, source.frame.head(0)
    manifest: dict[str, Any] = {
        "schema": 1,
        "source": source.source,
        "sha256": source.sha256,
        "columns": dict(columns or {}),
        "label_map": label_map,
        "max_pairs": max_pairs,
        "dev_share": dev_share,
        "test_share": test_share,
        "seed": seed,
    }
    if separate:
        texts = set(map(normalised, distinct_texts(separate.frame)))
        shared = used[["sentence_0", "sentence_1"]].map(normalised).isin(texts).any(axis=1)
        known = used[shared & (used["label"] >= POSITIVE)]
        used = used[~shared].reset_index(drop=True)
        if used.empty:
            text = f"every pair has a text that occurs in {separate.source}"
            raise DataError(f"{source.source}: {text}")
        manifest["test_pairs"] = {
            "source": separate.source,
            "sha256": separate.sha256,
            "rows": separate.rows_read,
            "bad": len(separate.bad_rows),
            "pairs_kept_out_of_train": int(shared.sum()),
        }
    used = sample_pairs(used, max_pairs, seed)
    splits = split_pairs(used, dev_share, 0.0 if separate else test_share, seed)
    if separate:
        splits["test"] = separate.frame
    manifest |= _counts(source, used, splits)
    folder = RunFolder(run_dir)
    same = read_record(folder.manifest) == manifest
    if not same:
        set_aside(run_dir, ["data", "inspection.json", *MADE_BY_TRAINING])
    for name, split in (splits | {"known": known}).items():
        path = folder.split(name)
        if not path.is_file():
            with replacing(path) as temporary:
                split.to_parquet(temporary, index=False)
    if not same:
        write_json(folder.manifest, manifest)
    return manifest


def read_split(run_dir: str | Path, split: str) -> pd.DataFrame:
    """One split (`train`, `dev` or `test`) of the data prepared in a run folder.

    Raises:
        DataError: there is none, or it is damaged; notebook 1 prepares it.
    """
    file = _prepared(RunFolder(run_dir).split(split))
    try:
        return read_parquet(file)
    except PairsError as error:
        raise DataError(f"{error}: delete {display_path(file)} and run notebook 1 again") from error


def known_positives(run_dir: str | Path) -> pd.DataFrame:
    """Positive pairs that are in no split because they share a text with `test_pairs`."""
    if RunFolder(run_dir).split("known").is_file():
        return read_split(run_dir, "known")
    return pd.DataFrame({"sentence_0": [], "sentence_1": [], "label": np.empty(0)})


def read_manifest(run_dir: str | Path) -> dict[str, Any]:
    """What is known about the data prepared in a run folder (see `prepare_data`).

    Raises:
        DataError: there is none; notebook 1 prepares it.
        DamagedError: it does not hold what `prepare_data` writes.
    """
    return dict(read_record(_prepared(RunFolder(run_dir).manifest)))


def _prepared(file: Path) -> Path:
    if not file.is_file():
        raise DataError(f"there is no {display_path(file)}: run notebook 01_inspect_data first")
    return file


def _counts(
    source: LabelledPairs, used: pd.DataFrame, splits: Mapping[str, pd.DataFrame]
) -> dict[str, Any]:
    groups, bad = np.bincount(text_groups(used)), source.bad_rows
    return {
        "rows": {
            "read": source.rows_read,
            "bad": len(bad),
            "usable": len(source.frame),
            "used": len(used),
        },
        "bad_rows": {
            reason: {
                "count": count,
                "meaning": REASONS[reason],
                "lines": [row.line for row in bad if row.reason == reason][:LINES_LISTED],
            }
            for reason, count in Counter(row.reason for row in bad).most_common()
        },
        "bad_row_examples": [row._asdict() for row in bad[:EXAMPLES_LISTED]],
        "groups": {"count": len(groups), "largest_share": float(groups.max() / len(used))},
        "sides": {
            name: {
                "pairs": len(split),
                "positives": int((split["label"] >= POSITIVE).sum()),
                "label_mean": float(split["label"].mean()) if len(split) else None,
            }
            for name, split in splits.items()
        },
    }
