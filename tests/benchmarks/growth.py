"""How time and memory grow with the rows of a file; writes a JSON and draws a figure.

    python -m tests.benchmarks.growth [STEP ...] [--rows N,N,...] [--out FILE.json]

Each step with each size has a process of its own, which says the seconds of the step alone and its
highest memory, imports included; and the seconds of processor time, which a busy machine changes
less. The rows are made up, in a stream, in a temporary folder. `k` is the slope in the figure:
seconds grow as rows to the power k, fitted from 100,000 rows on, where what is done once no longer
counts.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.bench import RESULTS, made_up
from tests.benchmarks.bench import machine as this_machine
from tests.benchmarks.sides import highest
from workbench.files import display_path, project_root, write_json

STEPS = {
    "reading": "read_pairs",
    "stream": "Job.rows, one after another",
    "splitting": "split_pairs",
    "audit": "inspect_pairs",
    "scoring": "workbench score, tiny model",
}
MOST = {"audit": 1_000_000, "scoring": 1_000_000}  # rows; more would take hours
FITTED_FROM = 100_000


def reading(path, folder):
    from workbench.data.pairs import read_pairs

    return lambda: len(read_pairs(path).frame)


def stream(path, folder):
    from workbench.scoring.score_file import Job

    return lambda: sum(1 for _ in Job("", str(path)).rows())


def frame_of(path):
    import pandas as pd

    return pd.read_csv(path).dropna(ignore_index=True)


def splitting(path, folder):
    from workbench.data.splits import split_pairs

    frame = frame_of(path)
    return lambda: len(split_pairs(frame, 0.1, 0.1, 42)["train"])


def audit(path, folder):
    from workbench.models import BUNDLED_MODEL, find_model, load_tokenizer
    from workbench.vocabulary.inspection import inspect_pairs

    frame, tokenizer = frame_of(path), load_tokenizer(find_model(BUNDLED_MODEL))
    return lambda: inspect_pairs(frame, tokenizer)["labels"]["pairs"]


def scoring(path, folder):
    from tests.benchmarks.tiny import write_tiny_model
    from workbench.scoring.score_file import Job, score_file

    job = Job(str(write_tiny_model(folder / "model")), str(path), max_length=64)
    return lambda: score_file(job, folder / "out")["rows"]


def one(step, path):
    """What the process of one step says of itself."""
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        run = globals()[step](Path(path), Path(folder))
        before = highest()
        start, begun = time.perf_counter(), time.process_time()
        count = run()
        seconds, busy = time.perf_counter() - start, time.process_time() - begun
    print(
        json.dumps(
            {
                "seconds": seconds,
                "processor_seconds": busy,
                "most_bytes": highest(),
                "bytes_before": before,
                "result": count,
            }
        )
    )


def slope(points, value):
    """The exponent with which a value grows, from `FITTED_FROM` on; None for fewer than two."""
    kept = [point for point in points if point["rows"] >= FITTED_FROM]
    if len(kept) < 2:
        return None
    rows, values = ([point[name] for point in kept] for name in ("rows", value))
    return float(np.polyfit(np.log(rows), np.log(values), 1)[0])


def draw(found, path):
    """Seconds and memory against rows, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    shown = (("seconds", "seconds", 1), ("most_bytes", "highest memory of the process, GiB", 2**30))
    for axes, (name, label, unit) in zip(figure.subplots(1, 2), shown, strict=True):
        for step, points in found.items():
            k = slope(points, name)
            power = "" if k is None else f", k = {k:.2f}"
            axes.plot(
                [point["rows"] for point in points],
                [point[name] / unit for point in points],
                marker="o",
                label=f"{STEPS[step]}{power}",
            )
        axes.set(xscale="log", yscale="log", xlabel="rows of the file", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1))  # hides no point
    figure.savefig(path, dpi=100)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="*", help=f"of {', '.join(STEPS)}; all, if none is named")
    parser.add_argument(
        "--rows",
        default="10000,100000,1000000,10000000",
        type=lambda text: [int(number) for number in text.split(",")],
    )
    parser.add_argument("--out", default=str(RESULTS / "growth.json"))
    parser.add_argument("--one", metavar="FILE", help="do the step here and now with this file")
    options = parser.parse_args(arguments)
    if unknown := [step for step in options.step if step not in STEPS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(STEPS)}")
    if options.one:
        one(options.step[0], options.one)
        return
    steps = options.step or list(STEPS)
    found, out = {step: [] for step in steps}, Path(options.out)
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            path = made_up(rows, folder)
            for step in steps:
                if rows > MOST.get(step, rows):
                    continue
                command = [sys.executable, "-m", "tests.benchmarks.growth", step, "--one", path]
                done = subprocess.run(
                    command, cwd=project_root(), check=True, text=True, stdout=subprocess.PIPE
                )
                point = {"rows": rows, **json.loads(done.stdout.splitlines()[-1])}
                found[step].append(point)
                rise = (point["most_bytes"] - point["bytes_before"]) / rows
                print(
                    f"{step:10} {rows:12,} rows {point['seconds']:9.2f} s "
                    f"{point['most_bytes'] / 2**30:7.2f} GiB, rise {rise:7.0f} bytes a row",
                    flush=True,
                )
    slopes = {
        step: {name: slope(points, name) for name in ("seconds", "processor_seconds", "most_bytes")}
        for step, points in found.items()
    }
    for step, k in slopes.items():
        if k["seconds"] is not None:
            print(
                f"{step:10} seconds grow as rows to the power {k['seconds']:.2f} (of the "
                f"processor {k['processor_seconds']:.2f}), memory to the power "
                f"{k['most_bytes']:.2f}"
            )
    write_json(out, {"schema": 1, "machine": this_machine(), "steps": found, "slopes": slopes})
    draw(found, out.with_suffix(".png"))
    print(f"written: {display_path(out)} and {out.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
