"""The notebooks: parameters, style, and the artefacts of running them through papermill."""

import ast
import inspect
import re
import statistics
from functools import partial

import nbformat
import papermill
import pytest

import workbench
from tests.benchmarks.tiny import KINDS, write_tiny_kind, write_tiny_reranker
from tests.conftest import ROOT, run_notebook
from workbench.files import read_json, write_json
from workbench.ranking.metrics import RANKING_METRICS
from workbench.runs.folder import record_request
from workbench.runs.parameters import Parameters
from workbench.scoring.baselines import BASELINES

SOURCES = sorted((ROOT / "notebooks").glob("0*.ipynb"))
IDS = [path.stem for path in SOURCES]


@pytest.fixture(params=SOURCES, ids=IDS)
def source(request):
    return request.param


def code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_parameters_are_those_of_the_package(source):
    """papermill sees every one, with the name, type, default and help of its only definition."""
    found = papermill.inspect_notebook(str(source))
    (cell,) = [c for c in code_cells(source) if "parameters" in c.metadata.get("tags", [])]
    assert len(found) == len(cell.source.splitlines())
    for name, entry in found.items():
        field = Parameters.model_fields[name]
        assert entry["default"] == repr(field.default).replace("'", '"'), name
        assert entry["inferred_type_name"] == type(field.default).__name__, name
        assert entry["help"] == field.description, name


def test_together_the_notebooks_take_every_parameter():
    found = [set(papermill.inspect_notebook(str(path))) for path in SOURCES]
    assert set.union(*found) == set(Parameters.model_fields)


def test_cells_are_short_and_introduced(source):
    cells = nbformat.read(source, as_version=4).cells
    lengths = []
    for before, cell in zip([None, *cells], cells, strict=False):
        if cell.cell_type != "code":
            continue
        assert before.cell_type == "markdown", cell.source
        if "parameters" not in cell.metadata.get("tags", []):
            lengths.append(len(cell.source.splitlines()))
    assert max(lengths) <= 15
    assert statistics.median(lengths) <= 8
    assert cells[0].source.startswith("# ")
    assert "**" in cells[0].source  # its time


def calls(cell, name):
    """The calls of `wb.<name>` in a cell; `wb.figures.` for all names of a room."""
    for node in ast.walk(ast.parse(cell.source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(f"wb.{name}"):
            yield node


def test_every_figure_is_saved_and_read_aloud(source):
    for cell in code_cells(source):
        sentences = {"finding"} if "finding = wb.findings." in cell.source else set()
        shown = [call for call in calls(cell, "show") if "figure" in ast.unparse(call)]
        assert len(shown) == len(list(calls(cell, "figures."))), cell.source
        for call in shown:
            *_, last = call.args
            text = ast.unparse(last)
            spoken = isinstance(last, ast.JoinedStr | ast.Constant) or text in sentences
            assert spoken or text.startswith("wb.findings."), cell.source
            assert {"run_dir", "name"} <= {word.arg for word in call.keywords}


def test_what_is_for_an_editor_only_is_tagged_with_its_introduction(source):
    """Parameters, versions, and what only a kernel can do; the report leaves out these cells."""
    cells = nbformat.read(source, as_version=4).cells
    tags = [cell.metadata.get("tags", []) for cell in cells]
    for before, own, cell in zip(tags, tags[1:], cells[1:], strict=False):
        if "parameters" in own or re.search(r"wb\.environment\(|\blive_ranking\(", cell.source):
            assert before == ["not-in-report"]
            assert own in (["parameters"], ["not-in-report"])


def test_only_the_face_and_the_rooms_are_used(source):
    text = "\n".join(cell.source for cell in code_cells(source))
    for dotted in re.findall(r"\bwb((?:\.\w+)+)", text):
        first, *rest = dotted.strip(".").split(".")
        assert first in dir(workbench)
        room = getattr(workbench, first)
        assert not inspect.ismodule(room) or rest[0] in dir(room), dotted
    assert "from workbench" not in text
    assert "pip install" not in text


def test_notebook_1_leaves_data_and_inspection(chain):
    manifest = read_json(chain / "data/manifest.json")
    assert manifest["rows"]["used"] == 300
    inspection = read_json(chain / "inspection.json")
    assert 0 < inspection["labels"]["mean"] < 1
    assert inspection["tokens"]["unk_share"] > 0


def test_notebook_2_leaves_a_model_and_says_which_base_it_was(chain, tiny_model):
    lineage = read_json(chain / "model/lineage.json")["stages"]
    assert lineage[0]["base"]["name"] == str(tiny_model)
    text = "".join(
        output.get("text", "")
        for cell in code_cells(chain / "notebooks/02_fine_tune.ipynb")
        for output in cell.outputs
    )
    assert f"Base model: {tiny_model}" in text


FIGURES = """
labels lengths_characters lengths_tokens loss dev_ap learning_rate gradient_norm ladder scatter
scores reliability slices learning_curve
"""


def test_the_notebooks_leave_their_figures(chain):
    for figure in FIGURES.split():
        assert (chain / f"figures/{figure}.png").stat().st_size > 5000, figure


def test_notebook_4_leaves_metrics_with_intervals(chain):
    metrics = read_json(chain / "evaluation/metrics.json")
    assert metrics["schema"] == 1
    for row in metrics["rows"]:
        for name in (*RANKING_METRICS, "ap", "roc_auc", "accuracy", "f1"):
            value = row[name]
            assert 0 <= value["low"] <= value["mean"] <= value["high"] <= 1
    random = next(row for row in metrics["rows"] if row["scorer"] == "random")
    jaccard = next(row for row in metrics["rows"] if row["scorer"] == "char_jaccard")
    assert jaccard["ndcg@10"]["mean"] > random["ndcg@10"]["mean"]


def test_notebook_4_measures_the_whole_ladder_with_tests_and_says_what_may_be_claimed(chain):
    metrics = read_json(chain / "evaluation/metrics.json")
    names = [row["scorer"] for row in metrics["rows"]]
    assert names == ["model", "base", *BASELINES]
    assert set(metrics["model_minus"]) == {*names} - {"model"}
    for gap in metrics["model_minus"].values():
        assert gap["low"] <= gap["mean"] <= gap["high"]
        assert 0 < gap["p"] <= gap["p_holm"] <= 1
    assert (metrics["ties"], metrics["resamples"]) == ("expected", 10_000)
    assert metrics["recipe"]["source"] == "built from the test split"
    card = (chain / "model/README.md").read_text(encoding="utf-8")
    assert "Ties count as the average" in card
    assert "| ngram_regression |" in card


def test_notebook_3_overlays_runs_and_reads_a_running_one(chain, tmp_path):
    running = tmp_path / "running"
    running.mkdir()
    log = (chain / "training_log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (running / "training_log.jsonl").write_text("".join(log[:4]) + log[4][:20], encoding="utf-8")
    (running / "data").mkdir()
    (running / "data/manifest.json").write_bytes((chain / "data/manifest.json").read_bytes())
    out = tmp_path / "out.ipynb"
    run_notebook(
        ROOT / "notebooks/03_plot_loss.ipynb", out, run_dir=str(running), compare_runs=str(chain)
    )
    assert "(running: step" in out.read_text(encoding="utf-8")
    assert (running / "figures/loss.png").is_file()


@pytest.mark.parametrize("name", ["01_inspect_data", "03_plot_loss"])
def test_notebooks_1_and_3_never_load_torch(chain, name, tmp_path, tiny_model):
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    check = "import sys; assert 'torch' not in sys.modules and 'pandas' in sys.modules"
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    nbformat.write(notebook, tmp_path / "with_check.ipynb")
    given = {"run_dir": str(chain)}
    if name.startswith("01"):
        given |= {"run_dir": str(tmp_path / "run"), "base_model": str(tiny_model)}
    run_notebook(tmp_path / "with_check.ipynb", tmp_path / "out.ipynb", **given)


def execute(number, values):
    """Run a notebook's code in this process; the values of its parameters are among others."""
    space = {}
    for cell in code_cells(SOURCES[number - 1]):
        exec(cell.source, space)
        if "parameters" in cell.metadata.get("tags", []):
            space |= {name: value for name, value in values.items() if name in space}
    return space


@pytest.mark.slow
def test_every_kind_of_base_goes_through_the_five_notebooks(once, tmp_path):
    """With a loss on pairs and one on lists; notebook 5 compares them on the same lists."""
    asked = {"max_pairs": 200, "test_share": 0.3, "max_length": 64, "max_steps": 2}
    asked |= {"hard_negatives": 1, "list_size": 5, "resamples": 100, "learning_rate": 1e-3}
    asked |= {"trainer_arguments": {"max_grad_norm": 0.5}}
    for place, kind in enumerate((*KINDS, "qwen3")):
        write = write_tiny_reranker if kind == "qwen3" else partial(write_tiny_kind, kind=kind)
        base, folder = once(f"kind-{kind}", write), tmp_path / "runs" / kind
        loss = ("bce", "listnet")[place % 2]
        given = Parameters(**asked, base_model=str(base), loss=loss, run_dir=str(folder))
        record_request(given, folder)
        for number in (1, 2, 3, 4):
            execute(number, given.model_dump())
        status = {"state": "done", "notebooks": {f"0{n}": {"state": "done"} for n in range(1, 5)}}
        write_json(folder / "status.json", status)
        card = (folder / "model/README.md").read_text(encoding="utf-8")
        for text in (base.name, "`max_grad_norm`: 0.5", "nDCG@10"):
            assert text in card
    found = execute(5, {"run_dir": str(tmp_path / "runs")})
    assert set(found["table"]["run"]) == {*KINDS, "qwen3"}
    assert len(found["paired"]) == len(KINDS)
    assert len({record.test for record in found["runs"]}) == 1
