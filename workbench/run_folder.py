"""The layout of a run folder, and the errors of requests and runs."""

from pathlib import Path

STAGES = "stages"  # the folder of a run with the models of all stages but the last


def stage_folders(run_dir: Path) -> list[Path]:
    """The models of a run's finished stages but the last, in order; the last is `model/`."""
    found = (run_dir / STAGES).glob("[0-9]*/lineage.json")
    return sorted((file.parent for file in found), key=lambda folder: int(folder.name))


ACTS = {
    "01": "01_inspect_data",
    "02": "02_fine_tune",
    "03": "03_plot_loss",
    "04": "04_evaluate_ranking",
}


SCHEMA = 1  # of status.json; a folder with a higher one was written by a newer workbench


class RequestError(ValueError):
    """The request cannot be carried out as it stands; nothing was started."""


class ActError(RuntimeError):
    """An act failed; its executed notebook, with the traceback, and all earlier files stay."""

    def __init__(self, act: str, cell: int | None, error: str) -> None:
        where = f"notebook {ACTS[act]}" + ("" if cell is None else f", cell {cell}")
        super().__init__(f"{where}: {error}")
        self.act, self.cell, self.error = act, cell, error


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM): treated as Ctrl-C is, so that a run can go on."""
