"""The layout of a run folder: where each file of a run is, and how a run ends early."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, model_validator

from workbench.files import DamagedError, display_path, project_path, read_json

NOTEBOOKS = {
    "01": "01_inspect_data",
    "02": "02_fine_tune",
    "03": "03_plot_loss",
    "04": "04_evaluate_ranking",
}
SCHEMA = 1  # of status.json and sweep.json; a newer workbench may write a higher one
MADE_BY_TRAINING = (  # or from its model
    *("model", "stages", "checkpoints", "training_log.jsonl", "evaluation", "snapshots"),
)


class RunFolder:
    """Paths of a run's files and folders, whether or not anything is there."""

    def __init__(self, run_dir: str | Path) -> None:
        self.path = project_path(run_dir)
        self.parameters = self.path / "parameters.yaml"  # what was asked
        self.environment = self.path / "environment.json"  # versions, commit, machine
        self.status = self.path / "status.json"  # running, done or failed
        self.report = self.path / "report.html"
        self.notebooks = self.path / "notebooks"  # the executed copies
        self.figures = self.path / "figures"
        self.data = self.path / "data"
        self.manifest = self.data / "manifest.json"  # counts every row, used or not
        self.inspection = self.path / "inspection.json"
        self.training_log = self.path / "training_log.jsonl"
        self.model = self.path / "model"
        self.lineage = self.model / "lineage.json"
        self.card = self.model / "README.md"
        self.card_settings = self.path / "card.json"
        self.stages = self.path / "stages"  # models of all stages but the last, which is `model`
        self.snapshots = self.path / "snapshots"  # models along the training
        self.checkpoints = self.path / "checkpoints"  # what a killed training goes on from
        self.evaluation = self.path / "evaluation"
        self.metrics = self.evaluation / "metrics.json"
        self.per_query = self.evaluation / "per_query.parquet"
        self.errors = self.evaluation / "errors.parquet"
        self.candidates = self.evaluation / "candidates.jsonl"
        self.blend = self.evaluation / "blend.json"
        self.browser = self.evaluation / "browser.json"
        self.earlier = self.path / "earlier"  # what later data, models and evaluations replaced

    def split(self, name: str) -> Path:
        """The pairs of `train`, `dev` or `test`."""
        return self.data / f"{name}.parquet"

    def figure(self, name: str) -> Path:
        """The figure of that name."""
        return self.figures / f"{name}.png"

    def is_run(self) -> bool:
        """Whether a run has left something here."""
        return any(file.is_file() for file in (self.status, self.manifest, self.lineage))


class _Entry(BaseModel, allow_inf_nan=False):  # a notebook in status.json, a run in sweep.json
    state: str = ""
    seconds: float = 0.0
    error: str = ""
    same_as: str = ""


class _Record(BaseModel, allow_inf_nan=False):
    """What is relied on of the records that have few values, see `SHAPES`."""

    schema_: int = Field(SCHEMA, alias="schema")
    state: str = ""
    started: str = ""
    error: str = ""
    notebook: str = ""
    cell: Any = None  # printed as it is, escaped
    notebooks: dict[str, _Entry] = {}
    jobs: dict[str, _Entry] = {}
    identity: str = ""
    code: str = ""
    commit: str | None = None
    packages: dict[str, str] = {}
    source: str = ""
    sha256: str = ""
    sides: dict[str, dict[str, float | None]] = {}
    test_pairs: dict[str, Any] = {}
    card_samples: int = 0
    language: str = ""
    license: str = ""
    dataset: str = ""


class _Base(BaseModel, extra="allow"):  # see `ModelLocation.record`
    __pydantic_extra__: dict[str, str]
    name: str


class _AnyStage(BaseModel):  # a warm-up too, which has no base
    base: _Base = _Base(name="")
    number: int = Field(1, ge=1)
    vocabulary: dict[str, Any] = {}
    recipe: dict[str, Any] = {}


class _Stage(BaseModel):
    stage: str
    base: _Base
    data: _Record
    recipe: dict[str, Any]
    hyperparameters: dict[str, Any]
    statistics: dict[str, dict[str, float]] = {}
    log: list[dict[str, Any]] = []
    steps: int
    seconds: float


class _Lineage(BaseModel):
    stages: list[_AnyStage] = Field(min_length=1)


class WholeLineage(BaseModel):
    """`lineage.json` as training writes it, which a model card is made from."""

    stages: list[_Stage] = Field(min_length=1)


class _Estimate(BaseModel, allow_inf_nan=False):
    mean: float | None
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has low and high")
        return self


class _Measured(_Estimate):
    mean: float
    p_holm: float | None = None  # of a difference


class _Row(BaseModel, extra="allow"):
    __pydantic_extra__: dict[str, _Estimate | None]  # by metric
    scorer: str
    main: _Measured = Field(alias="ndcg@10")


class _Metrics(BaseModel):
    rows: list[_Row] = Field(min_length=1)
    queries: int
    model_minus: dict[str, _Measured]
    query_groups: int = 0
    flips: int = 0
    resamples: int = 0
    queries_all_tied: dict[str, float] = {}


class _Candidate(BaseModel):
    text: str
    relevance: float
    score: float
    rank: Any


class _Query(BaseModel):
    query: str
    other_name: str
    model: float
    other: float
    rank: Any  # printed as it is, escaped
    slices: list[str]
    orders: dict[str, list[_Candidate]]
    tokens: dict[str, list[tuple[str, int, int, bool]]]  # see `vocabulary.tokens.Token`


SHAPES = {
    **dict.fromkeys(("status.json", "sweep.json", "environment.json"), _Record),
    **dict.fromkeys(("manifest.json", "card.json"), _Record),
    "lineage.json": _Lineage,
    "metrics.json": _Metrics,
    "browser.json": list[_Query],
}


def read_record(file: Path) -> Any:
    """The content of a record of a run or a model, see `read_json`; empty if there is none."""
    shape = SHAPES.get(file.name, dict[str, Any])
    record = read_json(file, shape) if file.is_file() else {}
    if shape is _Record and record.get("schema", SCHEMA) > SCHEMA:
        raise DamagedError(
            f"{display_path(file.parent)} was written by a newer workbench (schema "
            f"{record['schema']}, known here: {SCHEMA}): update this one, or choose another --name"
        )
    return record


def stage_folders(run_dir: str | Path) -> list[Path]:
    """The models of a run's finished stages but the last, in order; the last is `model/`."""
    found = RunFolder(run_dir).stages.glob("[0-9]*/lineage.json")
    return sorted((file.parent for file in found), key=lambda folder: int(folder.name))


def set_aside(run_dir: str | Path, names: Iterable[str]) -> None:
    """Move what a run folder holds under `names` to a new folder in `earlier/`."""
    folder = RunFolder(run_dir)
    count = len(list(folder.earlier.glob("*")))
    target = folder.earlier / f"{time.strftime('%Y%m%d-%H%M%S')}-{count}"
    for path in (folder.path / name for name in names):
        if path.exists():
            target.mkdir(parents=True, exist_ok=True)
            path.rename(target / path.name)


def changes(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is asked otherwise than when `what` (a run, a training) was started, a line each."""
    return [
        f"{name}: the {what} was started with {before.get(name)!r}, not {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


class NotebookError(RuntimeError):
    """A notebook failed; its executed copy, with the traceback, and all earlier files stay."""

    def __init__(self, number: str, cell: int | None, error: str) -> None:
        where = f"notebook {NOTEBOOKS[number]}" + ("" if cell is None else f", cell {cell}")
        super().__init__(f"{where}: {error}")
        self.number, self.cell, self.error = number, cell, error


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): handled like Ctrl-C, so that a run can go on."""
