"""Shared fixtures: a tiny random cross-encoder, a few pairs, and the four notebooks run once."""

import gzip
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest
from filelock import FileLock
from hypothesis import settings
from safetensors.numpy import load_file, save_file

from tests.benchmarks.tiny import CHARACTERS, write_tiny_model
from workbench.files import read_json, write_json
from workbench.machine import core_count
from workbench.training.log import TrainingLog

__all__ = ["CHARACTERS", "ROOT"]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for models this small threads only wait
os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")  # a machine may be busy
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or hundreds of processes compile everything
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # ignored in the background of a script,
    signal.signal(signal.SIGINT, signal.default_int_handler)  # and then by all child processes
settings.register_profile("unhurried", deadline=None)  # a machine may be busy for a moment
settings.load_profile("unhurried")
ROOT = Path(__file__).resolve().parent.parent


def pytest_xdist_auto_num_workers(config):
    """Half as many again as there are cores: much of the time a test waits for other processes."""
    return max(2, core_count() * 3 // 2)


def pytest_make_parametrize_id(val, argname):
    """Bytes name no test: a packed file holds the second of its packing, other in each worker."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items):
    """Tests with a Ray cluster first, so that one worker has them all, and no two start at once."""
    items.sort(key=lambda item: item.get_closest_marker("cluster") is None)


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Let one worker make a folder that all of them read: `once(name, make)` gives its path."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top

    def made(name, make):
        folder, finished = top / name, top / f"{name}.made"
        with FileLock(top / f"{name}.lock"):
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)  # half of it, where making it failed
                make(folder)
                finished.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def sharp_model(once, tiny_model):
    """The tiny model with larger weights, so that it tells texts apart; copy it to change it."""

    def make(folder):
        shutil.copytree(tiny_model, folder)
        sharpen(folder)

    return once("sharp", make)


@pytest.fixture(scope="session")
def vector_model(once):
    """A small model, made sharp as well, wide enough for blocks of vectors."""

    def make(folder):
        sharpen(write_tiny_model(folder, width=32, inner=128))

    return once("vectors", make)


STRANGER = """
import json, sys
sys.modules['peft'] = sys.modules['workbench'] = None
from sentence_transformers import CrossEncoder
from transformers import AutoTokenizer
for line in sys.stdin:
    folder, length, texts, pairs = json.loads(line)
    model = CrossEncoder(folder, max_length=length)
    ids = [AutoTokenizer.from_pretrained(folder)(text)['input_ids'] for text in texts]
    own = [model.tokenizer(text)['input_ids'] for text in texts]
    print(json.dumps([ids, own, model.predict(pairs).tolist()]), flush=True)
"""


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """Read texts and score pairs with a model folder where there is neither workbench nor peft.

    `stranger(folder, length, texts, pairs)` gives the ids of `AutoTokenizer` and of `CrossEncoder`,
    and the scores. The process is started once: to load the library takes seconds.
    """
    command, folder = [sys.executable, "-c", STRANGER], tmp_path_factory.mktemp("elsewhere")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

    def ask(folder, length, texts, pairs):
        process.stdin.write(json.dumps([str(folder), length, texts, pairs]) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the process has ended; its error stands above"
        return json.loads(answer)

    with subprocess.Popen(command, cwd=folder, text=True, **pipes) as process:
        yield ask
    assert process.returncode == 0


def labelled(*rows):
    """Rows of two texts and a label as a data frame of pairs."""
    return pd.DataFrame(rows, columns=["sentence_0", "sentence_1", "label"])


def write_table(frame, path):
    """Write a data frame as the file that the suffixes of a path ask for; returns the path."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if plain.suffix == ".parquet":
        frame.to_parquet(plain, index=False)
    elif plain.suffix == ".jsonl":
        frame.to_json(plain, orient="records", lines=True, force_ascii=False)
    else:
        frame.to_csv(plain, index=False, sep="\t" if plain.suffix == ".tsv" else ",")
    if plain != path:
        path.write_bytes(gzip.compress(plain.read_bytes()))
    return path


def rewritten(source, folder, change):
    """A copy of a model folder whose config and weights `change` has altered."""
    shutil.copytree(source, folder)
    config, weights = read_json(folder / "config.json"), load_file(folder / "model.safetensors")
    change(config, weights)
    write_json(folder / "config.json", config)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@contextmanager
def interrupted_at(step, stage="stage 1", error=KeyboardInterrupt):
    """Within the block a training ends in `error` once its log has a row of that step or later."""

    def append(self, row, plain=TrainingLog.append):
        plain(self, row)
        if self.stage == stage and row["step"] >= step:
            raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingLog, "append", append)
        with pytest.raises(error):
            yield


def sharpen(folder):
    """Make a model's weights larger, so that it tells texts apart."""
    weights = load_file(folder / "model.safetensors")
    larger = {name: value * 6 if value.ndim == 2 else value for name, value in weights.items()}
    save_file(larger, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def tiny_model(once):
    """A BERT of two small layers with random weights and a small WordPiece vocabulary."""
    return once("tiny", write_tiny_model)


@pytest.fixture(scope="session")
def sample():
    """The shipped sample as a data frame."""
    return pd.read_csv(ROOT / "data" / "sample_pairs.csv")


def run_notebook(source, target, cwd=None, **values):
    """Execute a notebook with those of the values that it declares."""
    import papermill

    declared = papermill.inspect_notebook(str(source))
    given = {name: value for name, value in values.items() if name in declared}
    options = {"kernel_name": "python3", "progress_bar": False, "cwd": cwd}
    papermill.execute_notebook(str(source), str(target), given, **options)


@pytest.fixture(scope="session")
def chain(once, tiny_model, tmp_path_factory):
    """The four notebooks executed by papermill, one after another, from a foreign folder."""

    def make(run_dir):
        values = {
            "run_dir": str(run_dir),
            "base_model": str(tiny_model),
            "max_pairs": 300,
            "test_share": 0.3,
            "max_length": 64,
            "learning_rate": 1e-3,
            "snapshots": 3,
        }
        out = run_dir / "notebooks"
        out.mkdir(parents=True)
        for source in sorted((ROOT / "notebooks").glob("0[1-4]*.ipynb")):
            run_notebook(source, out / source.name, tmp_path_factory.getbasetemp(), **values)

    return once("chain", make)


@pytest.fixture(scope="module")
def browser():
    """Chromium, headless; without it a test is skipped, but fails where NEED_BROWSER is set.

    It is closed with its module: an open one keeps the event loop, and papermill needs its own.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None or importlib.util.find_spec("playwright") is None:
        (pytest.fail if os.environ.get("NEED_BROWSER") else pytest.skip)(
            "no Chromium, or no playwright to drive it"
        )
    from playwright.sync_api import sync_playwright

    options = ["--no-sandbox", "--disable-background-networking"]
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=options)


def processes_of(title):
    """The processes of this machine in whose command line a title occurs."""
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if title in " ".join(one.info["cmdline"] or [])
    ]


@pytest.fixture(scope="session")
def running_cluster():
    """A Ray cluster of two cores that asks for a token: its address, and the variables for it."""
    pytest.importorskip("ray", reason="the extra cluster is not installed")
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    place = Path(tempfile.mkdtemp(prefix="ray-"))  # short, for its sockets have names in there
    ray = Path(sys.executable).with_name("ray")
    options = "--block --port=0 --num-cpus=2 --include-dashboard=false --disable-usage-stats"
    found = None
    for _ in range(3):  # Ray gives up if the machine is too busy
        with (place / "log").open("w") as log:
            process = subprocess.Popen(
                [ray, "start", "--head", *options.split(), f"--temp-dir={place}"],
                env=os.environ | secret,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not found and process.poll() is None:
            time.sleep(0.1)
            found = re.search(r"--address='(\S+)'", (place / "log").read_text())
        if found:
            break
    assert found, (place / "log").read_text()
    yield found[1], secret
    family = psutil.Process(process.pid).children(recursive=True)
    for one in (process, *family):  # at SIGTERM it would wait half a minute for its workers
        one.kill()
    process.wait()
    assert not psutil.wait_procs(family, timeout=20)[1]
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def cluster(running_cluster, monkeypatch):
    """The address of the running cluster, whose token the environment has."""
    address, secret = running_cluster
    for name, value in secret.items():
        monkeypatch.setenv(name, value)
    return address


@pytest.fixture
def write_jsonl(tmp_path):
    """Write rows as JSONL and return the path."""

    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        lines = [
            row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write
