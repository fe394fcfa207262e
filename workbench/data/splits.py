"""Train, dev and test sides that share no text: pairs are dealt out by connected group of texts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workbench.data.pairs import LabelledPairs, read_pairs
from workbench.data.readers import REASONS
from workbench.files import project_path, read_json, replacing, set_aside, write_json

SIDES = ("train", "dev", "test")


LINES_LISTED = 10_000  # line numbers of bad rows that a manifest lists for each reason


EXAMPLES_LISTED = 50


MADE_FROM_DATA = (
    "data",
    "inspection.json",
    "model",
    "stages",
    "checkpoints",
    "training_log.jsonl",
    "evaluation",
    "snapshots",
)


class DataError(ValueError):
    """The run folder has no prepared data, or what is asked of it cannot be done."""


def text_groups(pairs: pd.DataFrame) -> np.ndarray:
    """The group of each pair, int array of shape (n,): texts that occur together are connected.

    The groups are the connected components of the graph whose nodes are the distinct texts (a text
    is one node in whichever column it stands) and whose edges are the pairs.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(pairs)
    if not count:
        return np.empty(0, dtype=np.int64)
    texts, distinct = pd.factorize(pd.concat([pairs["sentence_0"], pairs["sentence_1"]]))
    edges = (texts[:count], texts[count:])
    graph = coo_array((np.ones(count, dtype=np.int8), edges), shape=(len(distinct),) * 2)
    _, component = connected_components(graph, directed=False)
    return component[edges[0]].astype(np.int64)


def split_pairs(
    pairs: pd.DataFrame, dev_share: float = 0.1, test_share: float = 0.1, seed: int = 42
) -> dict[str, pd.DataFrame]:
    """Deal the pairs out to `train`, `dev` and `test` so that no text is on two sides.

    Groups come in seeded random order; each goes to test if it still fits there, else to dev, else
    to train. A group too large for either is therefore trained on, which keeps the shares honest
    when many pairs hang together.

    Args:
        pairs: columns `sentence_0`, `sentence_1`, `label`; n rows.
        dev_share: the most of the n rows that dev may hold, in [0, 1).
        test_share: the same for test; the two together stay under 1.
        seed: the same seed and rows give the same sides.

    Returns:
        The three sides, rows in their given order.

    Raises:
        DataError: the shares are out of range.
    """
    if min(dev_share, test_share) < 0 or dev_share + test_share >= 1:
        raise DataError(
            f"dev_share {dev_share} and test_share {test_share} must be 0 or more and together "
            "below 1"
        )
    groups = text_groups(pairs)
    sizes = np.bincount(groups)
    room = {"test": int(test_share * len(pairs)), "dev": int(dev_share * len(pairs))}
    side_of_group = np.full(len(sizes), SIDES.index("train"))
    for group in np.random.default_rng(seed).permutation(len(sizes)):
        for side, left in room.items():
            if sizes[group] <= left:
                side_of_group[group] = SIDES.index(side)
                room[side] = left - sizes[group]
                break
    side = side_of_group[groups]
    return {name: pairs[side == place].reset_index(drop=True) for place, name in enumerate(SIDES)}


def prepare_data(
    run_dir: str | Path,
    pairs: str,
    columns: Mapping[str, str] | None = None,
    on_bad_rows: str = "report",
    max_pairs: int = 0,
    dev_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 42,
    test_pairs: str = "",
) -> dict[str, Any]:
    """Read, check and split the pairs into `run_dir/data`, with a manifest that accounts for all.

    Data already prepared there from the same bytes with the same settings is kept. Anything else
    that stands there, with what was made from it, is set aside under `earlier/`.

    Args:
        run_dir: the run folder; made if absent.
        pairs: the source, as `read_pairs` takes it.
        columns: as `read_pairs` takes them.
        on_bad_rows: `report` or `fail`.
        max_pairs: use a seeded random sample of so many usable rows; 0 for all.
        dev_share: the most of the rows used that dev may hold.
        test_share: the same for test.
        seed: of the sample and of the split.
        test_pairs: a source of its own for the test side, in place of a share of `pairs`. Pairs
            that have a text in common with it are kept out of train and dev, and counted.

    Returns:
        The manifest, as written to `data/manifest.json`.
    """
    folder = project_path(run_dir)
    source = read_pairs(pairs, columns, on_bad_rows)
    apart = read_pairs(test_pairs, columns, on_bad_rows) if test_pairs else None
    used, shared = source.frame, 0
    if apart is not None:
        texts = {*apart.frame["sentence_0"], *apart.frame["sentence_1"]}
        touched = used["sentence_0"].isin(texts) | used["sentence_1"].isin(texts)
        used, shared = used[~touched].reset_index(drop=True), int(touched.sum())
        if used.empty:
            raise DataError(f"{source.source}: every pair has a text that stands in {test_pairs}")
    if 0 < max_pairs < len(used):
        chosen = np.random.default_rng(seed).choice(len(used), max_pairs, replace=False)
        used = used.iloc[np.sort(chosen)].reset_index(drop=True)
    sides = split_pairs(used, dev_share, 0.0 if apart else test_share, seed)
    settings: dict[str, Any] = {
        "columns": dict(columns or {}),
        "max_pairs": max_pairs,
        "dev_share": dev_share,
        "test_share": test_share,
        "seed": seed,
    }
    if apart is not None:
        sides["test"] = apart.frame
        settings["test_pairs"] = {
            "source": apart.source,
            "sha256": apart.sha256,
            "rows": apart.rows_read,
            "bad": len(apart.bad_rows),
            "pairs_kept_out_of_train": shared,
        }
    manifest = _manifest(source, used, sides, settings)
    file = folder / "data" / "manifest.json"
    same = file.is_file() and read_json(file) == manifest
    if not same:
        set_aside(folder, MADE_FROM_DATA)
    for name, side in sides.items():
        if same and (folder / "data" / f"{name}.parquet").is_file():
            continue
        with replacing(folder / "data" / f"{name}.parquet") as temporary:
            side.to_parquet(temporary, index=False)
    if not same:
        write_json(file, manifest)
    return manifest


def read_side(run_dir: str | Path, side: str) -> pd.DataFrame:
    """One side (`train`, `dev` or `test`) of the data prepared in a run folder.

    Raises:
        DataError: there is none; notebook 1 prepares it.
    """
    file = project_path(run_dir) / "data" / f"{side}.parquet"
    if not file.is_file():
        raise DataError(f"{run_dir} has no data/{side}.parquet: run notebook 01_inspect_data first")
    return pd.read_parquet(file)


def read_manifest(run_dir: str | Path) -> dict[str, Any]:
    """What is known about the data prepared in a run folder (see `prepare_data`)."""
    file = project_path(run_dir) / "data" / "manifest.json"
    if not file.is_file():
        raise DataError(f"{run_dir} has no data/manifest.json: run notebook 01_inspect_data first")
    return dict(read_json(file))


def _manifest(
    source: LabelledPairs,
    used: pd.DataFrame,
    sides: Mapping[str, pd.DataFrame],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    groups = np.bincount(text_groups(used))
    bad_rows = {
        reason: {
            "count": count,
            "meaning": REASONS[reason],
            "lines": [row.line for row in source.bad_rows if row.reason == reason][:LINES_LISTED],
        }
        for reason, count in source.bad_counts().items()
    }
    return {
        "schema": 1,
        "source": source.source,
        "sha256": source.sha256,
        **settings,
        "rows": {
            "read": source.rows_read,
            "bad": len(source.bad_rows),
            "usable": len(source.frame),
            "used": len(used),
        },
        "bad_rows": bad_rows,
        "bad_row_examples": [row._asdict() for row in source.bad_rows[:EXAMPLES_LISTED]],
        "groups": {"count": len(groups), "largest_share": float(groups.max() / len(used))},
        "sides": {
            name: {
                "pairs": len(side),
                "positives": int((side["label"] >= 0.5).sum()),
                "label_mean": float(side["label"].mean()) if len(side) else None,
            }
            for name, side in sides.items()
        },
    }
