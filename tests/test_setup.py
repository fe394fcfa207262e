"""The files that install and check the project agree with one another."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import workbench
from workbench.batch.plan import read_plan
from workbench.cli import cli
from workbench.runs.parameters import Parameters
from workbench.training.recipe import LOSSES

ROOT = Path(__file__).resolve().parent.parent
CUDA_ONLY = re.compile(r"nvidia|cuda|triton")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def lock_entries(text):
    """Return (requirement, hashes) for each entry of a lock file's text."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = "\n".join(lines).replace("\\\n", " ")
    entries = []
    for entry in filter(str.strip, joined.splitlines()):
        requirement, *hashes = re.split(r"\s--hash=", entry)
        entries.append((Requirement(requirement.strip()), [text.strip() for text in hashes]))
    return entries


def exact_version(requirement):
    """Return the version of a plain `name==version`; None for any other range."""
    pins = re.findall(r"^==([^*,]+)$", str(requirement.specifier))
    return pins[0] if pins else None


def by_name(requirements):
    return {canonicalize_name(r.name): r for r in map(Requirement, requirements)}


PYPROJECT = tomllib.loads(read("pyproject.toml"))
PROJECT = PYPROJECT["project"]
LOCK = lock_entries(read("requirements.lock"))
LOCKED = {canonicalize_name(r.name): exact_version(r) for r, _ in LOCK}
DIRECT = by_name(PROJECT["dependencies"])
DECLARED = {
    **DIRECT,
    **by_name(PROJECT["optional-dependencies"]["dev"]),
    **by_name(PYPROJECT["build-system"]["requires"]),
}
CONDA = yaml.safe_load(read("environment.yml"))
[CONDA_PIP] = [entry["pip"] for entry in CONDA["dependencies"] if isinstance(entry, dict)]
CONDA_PINS = by_name(line for line in CONDA_PIP if not line.startswith("-"))


class TestLock:
    def test_reader_sees_a_range_and_a_missing_hash(self):
        text = "# made by x\na==1.0 ; os_name == 'nt' \\\n    --hash=sha256:12\n    # via b\nc>=2\n"
        (a, a_hashes), (c, c_hashes) = lock_entries(text)
        assert (exact_version(a), a_hashes) == ("1.0", ["sha256:12"])
        assert (exact_version(c), c_hashes) == (None, [])

    def test_holds_the_whole_tree_as_exact_pins_with_hashes_from_no_stated_place(self):
        assert 2 * len(DECLARED) < len(LOCKED) == len(LOCK)
        assert [str(r) for r, found in LOCK if not exact_version(r) or r.url or not found] == []
        hashes = [one for _, found in LOCK for one in found]
        assert [one for one in hashes if not re.fullmatch("sha256:[0-9a-f]{64}", one)] == []
        assert not re.search(r"://|--(?!hash=)|(?m:^\s*-[a-z])|file:", read("requirements.lock"))

    def test_torch_is_pinned_for_every_platform_and_brings_its_cuda(self):
        [(torch, hashes)] = [entry for entry in LOCK if entry[0].name == "torch"]
        assert str(torch) == "torch==2.13.0"
        [cpu] = re.findall(r"TORCH_CPU_SHA256 := (\w+)", read("Makefile"))
        assert f"sha256:{cpu}" in hashes
        assert len(hashes) > 1
        assert not [name for name in LOCKED if CUDA_ONLY.search(name)]

    def test_covers_what_the_project_declares(self):
        assert DECLARED.keys() <= LOCKED.keys()
        for name, requirement in DECLARED.items():
            assert requirement.specifier.contains(LOCKED[name], prereleases=True), name


class TestConda:
    def test_has_the_direct_dependencies_at_the_locked_versions(self):
        pins = {name: exact_version(pin) for name, pin in CONDA_PINS.items()}
        assert pins == {name: LOCKED[name] for name in DIRECT}

    def test_installs_the_project_itself_on_a_python_that_it_takes(self):
        assert [line for line in CONDA_PIP if line.startswith("-")] == ["-e ."]
        [python] = [e for e in CONDA["dependencies"] if str(e).startswith("python=")]
        assert SpecifierSet(PROJECT["requires-python"]).contains(python.partition("=")[2])
        assert CONDA["channels"] == ["conda-forge"]
        assert "pip" in CONDA["dependencies"]


def make(*arguments, **variables):
    """Run make as from a shell of its own, even when these tests run under make."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", *arguments],
        cwd=ROOT,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


class TestMakefile:
    @pytest.mark.parametrize("target", ["run", "test", "lab", "check", "fix", "lock", "clean"])
    def test_has_target_and_help_names_it(self, target):
        done = make("-n", target)
        assert done.returncode == 0, done.stderr
        assert "Nothing to be done" not in done.stdout
        assert f"make {target} " in make("help").stdout

    def test_run_starts_the_quickstart_that_exists(self):
        words = make("-n", "run").stdout.split()
        assert words.count(".venv/bin/workbench") == 2
        assert words[-5:-2] == [".venv/bin/python", "-m", "workbench.batch.execute"]
        assert "Some two minutes on two cores" in " ".join(words)
        files = [word for word in words if word.endswith(".yaml")]
        assert [Path(file).stem for file in files] == ["quickstart", "quickstart_repaired"]
        assert all((ROOT / file).is_file() for file in files)

    def test_every_file_and_module_it_names_exists(self):
        files = re.findall(r"(?:tests|docs|notebooks)/[\w/]+\.(?:py|yaml|ipynb)", read("Makefile"))
        modules = re.findall(r"-m ((?:tests|workbench)[\w.]+)", read("Makefile"))
        files += [f"{module.replace('.', '/')}.py" for module in modules]
        assert len(files) > 8
        assert [file for file in files if not (ROOT / file).is_file()] == []

    def test_only_the_tests_are_offline(self):
        assert "export HF_HUB_OFFLINE=1" in make("-n", "test").stdout
        assert read("Makefile").count("HF_HUB_OFFLINE") == 1

    def test_old_python_is_refused_in_words(self, tmp_path):
        old = tmp_path / "python"
        old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit\nexit 1\n')
        old.chmod(0o755)
        (tmp_path / "Makefile").write_text(read("Makefile"))
        for name in ("requirements.lock", "pyproject.toml"):
            (tmp_path / name).touch()
        done = make("-C", str(tmp_path), "run", f"PYTHON={old}")
        assert done.returncode != 0
        assert "Python 3.11 or newer is needed" in done.stderr
        assert "Python 3.9.1" in done.stderr
        assert not (tmp_path / ".venv").exists()

    @pytest.fixture
    def check(self, tmp_path):
        """Run `make check` where every tool is content, but for the real nbstripout."""
        (tmp_path / "Makefile").write_text(read("Makefile"))
        for name in ("requirements.lock", "pyproject.toml"):
            (tmp_path / name).touch()
        tools = tmp_path / ".venv" / "bin"
        tools.mkdir(parents=True)
        commands = dict.fromkeys(("python", "ruff", "mypy", "lint-imports", "codespell"), "true")
        commands["nbstripout"] = f'{sys.executable} -m nbstripout "$@"'
        for name, command in commands.items():
            (tools / name).write_text(f"#!/bin/sh\n{command}\n")
            (tools / name).chmod(0o755)
        (tmp_path / ".venv" / ".installed").touch()

        def check(notebooks, broken_tool=None):
            for name, cells in notebooks.items():
                file = tmp_path / "notebooks" / name
                file.parent.mkdir(parents=True, exist_ok=True)
                nbformat.write(nbformat.v4.new_notebook(cells=cells), file)
            if broken_tool:
                (tools / broken_tool).write_text("#!/bin/sh\nexit 1\n")
            return make("-C", str(tmp_path), "check")

        return check

    STRIPPED = nbformat.v4.new_code_cell("1 + 1", id="0")
    EXECUTED = nbformat.v4.new_code_cell(
        "print(2)", id="0", execution_count=1, outputs=[nbformat.v4.new_output("stream", text="2")]
    )

    def test_check_takes_stripped_notebooks_alone_and_at_least_one(self, check):
        assert "no notebooks found" in check({}).stderr
        done = check({"01.ipynb": [self.STRIPPED], "exercises/01.ipynb": [self.STRIPPED]})
        assert done.returncode == 0, done.stderr
        done = check({"exercises/deep/01.ipynb": [self.EXECUTED]})
        assert done.returncode != 0
        assert "notebooks/exercises/deep/01.ipynb" in done.stdout + done.stderr

    @pytest.mark.parametrize("tool", ["ruff", "mypy", "lint-imports", "codespell"])
    def test_check_fails_when_a_tool_does(self, check, tool):
        assert check({"01.ipynb": [self.STRIPPED]}, broken_tool=tool).returncode != 0


class TestContinuousIntegration:
    SCRIPT = ROOT / ".ci" / "run"

    @pytest.fixture
    def run(self, tmp_path):
        """Run .ci/run with a make that notes its calls and fails for one target."""
        calls = tmp_path / "calls"
        fake = tmp_path / "make"
        fake.write_text(f'#!/bin/sh\necho "$PWD $*" >> {calls}\n[ "$*" != "$FAILS" ]\n')
        fake.chmod(0o755)

        def run(fails=""):
            path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", self.SCRIPT],
                cwd=tmp_path,
                env={**os.environ, "PATH": path, "FAILS": fails},
                timeout=60,
            )
            return done.returncode, calls.read_text().splitlines()

        return run

    TARGETS = (".venv/.installed", "test", "check")

    def test_installs_then_tests_and_checks_from_the_root(self, run):
        assert self.SCRIPT.stat().st_mode & stat.S_IXUSR
        code, (first, *rest) = run()
        assert (code, first) == (0, f"{ROOT} {self.TARGETS[0]}")
        assert sorted(rest) == sorted(f"{ROOT} {name}" for name in self.TARGETS[1:])

    @pytest.mark.parametrize("target", TARGETS)
    def test_fails_when_one_fails(self, run, target):
        assert run(fails=target)[0] != 0


DOCUMENTS = ["README.md", "SECURITY.md", "CONTRIBUTING.md"]
DOCUMENTS += [f"docs/{name}.md" for name in ("choosing", "decisions", "measurements")]


class TestDocuments:
    @pytest.mark.parametrize("name", DOCUMENTS)
    def test_what_a_document_tells_to_type_exists(self, name):
        text = read(name)
        links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
        assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []
        files = re.findall(r"notebooks/[\w/]+\.(?:yaml|ipynb|md)", text)
        assert [file for file in files if not (ROOT / file).exists()] == []
        assert set(re.findall(r"-p (\w+)", text)) <= {*Parameters.model_fields, "key"}
        commands = set(re.findall(r"(?:`|bin/|^)workbench ([a-z]+)", text, re.M))
        assert commands <= cli.commands.keys()
        for target in set(re.findall(r"`make (\w+)|^make (\w+)", text, re.M)):
            assert f"make {''.join(target)} " in make("help").stdout

    def test_the_page_on_choosing_has_every_loss(self):
        rows = re.findall(r"^\| `(\w+)` \|", read("docs/choosing.md"), re.M)
        assert sorted(rows) == sorted(LOSSES)

    def test_the_sweep_of_losses_has_each_once_but_for_the_cached_one(self):
        plan = read_plan(ROOT / "notebooks/sweeps/losses.yaml")
        found = [run.parameters.loss for run in plan.runs]
        assert sorted(found) == sorted(3 * [name for name in LOSSES if name != "cached_mnrl"])


def test_package_has_the_version_of_the_project():
    assert workbench.__version__ == PROJECT["version"]
