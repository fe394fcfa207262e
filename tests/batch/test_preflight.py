"""What can go wrong with a request: each row is refused before anything starts, and harms nothing.

Every case asserts the message, the exit code, and that the folder of runs, with a finished run in
it, and the inputs are byte for byte what they were. `tests/batch/test_execute.py` has the faults
that strike while a run is under way.
"""

import ctypes
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.benchmarks.tiny import write_tiny_kind
from workbench.batch.preflight import any_problem, estimate, preflight
from workbench.cli import main
from workbench.data.build_lists import build_test
from workbench.data.pairs import prepare_data, read_split
from workbench.files import write_json, write_text
from workbench.models import BUNDLED_MODEL, find_model
from workbench.runs.parameters import Parameters, check_parameters
from workbench.training.recipe import LOSSES
from workbench.training.stages import Training
from workbench.vocabulary.dictionary import read_dictionary

HEADER = "sentence_0,sentence_1,label\n"
PAIRS = "".join(f"怎么开通{n},如何办理{n},{n % 2}\n" for n in range(60))


def snapshot(folder):
    """Every file and link under a folder, with its bytes; locks are no content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path)
        elif path.is_file() and path.name != ".lock":
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture
def place(tmp_path, tiny_model):
    """A folder with a sound request, its pairs, and a run that is done."""
    (tmp_path / "pairs.csv").write_text(HEADER + PAIRS, encoding="utf-8")
    values = {
        "base_model": str(tiny_model),
        "pairs": str(tmp_path / "pairs.csv"),
        "max_length": 64,
        "test_share": 0.4,
    }
    (tmp_path / "ok.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    run = tmp_path / "runs" / "precious"
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.safetensors").write_bytes(b"weights")
    write_text(run / "parameters.yaml", yaml.safe_dump({"seed": 7}))
    write_json(run / "status.json", {"schema": 1, "state": "done", "notebooks": {}})
    return tmp_path


def ask(place, *arguments, command="run"):
    """The exit code of a command on the folder's runs."""
    return main([command, *map(str, arguments), "--runs-dir", str(place / "runs")])


def look(place, *arguments):
    """The exit code of a preflight of the sound request, with these changes to it."""
    return ask(place, place / "ok.yaml", *arguments, command="preflight")


@pytest.fixture
def refused(place, capsys):
    """Ask for a run that is refused, harms nothing, and says why; what it says."""

    def refuse(message, *changes, file="ok.yaml"):
        before = snapshot(place)
        assert ask(place, place / file, *changes) == 2
        error = capsys.readouterr().err
        assert message in error
        assert snapshot(place) == before
        return error

    return refuse


def pairs_file(place, content, name="bad.csv"):
    path = place / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def table(rows):
    return HEADER + "".join(f"{a},{b},{label}\n" for a, b, label in rows)


# name: (content of the file, what is said, its name)
FILES = {
    "empty file": ("", "there is no line with the names of the columns"),
    "only a header": (HEADER, "there is no row in it -> give a file with pairs"),
    "an arrow in a label": (HEADER + "a,b,no -> yes\n", "'no -> yes' -> name the value of each"),
    "JSON lines": (b"{}", "without brackets or commas around them, and call it .jsonl", "a.ndjson"),
    "UTF-16": ((HEADER + PAIRS).encode("utf-16"), "the file is UTF-16; convert it first"),
    "GB18030": ((HEADER + PAIRS).encode("gb18030"), "the bytes are not UTF-8 text"),
    "NUL bytes": (HEADER + "a\0b,c,1\n", "the text holds a NUL character"),
    "nothing but zero bytes": (b"\0" * 4096, "there is no column 'sentence_0'"),
    "quotes never closed": (HEADER + 'a,b,1\n"c,d,0\ne,f,1\n', "is opened and never closed"),
    "column missing": ("sentence_0,label\na,1\n", "there is no column 'sentence_1'"),
    "column twice": ("sentence_0,sentence_0,sentence_1,label\na,b,c,1\n", "occurs twice"),
    "column renamed": ("sentence_0,sentence_one,label\na,b,1\n", "did you mean 'sentence_one'?"),
    "separator is a semicolon": ("sentence_0;sentence_1;label\na;b;1\n", "there is no column"),
    "labels yes and no": (table([("a", "b", "yes"), ("c", "d", "no")]), "neither a number nor"),
    "label 2": (table([("a", "b", "2"), ("c", "d", "2")]), "the label is outside [0, 1]"),
    "label NaN": (table([("a", "b", "NaN")]), "the label is NaN"),
    "label infinite": (table([("a", "b", "inf")]), "the label is outside [0, 1]"),
    "label empty": (table([("a", "b", "")]), "the label is empty"),
    "texts empty": (table([(" ", "b", "1"), ("\u3000", "c", "0")]), "the text is empty"),
    "one pair": (table([("a", "b", "1")]), "is a positive, so no list can be built"),
    "one class only": (
        table([(f"a{n}", f"b{n}", 0) for n in range(60)]),
        "no list can be built",
    ),
    "one group": (table([("一", f"答{n}", n % 2) for n in range(40)]), "no list can be built"),
    "all duplicates": (
        table([("a", "b", "1")] * 50),
        "an earlier line has the same pair with the same label",
    ),
    "every row ragged": (HEADER + "a,b\nc,d,1,2\n", "more or fewer fields than the header"),
    "lone surrogates": (HEADER.encode() + b"\xed\xa0\x80,b,1\n", "not UTF-8 text"),
    "JSONL of no objects": (b'["a"]\n"b"\n', "the line is not a JSON object", "bad.jsonl"),
    "JSONL in one array": (b'[{"sentence_0": "a"}]', "put one object on each line", "bad.jsonl"),
    "JSON": (b"[]", "put one object on each line, without brackets", "bad.json"),
    "decimal commas": (table([("a", "b", '"0,5"')]), "numbers have a decimal point"),
    "JSONL without a label": (b'{"sentence_0": "a", "sentence_1": "b"}\n', "lacks a", "bad.jsonl"),
    "Parquet by name alone": (b"PAR1 it is not", "not a Parquet file", "bad.parquet"),
    "gzip cut short": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03abc", "gzip", "bad.csv.gz"),
    "a format that is unknown": (b"PK", "the name must end in one of", "bad.xlsx"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_pairs_that_cannot_be_used(name, place, refused):
    content, message, *called = FILES[name]
    bad = pairs_file(place, content, *called)
    refused(message, "-p", "pairs", bad, "-p", "on_bad_rows", "fail")


SETTINGS = {
    "duplicate key": (
        "seed: 1\nepochs: 2\nseed: 2\n",
        "line 3, column 1",
        "'seed' stands on line 1",
    ),
    "anchors bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "line 1, column 4",
        "anchor or alias",
    ),
    "python tag": (
        "seed: !!python/object/apply:os.system [id]\n",
        "line 1, column 7",
        "not allowed",
    ),
    "unknown tag": ("seed: !env HOME\n", "line 1, column 7", "not allowed"),
    "merge key": ("<<: {seed: 1}\n", "line 1, column 1", "not allowed"),
    "wrong indentation": ("seed: 1\n  epochs: 2\n", "line 2, column 9", "not allowed here"),
    "a tab": ("seed: 1\nepochs:\t2\n\tseed: 1\n", "line 2, column 8", "cannot start any token"),
    "never closed": ("seed: [1, 2\n", "line 2, column 1", "expected ',' or ']'"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "line 2, column 1", "another document"),
    "a list": ("- seed\n", "", "must hold lines of `name: value`"),
    "a sweep": (
        "grid: {seed: [1]}\n",
        "",
        "grid: there is no such parameter; a file with it is for",
    ),
    "names that are numbers": ("1: 2\n", "line 1, column 1", "every name must be a word"),
    "nested too deep": ("a: " + "[" * 400 + "\n", "line 1, column", "inside one another"),
    "a number too long": ("seed: " + "9" * 5000 + "\n", "", "integer string conversion"),
    "control character": ("seed: \x01\n", "line 1", "the character '\\x01' is not allowed"),
    "not UTF-8": ("query: 怎么\n".encode("gb18030"), "line 1", "not UTF-8"),
    "UTF-16": ("seed: 1\n".encode("utf-16"), "", "the file is UTF-16"),
    "much too large": ("# " + "x" * 1_100_000, "", "more than 1,000,000 bytes"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_file_of_parameters_that_cannot_be_used(name, place, refused):
    content, where, message = SETTINGS[name]
    pairs_file(place, content, "bad.yaml")
    error = refused(message, file="bad.yaml")
    assert "bad.yaml" in error or name == "a sweep"
    assert where in error


PARAMETERS = {
    "typo": (["learning_rat", "1"], "did you mean 'learning_rate'?"),
    "too small": (["batch_size", "0"], "should be greater than or equal to 1"),
    "none of a few words": (["precision", "half"], "'float32', 'bfloat16' or 'float16'"),
    "no candidates": (["candidates", "no/such.jsonl"], "there is no file 'no/such.jsonl'"),
    "no folder": (["base_model", "data/nonesuch"], "'data/nonesuch' is neither a folder"),
    "semicolon": (["pairs", "a.csv; rm -rf ."], "there is no file 'a.csv; rm -rf .'"),
    "command substitution": (["pairs", "$(touch owned)"], "there is no file '$(touch owned)'"),
    "back ticks": (["base_model", "`touch owned`"], "neither a folder"),
    "quotes": (["pairs", '"\'a\'""""'], "there is no file"),
    "line break": (["pairs", "a\nb"], "holds a line break"),
    "escape sequence": (["base_model", "\x1b[2J"], "another control character"),
    "Python in a number": (["epochs", "__import__('os')"], "should be a valid number"),
    "not a number": (["learning_rate", "nan"], "learning_rate: input should be less than"),
    "infinite": (["epochs", "inf"], "epochs: input should be less than or equal to 1000"),
    "far too large": (["seed", "9" * 5000], "seed: unable to parse"),
    "a path that climbs": (["pairs", "../../../../etc/passwd"], "the name must end in one of"),
    "a folder as file": (["pairs", "/"], "there is no 'qrels' in it"),
    "a device as file": (["pairs", "/dev/zero"], "there is no file '/dev/zero'"),
    "shares": (["dev_share", "0.7"], "together they must stay below 1"),
    "no such bundle": (["base_model", "bundled:none"], "the only bundled model"),
    "stages": (["stages", "1,x"], "stages: "),
    "stages in other digits": (["stages", "٣"], "stages: "),
    "the test again": (["pairs", "few.csv", "-p", "test_pairs", "few.csv"], "every pair has a"),
    "a run that is none": (["compare_runs", "runs/none"], "'runs/none' is no run with a training"),
    "two of one name": (["zero_shot", f"{BUNDLED_MODEL},{BUNDLED_MODEL}"], "two scorers would be"),
    "what is not exported": (["backend", "onnx"], "backend: onnx runs what was exported"),
    "no data set": (["pairs", "hub: "], "pairs: 'hub: ' names no data set"),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_parameter_that_cannot_be_meant(name, place, refused, monkeypatch):
    monkeypatch.chdir(place)
    pairs_file(place, table([("a", "b", 1), ("c", "d", 0), ("e", "f", 1)]), "few.csv")
    override, message = PARAMETERS[name]
    refused(message, "-p", *override)


def a_pickle(folder):
    import pickle

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder.parent / "pickle-was-loaded"),)

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def reshape(folder, name, shape):
    import numpy as np
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights[name] = np.zeros(shape, np.float32)
    save_file(weights, folder / "model.safetensors")


def cut_short(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def another_tokenizer(folder):
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    state["model"]["vocab"]["far"] = 99_999
    (folder / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")


EMBEDDINGS = "bert.embeddings.word_embeddings.weight"
MODELS = {
    "without weights": (lambda model: (model / "model.safetensors").unlink(), "no weights"),
    "with a pickle": (a_pickle, "pytorch_model.bin is damaged, or holds more than weights"),
    "with two labels": (
        lambda model: reshape(model, "classifier.weight", (2, 16)),
        "it has 2 labels",
    ),
    "of the wrong shape": (
        lambda model: reshape(model, EMBEDDINGS, (7, 16)),
        "weights and config belong to different models",
    ),
    "cut short": (cut_short, "damaged or cut short"),
    "with a broken config": (
        lambda model: (model / "config.json").write_text("{"),
        "config.json is damaged",
    ),
    "with another tokenizer": (another_tokenizer, "this vocabulary belongs to another model"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_folder_that_cannot_be_used(name, place, tiny_model, refused):
    damage, message = MODELS[name]
    shutil.copytree(tiny_model, place / "model")
    damage(place / "model")
    refused(message, "-p", "base_model", place / "model")


def test_ranking_again_by_a_model_that_is_damaged(place, tiny_model, refused):
    done_already(place)
    shutil.copytree(tiny_model, place / "runs/x/model", dirs_exist_ok=True)
    cut_short(place / "runs/x/model")
    error = refused("damaged or cut short", "--name", "x", "--only", "04")
    assert "model: " in error


def link_as_run(place):
    (place / "elsewhere").mkdir()
    (place / "runs/x").symlink_to(place / "elsewhere")


def link_in_run(place):
    done_already(place)
    (place / "elsewhere").mkdir()
    (place / "runs/x/data").symlink_to(place / "elsewhere")


def from_the_future(place):
    done_already(place)
    write_json(place / "runs/x/status.json", {"schema": 9, "state": "done", "notebooks": {}})


def damaged_status(place):
    done_already(place)
    (place / "runs/x/status.json").write_text("{")


def done_already(place):
    shutil.copytree(place / "runs/precious", place / "runs/x")


FOLDERS = {
    "is a link": (link_as_run, [], "is a link that leads out"),
    "holds a link that leads out": (link_in_run, ["--only", "03"], "leads out of its folder"),
    "comes from the future": (from_the_future, ["--only", "03"], "written by a newer workbench"),
    "has a damaged status": (damaged_status, ["--only", "03"], "is damaged"),
    "holds other files": (
        lambda place: write_text(place / "runs/x/thesis.txt", "years of work"),
        [],
        "is not empty, but has no parameters.yaml",
    ),
    "is a file": (lambda place: write_text(place / "runs/x", "no folder"), [], "is a file"),
    "is there already": (done_already, [], "choose another --name"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_run_folder_that_must_not_be_written_into(name, place, refused):
    make, options, message = FOLDERS[name]
    make(place)
    refused(message, "--name", "x", *options)


NAMES = [" ", "x ", "../up", "a/b", ".hidden", "-p", "a\nb", "a,b", "x" * 300, "a\x1b[2J"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_run_can_have(name, refused):
    refused("--name", f"--name={name}")


OPTIONS = {
    "--only 07 --name x": "--only 07",
    "--resume": "say which run",
    "--resume --name none": "cannot be resumed",
}


@pytest.mark.parametrize("options", OPTIONS)
def test_options_that_cannot_be_carried_out(options, refused):
    refused(OPTIONS[options], *options.split())


def test_a_name_may_have_spaces_chinese_and_signs_that_a_shell_would_mind(place, capsys):
    (place / "我的 数据").mkdir()
    file = shutil.copy(place / "pairs.csv", place / "我的 数据/pairs.csv")
    assert look(place, "--name", "跑 $(1); '2'", "-p", "pairs", file) == 0, capsys.readouterr().err


SOUND = {
    "BOM": ("\ufeff" + HEADER + PAIRS),
    "line ends of Windows": (HEADER + PAIRS).replace("\n", "\r\n"),
    "emoji": HEADER + PAIRS + "👨‍👩‍👧‍👦🏳️‍🌈,😀😀,1\n",
    "right to left": HEADER + PAIRS + "שלום עולם,مرحبا بالعالم,1\n",
    "zero width": HEADER + PAIRS + "a\u200bb\u2060,\u200d怎\u200b么,1\n",
    "longer than the limit": HEADER + PAIRS + "长" * 5000 + ",短,0\n",
    "a line of one megabyte": HEADER + PAIRS + "a" * 1_000_000 + ",b,0\n",
    "formulas and HTML": HEADER + PAIRS + "=cmd|'/C calc'!A0,<script>alert(1)</script>,1\n",
}


@pytest.mark.parametrize("name", SOUND)
def test_texts_that_are_odd_but_sound_are_no_problem(name, place, capsys):
    file = pairs_file(place, SOUND[name])
    before = snapshot(place)
    code = look(place, "-p", "pairs", file)
    out = capsys.readouterr()
    assert code == 0, out.err
    rows = 60 if name in ("BOM", "line ends of Windows") else 61
    assert f"all {rows} rows" in out.out
    assert snapshot(place) == before


def test_everything_is_told_at_once(place, capsys):
    bad = pairs_file(place, '{"query": "q"}\n', "lists.jsonl")
    given = {"epochs": "many", "seeed": 1, "pairs": "none.csv", "candidates": bad}
    given["base_model"] = "bundled:none"
    overrides = [word for name, value in given.items() for word in ("-p", name, value)]
    assert look(place, *overrides, "--name", "precious", "--only", "09") == 2
    out, error = capsys.readouterr()
    assert out == ""  # notes would be about values that were not asked for
    told = ("epochs:", "seeed:", "none.csv", "line 1, column positive: the row lacks", "bundled")
    assert [part for part in (*told, "--only 09") if part not in error] == []


def test_a_preflight_writes_nothing_and_says_what_the_run_will_take(place, capsys):
    before = snapshot(place)
    assert look(place) == 0
    out = capsys.readouterr().out
    assert "all 60 rows" in out
    assert "vocabulary: " in out
    assert "training pairs an epoch" in out
    assert snapshot(place) == before
    assert sorted(path.name for path in place.iterdir()) == ["ok.yaml", "pairs.csv", "runs"]


def test_every_backend_of_a_sweep_is_looked_at(place, capsys):
    """Runs that share inputs share what is found about them, but not about a run's own values."""
    write_tiny_kind(place / "other", "electra")
    plan = {"parameters": str(place / "ok.yaml"), "grid": {"backend": ["auto", "torch-float32"]}}
    (place / "sweep.yaml").write_text(yaml.safe_dump(plan), encoding="utf-8")
    base = "-p", "base_model", str(place / "other")
    assert ask(place, place / "sweep.yaml", *base, "--dry-run", command="sweep") == 2
    assert "backend: torch-float32 runs BERT alone -> take auto" in capsys.readouterr().err


@pytest.mark.parametrize("has", [True, False])
def test_a_preflight_warns_where_bfloat16_would_be_slow(place, capsys, monkeypatch, has):
    monkeypatch.setattr("workbench.batch.preflight.quick_in_bfloat16", lambda: has)
    assert look(place, "-p", "precision", "bfloat16") == 0
    assert ("bfloat16 is not faster" in capsys.readouterr().out) is not has


def test_a_preflight_of_the_bundled_base_loads_no_torch(place):
    code = (
        "import sys; from workbench.__main__ import main; "
        f"base = '-p', 'base_model', {BUNDLED_MODEL!r}; "
        f"code = main(['preflight', {str(place / 'ok.yaml')!r}, *base]); "
        "assert code == 0 and not {'torch', 'transformers', 'papermill'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_preflight_as_json(place, capsys):
    assert look(place, *["-p", "seeed", "1", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found[0]["level"] == "problem"
    assert "seeed" in found[0]["text"]


def test_a_full_disk_is_seen_before_the_run(refused, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    refused("make room")


PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # of <linux/prctl.h> and <linux/capability.h>
LIBC = ctypes.CDLL(None)


def bound_by_permissions():
    """Take from root what lets it write anywhere; of others the system refuses this, rightly."""
    if sys.platform == "linux":
        LIBC.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


def test_a_folder_that_is_read_only(place):
    """Each command refuses it, with a name and without; one process without root's rights."""
    write_text(place / "sweep.yaml", f"parameters: {place}/ok.yaml\nseeds: [1]\n")
    files = {"run": "ok.yaml", "sweep": "sweep.yaml", "preflight": "ok.yaml"}
    asked = [
        [command, str(place / file), "--runs-dir", str(place / "runs"), *name]
        for command, file in files.items()
        for name in ([], ["--name", "x"])
    ]
    before = snapshot(place)
    (place / "runs").chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", f"from workbench.cli import main; print(*map(main, {asked}))"],
        preexec_fn=bound_by_permissions,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    (place / "runs").chmod(0o755)
    assert done.stdout.splitlines()[-1].split() == ["2"] * len(asked), done.stderr
    assert done.stderr.count("runs cannot be written to (Permission denied)") == len(asked)
    assert [path.name for path in (place / "runs").iterdir()] == ["precious"]
    assert snapshot(place) == before


def test_a_hub_that_cannot_be_reached(place):
    """Nothing listens at port 9 of this machine; the real client finds that out by itself."""
    hub = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(place / "c")}
    asked = ["run", place / "ok.yaml", "--runs-dir", place / "runs"]
    asked += ["-p", "base_model", "nobody/nothing", "-p", "fallback_model", ""]
    before = snapshot(place)
    done = subprocess.run(
        [sys.executable, "-m", "workbench", *asked],
        env=os.environ | hub,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert "the Hub cannot be reached" in done.stderr
    shutil.rmtree(place / "c", ignore_errors=True)
    assert snapshot(place) == before


def test_a_parameter_file_that_is_a_link_into_nothing_or_a_pipe(place, refused):
    (place / "dangling.yaml").symlink_to(place / "gone.yaml")
    os.mkfifo(place / "pipe.yaml")
    refused("is a link to", file="dangling.yaml")
    refused("not a file", file="pipe.yaml")


def test_bad_rows_are_a_warning_where_they_are_only_to_be_reported(place, capsys):
    file = pairs_file(place, HEADER + PAIRS + "a,b,yes\n")
    assert look(place, "-p", "pairs", file) == 0
    out = capsys.readouterr().out
    assert "1 of all 61 rows" in out
    assert "line 62, column label" in out


def test_only_the_first_rows_of_a_large_file_are_read_and_this_is_said(place, capsys, monkeypatch):
    large = pairs_file(place, table((f"问{n}", f"答{n}", n % 2) for n in range(5000)))
    monkeypatch.setattr("workbench.batch.preflight.ROWS_READ", 500)
    assert look(place, "-p", "pairs", large) == 0
    out = capsys.readouterr().out
    (about,) = re.findall(r"the first 500 of about ([\d,]+) rows", out)
    (pairs,) = re.findall(r"about ([\d,]+) training pairs", out)
    assert 2500 < int(about.replace(",", "")) < 10_000
    assert int(pairs.replace(",", "")) > 1000


def test_the_estimate_counts_steps_and_bytes():
    def asked(**values):
        return estimate(Parameters(batch_size=10, **values), 800, 400, 10**8, 10**6)

    pairs, steps, kept, most = asked()
    assert (pairs, steps, kept) == (800, 80, 10**8 + 10**6 + 20_000_000)
    assert asked(symmetric=True, epochs=2)[:2] == (1200, 240)
    assert asked(stages="400,0")[1:3] == (40 + 80, kept + 10**8)
    assert asked(max_steps=7)[1] == 7
    assert asked(gradient_accumulation_steps=3)[1] == 27
    assert asked(checkpoint_steps=40)[3] == most + 2 * 3 * 10**8


def odd_request(number):
    """A small file and parameters, by seed; what is odd is left to chance."""
    rng = random.Random(number)
    size, queries = rng.choice([1, 2, 3, 5, 8, 14, 25]), rng.choice([1, 4, 1000])
    label = rng.choice([lambda: rng.randint(0, 1)] * 3 + [lambda: 1, lambda: 0, rng.random])
    text = rng.choice([lambda n: f"问{n}", lambda n: chr(0x4E00 + n), lambda n: f"怎么 {n % 7}"])
    rows = [(text(n % queries), text(100 + n), label()) for n in range(size)]
    loss = rng.choice([*LOSSES, "bce", "mse", "margin_mse"])
    asked = {"loss": loss, "test_share": rng.choice([0, 0.2, 0.5]), "max_steps": 1}
    asked |= {"dev_share": rng.choice([0, 0.2]), "hard_negatives": rng.choice([0, 0, 1])}
    asked |= {"symmetric": rng.random() < 0.3, "stages": rng.choice(["", "", "2,0"])}
    asked |= {"lexical_pairs": rng.choice([0, 0, 4]), "max_length": rng.choice([8, 64, 500])}
    asked |= {"batch_size": rng.choice([1, 3]), "gradient_accumulation_steps": rng.choice([1, 2])}
    if loss in ("mse", "margin_mse"):
        asked["teacher"] = rng.choice(["", "label", "ngram_regression", "bm25", "nobody"])
    return table(rows), asked


def start(folder, values):
    """What notebooks 1, 2 and 4 begin with, to the first step of every stage."""
    names = ("pairs", "columns", "dev_share", "test_share", "seed")
    prepare_data(folder, **{name: getattr(values, name) for name in names})
    build_test(read_split(folder, "test"), values.list_size, values.seed)
    training = Training(folder, find_model(values.base_model), values, values.stages)
    for stage in training.stages():
        model = stage.start_model()
        stage.run(stage.trainer(model))


NUMBERS = range(int(os.environ.get("FUZZ_EXAMPLES", "12")))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_preflight_says_ready_exactly_where_a_run_can_start(number, place, tiny_model):
    content, asked = odd_request(number)
    file = pairs_file(place, content)
    values = check_parameters(asked | {"pairs": str(file), "base_model": str(tiny_model)})
    found = preflight(values, place / "runs/x")
    try:
        start(place / "runs/x", values)
        said = ""
    except ValueError as error:
        said = str(error)
    problems = [str(one) for one in found if one.level == "problem"]
    assert bool(problems) == bool(said), (asked, content, problems, said)
    assert any_problem(found) == bool(problems)


def test_a_length_above_the_models_positions_is_said(place, capsys):
    asked = ["-p", "max_length", "500"]
    assert look(place, *asked) == 0
    assert "positions for 128 tokens, so pairs are cut there" in capsys.readouterr().out


def test_a_repair_that_is_asked_for_is_not_advised_and_an_impossible_one_is_refused(
    place, tiny_model, capsys, refused
):
    repair = ["-p", "vocabulary", "extend"]
    assert look(place, *repair) == 0
    told = capsys.readouterr().out
    assert "vocabulary: extend adds" in told
    assert "Train with" not in told
    shutil.copytree(tiny_model, place / "model")
    file = place / "model/tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    state["model"] = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    file.write_text(json.dumps(state), encoding="utf-8")
    wrong = "only a WordPiece vocabulary can be repaired"
    refused(wrong, "-p", "base_model", place / "model", *repair)
    refused("nowhere.tsv", *["-p", "vocabulary", "words", "-p", "dictionary", "nowhere.tsv"])


def test_the_words_are_those_of_the_dictionary_that_is_given(place, capsys, monkeypatch):
    """Also where the package with the usual one is not installed."""
    monkeypatch.setattr("workbench.vocabulary.dictionary.PACKAGE", "no_such_package")
    read_dictionary.cache_clear()
    asked = ["-p", "vocabulary", "words"]
    assert ask(place, place / "ok.yaml", *asked, command="preflight") == 2
    assert "give a file (dictionary: PATH)" in capsys.readouterr().err
    own = pairs_file(place, "办理\tto handle\n", "own.tsv")
    asked += ["-p", "dictionary", own]
    assert ask(place, place / "ok.yaml", *asked, command="preflight") == 0
    assert "vocabulary: words adds" in capsys.readouterr().out


@pytest.mark.parametrize("number", ["02", "03", "04"])
def test_a_notebook_alone_needs_what_it_reads(number, refused):
    refused(f"--only {number}: there is nothing to", "--only", number)


def test_a_path_is_looked_for_at_the_root_and_then_here(place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    asked = ["ok.yaml", "-p", "pairs", "pairs.csv", "--only", "01"]
    assert ask(place, *asked, command="preflight") == 0
    assert "all 60 rows" in capsys.readouterr().out


def test_a_file_of_the_wrong_kind_or_without_its_folder_is_recognised(place, capsys):
    assert main(["run", "quickstart.yaml"]) == 2
    assert "did you mean notebooks/parameters/quickstart.yaml?" in capsys.readouterr().err
    assert ask(place, place / "pairs.csv") == 2
    assert "give a file of pairs as -p pairs FILE" in capsys.readouterr().err


def test_untrained_bases_that_are_not_there_are_problems(refused):
    bases = "bundled:all-MiniLM-L6-v2, notebooks/none"
    error = refused("'notebooks/none' is neither a folder", "-p", "zero_shot", bases)
    assert error.count("zero_shot: ") == 1  # the other one is here
