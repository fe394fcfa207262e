"""The plan of the house: floors, sizes, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import workbench

PACKAGE = Path(workbench.__file__).parent
FLOORS = [
    {"files", "yaml_files", "processes", "energy", "cells", "interrupts", "memory"},
    {"formats", "rows", "pairs", "weights", "models", "card_text"},
    {"splits", "vocabulary", "coverage", "repair", "embeddings", "ceiling", "scoring", "baselines",
     "mining", "metrics", "uncertainty", "candidates", "lists", "list_formats", "trec", "logs",
     "pair_scores", "recipes", "trainer", "masked", "stages",
     "checkpoints", "resumable", "reference",
     "backends", "encoding", "inference", "exported", "int8", "onnx_models",
     "packing", "kernels", "compiling", "compiled", "compiled_products",
     "layers", "rounded", "bfloat16", "shares",
     "bert_training", "fast_trainer"},
    {"audit", "training", "evaluation", "card", "plots", "findings", "remarks", "claims", "errors",
     "starts", "card_training", "card_limits",
     "export", "stream", "parts", "pool", "progress",
     "subject", "slices", "charts", "blend", "browser", "searchable", "snapshots", "curve"},
    {"parameters", "report", "runs", "checks", "estimate", "preflight", "chain",
     "direct",
     "identity", "catalog", "comparison", "overview"},
    {"engines", "ray_engine", "tracking", "sweep_plan", "sweeps", "sweep_table", "search",
     "worker", "bulk", "ray_scoring"},
    {"__main__", "batch", "listing", "commands"},
]  # fmt: skip
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def imports_of(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    names = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[1] for name in names if name and name.startswith("workbench.")}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_small_and_imports_downwards(module):
    lines = (PACKAGE / f"{module}.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 300
    assert all(FLOOR[other] <= FLOOR[module] for other in imports_of(module))


def test_imports_run_in_no_circle():
    waiting = {module: imports_of(module) for module in MODULES}
    while waiting:
        ready = {module for module, needs in waiting.items() if not needs & waiting.keys()}
        assert ready, f"a circle among {sorted(waiting)}"
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}


def loaded_by(code):
    show = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_by("import workbench") & {"torch", "transformers", "pandas", "matplotlib"}


@pytest.mark.parametrize("command", [[], ["run"], ["sweep"], ["runs"], ["score"], ["train"]])
def test_asking_for_help_loads_nothing_heavy(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "workbench", *command, "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("usage: workbench")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"argparse", "workbench.commands"} <= loaded
    assert not loaded & {"torch", "transformers", "pandas", "numpy", "matplotlib", "papermill"}


def test_inspecting_and_plotting_do_not_load_torch():
    code = "from workbench import audit, plots, findings, splits, logs, chain, preflight"
    assert not loaded_by(code) & {"torch", "transformers", "sentence_transformers"}


def test_every_public_name_exists_and_others_do_not():
    for name in workbench.__all__:
        assert getattr(workbench, name).__name__ == name
    assert set(workbench.__all__) <= set(dir(workbench))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = workbench.no_such_name
