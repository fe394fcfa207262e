"""Kernels are ready when their notebook's turn comes, and end with it, whatever happens."""

import asyncio
import gc
import os
import re
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
import psutil
import pytest
from jupyter_core.utils import ensure_event_loop

from workbench.batch import kernels
from workbench.batch.execute import execute
from workbench.batch.kernels import Kernels, notebook
from workbench.run_folder import NOTEBOOKS

DECLARED = nbformat.v4.new_code_cell('run_dir: str = ""', metadata={"tags": ["parameters"]})


def write(path, source, loads):
    cells = [DECLARED, nbformat.v4.new_code_cell(source)]
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    metadata = {"kernelspec": kernel, "workbench": {"loads": loads}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), path)


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    """Notebooks `01` to `04` that check that their kernel was ready, and is a kernel's own."""
    for number in NOTEBOOKS:
        ready = "import sys; assert 'colorsys' in sys.modules and 'colorsys' not in globals()"
        write(tmp_path / f"{number}.ipynb", ready, "colorsys")
    monkeypatch.setattr(kernels, "notebook", lambda number: tmp_path / f"{number}.ipynb")
    monkeypatch.setattr(kernels, "core_count", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return tmp_path


def running():
    return {one.pid for one in psutil.Process().children() if "ipykernel" in str(one.cmdline())}


def test_the_next_kernels_start_meanwhile_and_all_end(notebooks):
    with Kernels(["01", "02", "04"]) as several:
        for number, count in (("01", 3), ("02", 2), ("04", 1)):
            with several.take(number) as kernel:
                assert len(running()) == count
                execute(notebooks / f"{number}.ipynb", notebooks / "out.ipynb", {}, kernel)
            assert len(running()) == count - 1


def test_an_interrupt_ends_all(notebooks):
    def work():
        with Kernels(list(NOTEBOOKS)) as several, several.take("01"):
            assert len(running()) == 3
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert not running()


def test_nothing_goes_on_after_an_interrupt_or_complains_about_it(notebooks, caplog):
    async def cell():  # of papermill: that it is cancelled means to it that its kernel has died
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("the kernel died") from None

    def work():
        with Kernels(["01"]) as several, several.take("01"):
            loop.create_task(cell())
            loop.run_until_complete(asyncio.sleep(0))
            raise KeyboardInterrupt

    loop = ensure_event_loop()
    with pytest.raises(KeyboardInterrupt):
        work()
    assert not asyncio.all_tasks(loop)
    gc.collect()
    assert not caplog.text


def test_ctrl_c_while_a_kernel_is_loaded_is_not_for_the_kernel(notebooks, capfd):
    with Kernels(["01"]) as several, several.take("01") as kernel:
        (own,) = running()
        ignored = re.compile(r"SigIgn:\s*(\w+)")
        while not int(ignored.search(Path(f"/proc/{own}/status").read_text())[1], 16) & 2:
            time.sleep(0.001)
        assert "zmq" not in Path(f"/proc/{own}/maps").read_text()  # ipykernel has hardly begun
        os.kill(own, signal.SIGINT)
        execute(notebooks / "01.ipynb", notebooks / "out.ipynb", {}, kernel)
    assert capfd.readouterr().err == ""


def test_a_kernel_that_ended_while_it_waited_is_started_again(notebooks):
    with Kernels(["01", "02"]) as several:
        with several.take("01"):
            before = running()
        (lost,) = before & running()
        os.kill(lost, signal.SIGKILL)
        psutil.Process(lost).wait(timeout=10)
        with several.take("02") as kernel:
            execute(notebooks / "02.ipynb", notebooks / "out.ipynb", {}, kernel)


@pytest.mark.parametrize(("threads", "ahead"), [("2", 2), ("1", 0), ("2,1", 2), ("", 2)])
def test_where_others_are_at_work_none_starts_ahead(notebooks, monkeypatch, threads, ahead):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert Kernels(["01", "02", "03", "04"]).ahead == ahead
    monkeypatch.setattr(kernels, "core_count", lambda: 1)
    assert Kernels(["01", "02", "03", "04"]).ahead == 0


def test_a_broken_notebook_fails_in_its_own_turn(notebooks):
    (notebooks / "02.ipynb").write_text("{")
    (notebooks / "03.ipynb").unlink()
    with Kernels(["01", "02", "03"]) as several:
        with several.take("01") as kernel:
            execute(notebooks / "01.ipynb", notebooks / "out.ipynb", {}, kernel)
        with several.take("02") as kernel, pytest.raises(Exception, match="JSON"):
            execute(notebooks / "02.ipynb", notebooks / "out.ipynb", {}, kernel)
        with pytest.raises(FileNotFoundError):
            several.take("03")


def test_what_the_notebooks_have_loaded_ahead_is_there():
    named = {}
    for number in NOTEBOOKS:
        found = nbformat.read(notebook(number), as_version=4).metadata
        named[number] = found.get("workbench", {}).get("loads", "")
    assert all(find_spec(module) for module in named.values() if module)
    assert {"02", "04"} <= {number for number, module in named.items() if module}
