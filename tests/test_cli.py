"""The command line itself: help for a newcomer, hints, and outputs that take nothing."""

import io
import os
import sys

import click
import pytest

from workbench.cli import cli, main
from workbench.files import FailedError, write_json, write_text
from workbench.runs.parameters import Parameters


def commands(group=cli, path=()):
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


@pytest.mark.parametrize(("words", "command"), [((), cli), *commands()], ids=str)
def test_help_explains_the_command_and_every_option(words, command, capsys):
    assert main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert "\\b" not in out
    assert (command.help or "").split("\n")[0].endswith(".")
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert option.help.endswith((".", "(1).", "(auto)."))
            assert option.opts[0] in out


def test_every_parameter_is_listed_with_its_default(capsys):
    assert main(["parameters"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(Parameters.model_fields)
    assert main(["parameters", "learning_rate"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split(maxsplit=2) == ["learning_rate", "5e-05", "the highest; falls linearly to 0"]


HINTS = {
    "-p epochs=3": "A parameter is two words, its name and its value, such as: -p epochs 2",
    "-p epochs": "A parameter is two words",
    "-p epochs=3 --resume": "write 'epochs=3' as two words: epochs 3",
    "--epochs 3": "write: -p epochs VALUE",
    "--max-pairs 3": "write: -p max_pairs VALUE",
    "-x.yaml": "write: ./-x.yaml",
    f"-{'y' * 300}": "No such option",
}


@pytest.mark.parametrize("asked", HINTS)
def test_a_mistake_of_form_gets_a_hint(asked, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.yaml").touch()
    assert main(["run", *asked.split()]) == 2
    assert HINTS[asked] in capsys.readouterr().err


def test_a_model_keeps_its_name_unless_it_is_a_path_from_here(tmp_path, monkeypatch, capsys):
    asked = []

    def score(request, *_):
        asked.append(request.model)
        raise FailedError("enough")

    monkeypatch.setattr("workbench.scoring.score_file.score_file", score)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    names = ["bundled:x", "owner/name", "runs/none", "mine"]
    assert [main(["score", name, "in.csv", "out"]) for name in names] == [1] * 4
    assert asked == [*names[:3], str(tmp_path / "mine")]
    assert main(["parameters", "nothing like it"]) == 2
    assert "no parameter has 'nothing like it' in its name" in capsys.readouterr().err


@pytest.fixture
def run(tmp_path):
    run = tmp_path / "runs/跑"
    write_text(run / "model/README.md", "---\nlicense: mit\n---\n# 跑\n")
    write_json(run / "model/lineage.json", {"stages": [{}]})
    write_text(run / "parameters.yaml", "seed: 1\n")
    write_json(run / "status.json", {"state": "failed", "error": "坏了", "notebooks": {}})
    return run


ASKED = {
    "bases": ["bases"],
    "parameters": ["parameters"],
    "runs": ["runs", "--runs-dir", "{runs}"],
    "runs --csv": ["runs", "--csv", "--runs-dir", "{runs}"],
    "runs --json": ["runs", "--json", "--runs-dir", "{runs}"],
    "runs rm": ["runs", "rm", "跑", "--yes", "--runs-dir", "{runs}"],
    "publish": ["publish", "{run}", "me/mine", "--dry-run", "--anyway"],
    "preflight": ["preflight", "-p", "base_model", "{model}", "--runs-dir", "{runs}"],
}


@pytest.mark.parametrize("name", ASKED)
def test_an_output_that_is_full_or_narrow_ends_in_plain_words(
    name, run, tiny_model, capsys, monkeypatch
):
    places = {"runs": run.parent, "run": run, "model": tiny_model}
    asked = [word.format(**places) for word in ASKED[name]]
    if name != "runs rm":
        narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", narrow)
        assert main(asked) == 0
        narrow.flush()
        assert narrow.buffer.getvalue()
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(asked) == 1
    assert "the output cannot be written (No space left" in capsys.readouterr().err


def test_without_an_input_or_a_working_directory_a_command_says_so(
    run, capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["runs", "rm", "跑", "--runs-dir", str(run.parent)]) == 2
    assert "nobody is there to ask" in capsys.readouterr().err
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for asked in (["runs"], ["preflight"], ["score", "a", "b", "c"]):
        assert main(asked) == 2
        assert "the working directory was removed" in capsys.readouterr().err


def test_an_output_that_nobody_reads_ends_in_peace(run, capsys, monkeypatch):
    """As with `| head`, and again where somebody does."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        for output in (nobody, io.StringIO()):
            monkeypatch.setattr(sys, "stdout", output)
            assert main(["runs", "--runs-dir", str(run.parent)]) == 0
    assert capsys.readouterr().err == ""
    assert "跑" in output.getvalue()
