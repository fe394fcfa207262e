"""Parts of a file to score: what is asked, and one stretch of rows made into one Parquet file."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workbench.backends import BackendError
from workbench.baselines import Float32Array, TextPair
from workbench.encoding import PairEncoder
from workbench.exported import ONNX
from workbench.files import project_path, replacing
from workbench.memory import give_back_freed
from workbench.models import find_model, load_tokenizer
from workbench.onnx_models import OnnxModel
from workbench.scoring import ModelScorer, Scorer, distinct
from workbench.stream import Row, parts, text_rows

KEY = b"workbench"  # of what a part says about itself, among the metadata of its schema


@dataclass(frozen=True)
class Job:
    """What is asked; all of it must be the same for a folder to be gone on with.

    Attributes:
        model: as `find_model` takes it.
        source: the file of pairs or candidate lists.
        query_column: of a file of pairs.
        candidate_column: the same.
        backend: see `ModelScorer`; `auto` is decided once, on the first pairs of the file.
        max_length: tokens of a pair.
        part_rows: rows of a part; with `top_k` at least so many, since no query is cut in two.
        top_k: keep only the best so many candidates of each query (see `Row.group`); 0 for all.
    """

    model: str
    source: str
    query_column: str = "sentence_0"
    candidate_column: str = "sentence_1"
    backend: str = "auto"
    max_length: int = 512
    part_rows: int = 10_000
    top_k: int = 0

    def rows(self) -> Iterator[Row]:
        """The rows of the source, in order."""
        return text_rows(project_path(self.source), self.query_column, self.candidate_column)

    def parts(self) -> Iterator[list[Row]]:
        """The rows of each part."""
        return parts(self.rows(), self.part_rows, whole_queries=self.top_k > 0)


def open_scorer(job: Job, backend: str, threads: int = 0) -> Scorer:
    """The model of a job; torch is loaded only where the backend needs it.

    Args:
        job: says which model.
        backend: one of `BACKENDS`.
        threads: at most so many; 0 for as many as there are cores.

    Raises:
        ModelError, ExportedError, BackendError: the model or the backend cannot be had.
    """
    location = find_model(job.model)
    if backend not in ONNX:
        if threads:
            import torch

            torch.set_num_threads(threads)
        return ModelScorer.load(location, job.max_length, backend=backend)
    onnx = OnnxModel(location.path, backend, threads)
    longest = min(job.max_length, onnx.max_length)
    try:
        encoder = PairEncoder(load_tokenizer(location), longest, onnx.typed)
    except ValueError as error:
        raise BackendError(f"backend {backend!r}: {error}") from error
    return _OnnxScorer(onnx, encoder)


class _OnnxScorer:
    def __init__(self, model: OnnxModel, encoder: PairEncoder) -> None:
        self.model, self.encoder = model, encoder

    def score(self, pairs: Sequence[TextPair]) -> Float32Array:
        """Logits of shape (n,); equal pairs are scored once."""
        once, places = distinct(pairs)
        return self.model.score(self.encoder.encode(once))[places]


@dataclass
class Maker:
    """Makes parts; it can be sent to another process, and loads the model there at first use.

    Attributes:
        job: what is asked.
        identity: of the job and its inputs, for the parts to carry.
        backend: the one that was chosen.
        folder: where parts go.
        threads: see `open_scorer`.
        scorer: the model, if it is loaded already.
    """

    job: Job
    identity: str
    backend: str
    folder: str
    threads: int = 0
    scorer: Scorer | None = None

    def __call__(self, number: int, rows: list[Row]) -> int:
        """Score the rows and write them as the part of that number; returns how many they are."""
        if self.scorer is None:
            self.scorer = open_scorer(self.job, self.backend, self.threads)
        sound = [place for place, row in enumerate(rows) if not row.problem]
        scores = np.full(len(rows), np.nan, dtype=np.float32)
        if sound:
            scores[sound] = self.scorer.score([(rows[n].query, rows[n].candidate) for n in sound])
        for place in sound:
            if np.isnan(scores[place]):
                row = rows[place]
                rows[place] = row._replace(problem=f"line {row.line}: the model's score is NaN")
        note = {"job": self.identity, "part": number, "rows": len(rows),
                "bad_rows": int(np.isnan(scores).sum())}  # fmt: skip
        table = part_table(rows, scores, self.job.top_k)
        table = table.replace_schema_metadata({KEY: json.dumps(note)})
        with replacing(part_file(Path(self.folder), number)) as path, path.open("wb") as file:
            pq.write_table(table, file)  # pyarrow cannot open every name that a file can have
        del scores, table
        give_back_freed()
        return len(rows)


def part_file(folder: Path, number: int) -> Path:
    """Where the part of a number lies."""
    return folder / f"part-{number:06d}.parquet"


def part_note(folder: Path, number: int) -> dict[str, Any]:
    """What a part says about itself: `job`, `part`, `rows`, `bad_rows`; empty if it is not whole.

    `rows` are those of the source it was made from, of which `top_k` may have kept some.
    """
    try:
        with part_file(folder, number).open("rb") as file:
            return dict(json.loads(pq.read_metadata(file).metadata[KEY]))
    except (OSError, ValueError, LookupError, TypeError):  # absent, cut off, or of something else
        return {}


def part_table(rows: Sequence[Row], scores: Float32Array, top_k: int = 0) -> pa.Table:
    """The rows of a part as they are written: all, or the best of each query by rank.

    Rows without a score (NaN) have null there and say why in `problem`; with `top_k` they come
    after the ranked ones of their query. Ties are ranked in the order of the file.
    """
    order: list[int] = list(range(len(rows)))
    columns: dict[str, Any] = {}
    if top_k:
        order, ranks = [], []
        groups = itertools.groupby(range(len(rows)), lambda place: rows[place].group)
        for _, group in groups:
            places = list(group)
            unscored = [place for place in places if np.isnan(scores[place])]
            ranked = sorted(set(places) - set(unscored), key=lambda place: (-scores[place], place))
            best = ranked[:top_k]
            order += best + unscored
            ranks += [*range(1, len(best) + 1), *[None] * len(unscored)]
        columns["rank"] = pa.array(ranks, pa.int32())
    kept = [rows[place] for place in order]
    return pa.table(
        {
            "line": pa.array([row.line for row in kept], pa.int64()),
            "sentence_0": pa.array([row.query for row in kept], pa.string()),
            "sentence_1": pa.array([row.candidate for row in kept], pa.string()),
            "score": pa.array(scores[order], pa.float32(), from_pandas=True),
            **columns,
            "problem": pa.array([row.problem or None for row in kept], pa.string()),
        }
    )
