"""A project with four notebooks that take a moment each, to try what happens while they run.

The package is copied, so that it finds these notebooks and not the real ones; the command, the
runs, the kernels, the locks and the report are the real ones.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml

import workbench
from workbench.run_folder import NOTEBOOKS

PARAMETERS = 'run_dir: str = "runs/notebook"  # the folder\nseed: int = 42  # of all\n'
# Waits in the notebook named in the file `wait`, after it has said that it is there.
BODY = """
import json, os, signal, time
from pathlib import Path
run, here = Path(run_dir), Path.cwd().parent
(run / "data").mkdir(parents=True, exist_ok=True)
(run / "figures").mkdir(exist_ok=True)
(run / "at-{number}").touch()
with open(here / "log.txt", "a") as told:
    told.write(f"{number} {{run.name}} {{seed}}" + chr(10))
while (here / "wait").exists() and "{number}" in (here / "wait").read_text().split():
    time.sleep(0.05)
if (here / "die").exists() and "{number}" in (here / "die").read_text().split():
    os.kill(os.getpid(), signal.SIGKILL)
if (here / "fail").exists() and f"{{seed}}" in (here / "fail").read_text().split():
    raise RuntimeError("this seed fails")
if (here / "fill").exists() and "{number}" in (here / "fill").read_text().split():
    (run / "large.bin").write_bytes(b"x" * 3_000_000)
"""
LAST = {
    "01": '(run / "data/manifest.json").write_text(json.dumps('
    '{"sides": {"test": {"positives": 9}}}))\n(run / "inspection.json").write_text("{}")',
    # A training whose figure on dev is best at seed 7.
    "02": """(run / "data/seed.txt").write_text(str(seed))
with open(run / "training_log.jsonl", "w") as log:
    for step in range(1, 11):
        value = 1 / (1 + abs(seed - 7)) * step / 10
        row = {"stage": "s", "step": step, "steps": 10, "loss": 1.0, "dev_ap": value}
        log.write(json.dumps(row) + chr(10))""",
    "03": "",
    "04": '(run / "result.txt").write_text("seed " + (run / "data/seed.txt").read_text())',
}
DRAWING = """
from matplotlib.figure import Figure
ax = Figure().subplots()
ax.set_title("怎么")
ax.figure.savefig(run / "figures/a.png")
"""


# What takes seconds in the copied package is replaced where something else is tested: notebooks run
# in the command's own process, the inputs are not looked at, and the report is a word.
QUICK = {
    "kernels": (
        "batch/execute.py",
        """
import os
from contextlib import nullcontext


class Kernels(nullcontext):
    def __init__(self, *_):
        super().__init__(self)

    def take(self, _):
        return nullcontext()


def execute(source, target, values, _):
    import json

    names = {}
    os.chdir(source.parent)
    for cell in json.loads(source.read_text())["cells"]:
        exec("".join(cell["source"]), names)
        names |= {name: value for name, value in values.items() if name in names}
""",
    ),
    "inputs": (
        "batch/preflight.py",
        """

def _look_at_pairs(*_):
    return None

_look_at_candidates = _look_at_model = _look_at_pairs
""",
    ),
    "report": (
        "reports/page.py",
        """

def write_report(run_dir):
    (run_dir / "report.html").write_text("report")
""",
    ),
}


class TinyProject:
    """The project in a folder; `start` and `run` give the command to a process of its own.

    With `draws`, notebook 03 draws a figure; to load matplotlib for it takes a second. Of what is
    in `QUICK`, only what `real` names is done as it is.
    """

    def __init__(self, folder, model, *real, draws=False):
        self.root, self.site, self.runs = folder / "project", folder / "site", folder / "runs"
        shutil.copytree(Path(workbench.__file__).parent, self.site / "workbench")
        for file, source in (QUICK[name] for name in QUICK.keys() - set(real)):
            module = self.site / "workbench" / file
            module.write_text(("" if "page" in file else module.read_text()) + source)
        (self.root / "notebooks").mkdir(parents=True)
        self.runs.mkdir()
        for number, name in NOTEBOOKS.items():
            drawing = DRAWING if draws and number == "03" else ""
            self.write(name, BODY.format(number=number) + LAST[number] + drawing)
        rows = "".join(f"问{n},答{n},{n % 2}\n" for n in range(60))
        pairs = self.root / "pairs.csv"
        pairs.write_text("sentence_0,sentence_1,label\n" + rows, encoding="utf-8")
        values = {"pairs": str(pairs), "base_model": str(model), "test_share": 0.4}
        self.request = self.root / "request.yaml"
        self.request.write_text(yaml.safe_dump(values), encoding="utf-8")

    def write(self, name, source, parameters=PARAMETERS):
        cells = [
            nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(source),
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(notebook, self.root / "notebooks" / f"{name}.ipynb")

    def start(self, *arguments, env=None, **options):
        environment = {**os.environ, "PYTHONPATH": str(self.site), **(env or {})}
        environment.pop("PYTEST_CURRENT_TEST", None)
        return subprocess.Popen(
            [sys.executable, "-m", "workbench", *map(str, arguments)],
            cwd=self.root,
            text=True,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def ask(self, *arguments, runs=None, **options):
        return self.start(*arguments, "--runs-dir", runs or self.runs, **options)

    def run(self, *arguments, **options):
        process = self.ask(*arguments, **options)
        out, error = process.communicate(timeout=300)
        return process.returncode, out, error

    def status(self, name):
        return json.loads((self.runs / name / "status.json").read_text(encoding="utf-8"))


def await_file(path, process=None, seconds=120):
    """Wait until a file is there; fail if the process that should write it has ended."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


def await_end(pids, seconds=60):
    """Wait until none of these processes is left; the ones that are."""
    import psutil

    end = time.monotonic() + seconds
    while left := [
        pid
        for pid in pids
        if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    ]:
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return left


SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}
