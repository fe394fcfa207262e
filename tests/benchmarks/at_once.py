"""Whether runs of the same notebooks that start at the same moment get into each other's way.

    python -m tests.benchmarks.at_once [RUNS [ROUNDS]]

It starts RUNS (8) processes at once, each with four kernels one after another, in a project of tiny
notebooks, ROUNDS (5) times over, every time with new caches for matplotlib and IPython, so that all
want to fill them at once. It prints the seconds of each round and every failure; the exit code is 1
if there was any.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.batch.tiny_project import TinyProject
from tests.benchmarks.tiny import write_tiny_model


def main(count=8, rounds=5):
    folder = Path(tempfile.mkdtemp(prefix="once-"))
    model = write_tiny_model(folder / "tiny")
    project, failures = TinyProject(folder, model, draws=True), 0
    for turn in range(rounds):
        caches = folder / f"caches-{turn}"
        os.environ |= {"MPLCONFIGDIR": str(caches / "mpl"), "XDG_CACHE_HOME": str(caches / "xdg")}
        start = time.perf_counter()
        processes = [
            project.ask("run", project.request, "--name", f"t{turn}-{n}", "-p", "seed", n)
            for n in range(count)
        ]
        for number, process in enumerate(processes):
            _, error = process.communicate(timeout=1800)
            result = project.runs / f"t{turn}-{number}" / "result.txt"
            right = result.is_file() and result.read_text() == f"seed {number}"
            if process.returncode or not right:
                failures += 1
                print(f"round {turn}, run {number}: exit code {process.returncode}\n{error}")
        print(
            f"round {turn}: {count} runs at once in {time.perf_counter() - start:.0f} s", flush=True
        )
    print(f"{rounds * count} runs, {4 * rounds * count} kernels, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
