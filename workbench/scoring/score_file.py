"""Score a file of any size into a folder of Parquet parts; memory stays flat, a kill loses nothing.

A part has its name once it is whole, so after a kill the same request writes those that are
missing; another one is refused. Names of other files begin with `_` or a dot, so that Parquet
readers take the folder as one table.
"""

import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from workbench import files
from workbench.data import readers
from workbench.data.lists import LIST_FIELDS, holds_lists
from workbench.data.readers import BadRow, PairsError, printable
from workbench.data.texts import TextPair
from workbench.files import FailedError, RequestError, display_path, project_path, sha256
from workbench.models import MIN_LENGTH, PICKLED, find_model
from workbench.run_folder import changes
from workbench.scoring.backends import CHECK_PAIRS, EXPORTED, OnnxModel
from workbench.scoring.baselines import Scorer
from workbench.scoring.cross_encoder import ModelScorer

PLAN, DONE = "_plan.json", "_done.json"
NOTE = b"workbench"  # the key of a part's note in the metadata of its schema
SOURCE = "sha256 of the source"  # in what a plan was asked
EXAMPLES = 20  # bad rows that a plan names
MAX_PART_CHARACTERS = 2**26  # of the texts, which memory has to hold


class Row(NamedTuple):
    """A pair to score. `problem` says why it cannot be scored; a query's rows share a `group`."""

    line: int
    query: str
    candidate: str
    problem: str = ""
    group: int = 0


Part = tuple[int, list[Row]]
_RawRow = tuple[int, Any, Any, BadRow | None, int]  # line, texts, what is wrong, group


@dataclass(frozen=True)
class ScoringRequest:
    """What is asked; a folder is continued only if all of it is the same."""

    model: str  # as `find_model` takes it
    source: str  # the file of pairs, or of JSONL candidate lists
    query_column: str = "sentence_0"  # of a file of pairs
    candidate_column: str = "sentence_1"
    backend: str = "auto"  # see `ModelScorer`; `auto` is decided once, on the file's first pairs
    max_length: int | None = None  # tokens of a pair, at most the model's own
    part_rows: int = 10_000  # fewer if texts are very long, more so that `top_k` splits no query
    top_k: int = 0  # of a list, or of rows of equal first texts that follow one another; 0: all

    def rows(self) -> Iterator[Row]:
        """The rows of the source, in order; `PairsError` if it cannot be read or lacks a column."""
        path = project_path(self.source)
        found = _rows_of_lists(path) if holds_lists(path) else self._rows_of_pairs(path)
        for line, query, candidate, bad, group in found:
            if bad:
                query, candidate = ("" if t is None else printable(t) for t in (query, candidate))
            yield Row(line, query, candidate, str(bad or ""), group)

    def _rows_of_pairs(self, path: Path) -> Iterator[_RawRow]:
        names = {"sentence_0": self.query_column, "sentence_1": self.candidate_column}
        group, query = 0, None
        for record in readers.file_records(path, names):
            if isinstance(record, BadRow):  # it belongs to the query of the rows around it
                yield record.line, "", "", record, group
                continue
            line, *texts = record
            bad = readers.bad_text(line, dict(zip(names.values(), texts, strict=True)))
            if texts[0] != query and (bad is None or bad.column != self.query_column):
                group, query = group + 1, texts[0]
            yield line, *texts, bad, group

    def parts(self) -> Iterator[list[Row]]:
        """The rows of each part; `PairsError` if memory might not hold a query, with `top_k`."""
        part, characters = list[Row](), 0
        for row in self.rows():
            size = len(row.query) + len(row.candidate)
            full = len(part) >= self.part_rows or characters + size > MAX_PART_CHARACTERS
            if full and part and not (self.top_k and row.group == part[-1].group):
                yield part
                part, characters = [], 0
            elif characters > 4 * MAX_PART_CHARACTERS:
                raise PairsError(f"line {row.line}: the query has too much text for --top-k")
            part.append(row)
            characters += size
        if part:
            yield part


def _rows_of_lists(path: Path) -> Iterator[_RawRow]:
    for record in readers.file_records(path, {"query": "query"}, LIST_FIELDS):
        if isinstance(record, BadRow):
            yield record.line, "", "", record, record.line
            continue
        line, query, *fields = record
        lists = {
            name: one if isinstance(one, list) else [one]
            for name, one in zip(LIST_FIELDS, fields, strict=True)
            if one is not None and one is not readers.ABSENT
        }
        lacks = None if lists else BadRow(line, "missing_column", LIST_FIELDS[0], query)
        if bad := readers.bad_text(line, {"query": query}) or lacks:
            yield line, query, "", bad, line
            continue
        for name, texts in lists.items():
            for text in texts:
                yield line, query, text, readers.bad_text(line, {name: text}), line


def open_scorer(request: ScoringRequest, threads: int = 0) -> Scorer:
    """The model of a request, with at most `threads` threads (0: one per core)."""
    location = find_model(request.model)
    if request.backend in EXPORTED:  # needs no torch
        return OnnxModel(location.path, request.backend, request.max_length, threads)
    if threads:
        import torch

        torch.set_num_threads(threads)
    return ModelScorer.load(location, request.max_length, backend=request.backend)


@dataclass
class PartWriter:
    """Scores parts of a file into `folder`, each with a note of its place and its rows."""

    request: ScoringRequest  # with the backend that was chosen
    folder: Path
    threads: int = 0
    scorer: Scorer | None = None  # loaded for the first part

    def __call__(self, number: int, rows: list[Row]) -> int:
        """Score the rows and write them as the part of that number; returns their count."""
        frame = pd.DataFrame(rows, columns=list(Row._fields)).assign(score=np.float32(np.nan))
        sound = frame["problem"] == ""
        if sound.any():
            self.scorer = self.scorer or open_scorer(self.request, self.threads)
            texts = frame.loc[sound, ["query", "candidate"]].itertuples(index=False, name=None)
            frame.loc[sound, "score"] = self.scorer.score(list(texts))
        lost = frame.loc[sound & frame["score"].isna(), "line"].astype(str)
        frame.loc[lost.index, "problem"] = "line " + lost + ": the model's score is NaN"
        bad = int(frame["score"].isna().sum())
        note = {"part": number, "rows": len(rows), "bad_rows": bad}
        table = part_table(frame, self.request.top_k)
        table = table.replace_schema_metadata({NOTE: json.dumps(note)})
        with files.replacing(self.file(number)) as path, path.open("wb") as file:
            pq.write_table(table, file)  # pyarrow cannot open every name that a file can have
        # The gaps that each part leaves in glibc's memory would add up.
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
        return len(rows)

    def file(self, number: int) -> Path:
        """The file of the part of that number."""
        return self.folder / f"part-{number:06d}.parquet"

    def note(self, number: int) -> dict[str, Any]:
        """A part's record, `rows` (of the source) and `bad_rows`; empty if it is not written."""
        damaged = (OSError, ValueError, LookupError, TypeError, RecursionError)
        if not self.file(number).is_file():  # such as a pipe, at which opening would wait
            return {}
        with suppress(*damaged), self.file(number).open("rb") as file:
            note = dict(json.loads(pq.read_metadata(file).metadata[NOTE]))
            if note["part"] == number and note["rows"] >= note["bad_rows"] >= 0:
                return note
        return {}


def part_table(frame: pd.DataFrame, top_k: int = 0) -> pa.Table:
    """The rows of a part as they are written: all, or the best of each query by rank.

    The frame has a column for each field of `Row`, and `score`. Rows without a score (NaN) have
    null there and say why in `problem`; with `top_k` they come after the ranked ones of their
    query. Ties are ranked in the order of the file.
    """
    frame = frame.rename(columns={"query": "sentence_0", "candidate": "sentence_1"})
    frame["problem"] = frame["problem"].replace("", None)
    columns = {"line": pa.int64(), "sentence_0": pa.string(), "sentence_1": pa.string()}
    columns["score"] = pa.float32()
    if top_k:
        frame["rank"] = frame.groupby("group")["score"].rank("first", ascending=False)
        frame = frame[~(frame["rank"] > top_k)].sort_values(["group", "rank"], kind="stable")
        columns["rank"] = pa.int32()
    schema = pa.schema({**columns, "problem": pa.string()})
    return pa.Table.from_pandas(frame, schema, preserve_index=False)


Runner = Callable[[PartWriter, Iterator[Part], Callable[[int], None]], None]


def score_file(
    request: ScoringRequest, out: str | Path, run: Runner | None = None
) -> dict[str, Any]:
    """Score every row of a file into `out/part-000000.parquet` and so on, or continue with that.

    The parts hold the rows in order: `line` (of the file), `sentence_0`, `sentence_1`, `score` (the
    logit, float32), with `top_k` `rank` (from 1), and `problem`: null, or why there is no score.
    They are written here one after another, on all cores; `run` writes them elsewhere.

    Returns:
        What `out/_done.json` holds: `rows`, `bad_rows` (with `bad_row_examples`), `parts`,
        `backend` (see `ModelScorer.backend_record`) and `seconds` (of this start).

    Raises:
        RequestError: the folder holds something else, is in use, or leads elsewhere.
        PairsError, ModelError, BackendError: file, model or backend cannot be used.
        FailedError: `run` could not write a part, or the file changed while it was read.
    """
    from filelock import FileLock, Timeout

    if request.part_rows < 1 or request.top_k < 0:
        raise RequestError("part rows must be 1 or more, top-k 0 or more")
    if request.max_length is not None and request.max_length < MIN_LENGTH:
        raise RequestError(f"max-length is {request.max_length}; it must be {MIN_LENGTH} or more")
    folder, shown, scorer = project_path(out), display_path(out), None
    files.refuse_links(folder)
    plan = _read_plan(folder)
    if plan is None:
        plan, scorer = _new_plan(request)
    elif changed := changes("folder", plan["asked"], _asked(request, plan["chosen"]["backend"])):
        why = "holds the scores of another request; give another folder, or remove that one"
        raise RequestError("\n".join([f"{shown} {why}:", *changed]))
    write = PartWriter(replace(request, backend=plan["chosen"]["backend"]), folder, scorer=scorer)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            if (_read_plan(folder) or plan) != plan:
                raise RequestError(f"{shown} has just been started by another process")
            files.write_json(folder / PLAN, plan)
            return _score(write, plan, run)
    except Timeout as error:
        raise RequestError(f"{shown}: another process is writing there") from error
    except PermissionError as error:
        raise RequestError(f"{shown} cannot be written to ({error})") from error


def _score(write: PartWriter, plan: dict[str, Any], run: Runner | None) -> Any:
    """Write the parts that are missing; returns the record of all of them."""
    from tqdm import tqdm

    start = time.monotonic()
    counts: list[int] = []  # rows of each part, as the file is now
    for stale in write.folder.glob(".*.tmp"):  # of a process that was killed
        stale.unlink()

    def missing() -> Iterator[Part]:
        for number, rows in enumerate(write.request.parts()):
            counts.append(len(rows))
            if write.note(number):
                bar.initial += len(rows)
                bar.update(len(rows))
            else:
                yield number, rows

    every = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(total=plan["rows"], unit="rows", mininterval=every, delay=every, smoothing=0) as bar:
        if run:
            run(write, missing(), bar.update)
        else:
            for part in missing():
                bar.update(write(*part))
    notes = [write.note(number) for number in range(len(counts))]
    written = sum(note.get("rows", 0) for note in notes)
    digest = sha256(project_path(write.request.source))
    if not written == sum(counts) == plan["rows"] or digest != plan["asked"].get(SOURCE):
        raise FailedError(
            f"{printable(display_path(write.request.source))} was changed while it was read; "
            f"remove {display_path(write.folder)} and start again"
        )
    record = {
        "rows": written,
        "bad_rows": sum(note["bad_rows"] for note in notes),
        "bad_row_examples": plan["bad_row_examples"],
        "parts": len(notes),
        "backend": plan["chosen"],
        "seconds": round(time.monotonic() - start, 3),
    }
    files.write_json(write.folder / DONE, record)
    return record


class _Choice(TypedDict):
    backend: str


class _Plan(TypedDict):
    asked: dict[str, Any]
    rows: int
    bad_row_examples: list[str]
    chosen: _Choice  # the record of how the backend was chosen


def _read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan in a folder; None if the folder is empty or not there."""
    near = next(path for path in (folder, *folder.parents) if path.exists())
    if not near.is_dir():
        raise RequestError(f"{display_path(near)} is no folder")
    if not os.access(near, os.W_OK | os.X_OK):
        raise RequestError(f"{display_path(near)} cannot be written to; give another folder")
    if (folder / PLAN).is_file():
        return dict(files.read_json(folder / PLAN, _Plan))
    if others := sorted(path.name for path in folder.glob("*") if path.name[0] != "."):
        holds = f"{display_path(folder)} holds something else ({others[0]})"
        raise RequestError(f"{holds}; give another folder")
    return None


def _asked(request: ScoringRequest, backend: str) -> dict[str, Any]:
    """All that the parts of this backend depend on, as plain values."""
    model, file = find_model(request.model).path, project_path(request.source)
    if not file.is_file():
        next(request.rows())  # raises the error that says so
    names = ["*.safetensors", PICKLED, "*.json"]
    names += [EXPORTED[backend], "onnx/*.json"] if backend in EXPORTED else []
    paths = sorted({path for name in names for path in model.glob(name)})
    asked = {n: value for n, value in asdict(request).items() if n not in ("model", "source")}
    asked |= {f"sha256 of the model's {path.relative_to(model)}": sha256(path) for path in paths}
    return asked | {"kind of the source": "".join(readers.suffix_of(file)), SOURCE: sha256(file)}


def _new_plan(request: ScoringRequest) -> tuple[dict[str, Any], Scorer]:
    """Read the file once, and choose the backend on its first pairs."""
    rows, examples, first = 0, list[str](), dict[TextPair, None]()
    for row in request.rows():
        rows += 1
        if not row.problem and len(first) <= CHECK_PAIRS:
            first[row.query, row.candidate] = None
        elif row.problem and len(examples) < EXAMPLES:
            examples.append(row.problem)
    if not first:
        problem = f"; the first problem is at {examples[0]}" if examples else ""
        shown = printable(display_path(request.source))
        raise PairsError(f"{shown}: no pair in it that can be scored{problem}")
    scorer = open_scorer(request)
    chosen = {"backend": request.backend, "asked": request.backend}
    if isinstance(scorer, ModelScorer) and request.backend == "auto":
        scorer.expect(rows)
        scorer.score(list(first))
        chosen = scorer.backend_record
    asked = _asked(request, chosen["backend"])
    plan = {"asked": asked, "rows": rows, "bad_row_examples": examples, "chosen": chosen}
    return plan, scorer
