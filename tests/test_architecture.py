"""The plan of the code: few files in a room, what importing costs, and the face of the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import workbench

PACKAGE = Path(workbench.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.rglob("__init__.py"))
HEAVY = {"torch", "transformers", "sentence_transformers"}


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_a_room_has_few_files(room):
    assert len(list(room.glob("*.py"))) <= 9


def test_the_tree_in_contributing_is_the_tree():
    """Each room and file is named, and nothing that is not there."""
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = {}
    for line in text.partition("workbench/\n")[2].partition("notebooks/")[0].splitlines():
        room, _, files = line.strip().partition("/ ") if "/ " in line else ("", "", line)
        told[room] = {name for name in files.split() if not name.endswith("/")}
    assert told.keys() == {""} | {room.name for room in ROOMS if room.parent == PACKAGE}
    for room, files in told.items():
        found = {path.stem for path in (PACKAGE / room).glob("*.py")} - {"__init__", "__main__"}
        assert files == found, room


def loaded_by(code):
    show = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    code = "import workbench as wb; wb.scoring, wb.ranking, wb.figures, wb.findings, wb.training"
    assert not loaded_by(code) & {*HEAVY, "pandas", "numpy", "matplotlib"}


@pytest.mark.parametrize("command", [[], ["run"], ["sweep"], ["runs"], ["score"]])
def test_asking_for_help_loads_nothing_heavy(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "workbench", *command, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: workbench")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"click", "workbench.cli"} <= loaded
    assert not loaded & {"torch", "transformers", "pandas", "numpy", "matplotlib", "papermill"}


def test_inspecting_and_plotting_do_not_load_torch():
    code = (
        "import workbench as wb, workbench.batch.execute, workbench.batch.preflight, "
        "workbench.reports.page, workbench.vocabulary.inspection; "
        "wb.prepare_data, wb.read_training_log, wb.show, wb.find_runs, wb.evaluate, "
        "wb.scoring.Bm25, wb.ranking.equal_overlap, wb.figures.loss_curve, wb.figures.ladder, "
        "wb.findings.outcome, wb.findings.verdict, wb.reports.browser_records"
    )
    assert not loaded_by(code) & HEAVY


def test_the_face_has_few_names_and_the_rooms():
    rooms = {"data", "vocabulary", "scoring", "ranking", "training", "runs", "reports", "batch"}
    assert rooms | {"figures", "findings"} <= set(dir(workbench))
    assert len(set(dir(workbench)) - rooms - {"figures", "findings"}) <= 27


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_every_public_name_exists_and_others_do_not(room):
    dotted = ".".join(["workbench", *room.relative_to(PACKAGE).parts])
    module = sys.modules.get(dotted) or __import__(dotted, fromlist=["*"])
    for name in dir(module):
        assert name.startswith("__") or getattr(module, name) is not None
        assert re.fullmatch(r"\w+", name)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = module.no_such_name
