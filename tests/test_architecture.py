"""The plan of the code: few files in a room, and what importing costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import workbench

PACKAGE = Path(workbench.__file__).parent
ROOMS = sorted(path for path in [PACKAGE, *PACKAGE.rglob("*/")] if (path / "__init__.py").exists())


@pytest.mark.parametrize("room", ROOMS, ids=lambda path: path.name)
def test_a_room_has_few_files(room):
    assert len(list(room.glob("*.py"))) <= 9


def loaded_by(code):
    show = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import workbench") & {"torch", "transformers", "pandas", "matplotlib"}


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
        "import workbench.batch.execute, workbench.batch.preflight, workbench.data.splits, "
        "workbench.reports.page, workbench.training.log, workbench.vocabulary.inspection, "
        "workbench.reports.findings.training, workbench.reports.figures.training"
    )
    assert not loaded_by(code) & {"torch", "transformers", "sentence_transformers"}


def test_every_public_name_exists_and_others_do_not():
    for name in workbench.__all__:
        assert getattr(workbench, name).__name__ == name
    assert set(workbench.__all__) <= set(dir(workbench))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = workbench.no_such_name
