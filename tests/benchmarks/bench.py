"""`make bench`: the usual way and ours, alternated in one run; prints one table, writes one JSON.

    python -m tests.benchmarks.bench [--only NAME,...] [--rounds N] [--model MODEL] [--pairs FILE]
                                     [--count N] [--rows N,N,...] [--out FILE]

Each line of the table is one thing done in two ways, A B A B ..., so that whatever else the machine
does falls on both. The ratio is the median of the rounds' ratios, with the lowest and the highest
beside it. It asserts nothing: times depend on the machine, which the JSON describes.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from workbench.files import project_root, write_json

BUNDLED = "bundled:all-MiniLM-L6-v2"
RESULTS = Path(__file__).parent / "results"


def machine():
    """What the figures depend on."""
    from importlib.metadata import version

    name = ""
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    packages = ("torch", "transformers", "sentence-transformers", "numpy", "pandas")
    return {
        "processor": name or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {package: version(package) for package in packages},
    }


def alternate(what, unit, amount, peer, ours, rounds):
    """Time two callables in turns; one row of the table, in `unit` a second (or in seconds)."""
    (peer_name, run_peer), (our_name, run_ours) = peer, ours
    run_peer(), run_ours()  # files into the cache, kernels made
    times = []
    for _ in range(rounds):
        pair = []
        for run in (run_peer, run_ours):
            start = time.perf_counter()
            run()
            pair.append(time.perf_counter() - start)
        times.append(pair)
    ratios = [first / second for first, second in times]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return {
        "what": what, "unit": unit, "amount": amount, "peer": peer_name, "ours": our_name,
        "peer_seconds": [first for first, _ in times],
        "our_seconds": [second for _, second in times],
        "peer_rate": amount / medians[0], "our_rate": amount / medians[1],
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip


def some_pairs(options):
    """So many distinct pairs of a file, or of the shipped sample."""
    from workbench.pairs import read_pairs

    frame = read_pairs(options.pairs).frame.head(options.count)
    return frame, list(dict.fromkeys(zip(frame["sentence_0"], frame["sentence_1"], strict=True)))


def bench_scoring(options):
    """`CrossEncoder.predict` against each quicker backend that is installed."""
    import torch

    from workbench.backends import BACKENDS, BackendError, open_backend
    from workbench.models import find_model
    from workbench.scoring import load_cross_encoder

    location = find_model(options.model)
    model = load_cross_encoder(location)
    _, pairs = some_pairs(options)

    def predict():
        model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)

    for name in BACKENDS[1:]:
        try:
            run = open_backend(name, model, folder=location.path)
        except BackendError:
            continue
        yield alternate("scoring", "pairs/s", len(pairs), ("CrossEncoder.predict", predict),
                        (name, lambda run=run: run(pairs)), options.rounds)  # fmt: skip


def bench_training(options):
    """The reference card's recipe against `speed: fast`, both by the trainer, on the same pairs."""
    from workbench.logs import TrainingLog
    from workbench.models import find_model
    from workbench.recipes import Recipe
    from workbench.scoring import load_cross_encoder
    from workbench.trainer import make_trainer

    frame, _ = some_pairs(options)
    location = find_model(options.model)

    def train(recipe, attention):
        with tempfile.TemporaryDirectory() as folder:
            model = load_cross_encoder(location, attention=attention)
            log = TrainingLog(Path(folder), "bench")
            trainer = make_trainer(model, Path(folder), frame, frame.head(0), recipe, log)
            trainer.train()

    card = Recipe(precision="float32")
    fast = Recipe(precision="bfloat16", speed="fast", batch_size=32, learning_rate=1e-4)
    yield alternate("training", "pairs/s", len(frame),
                    ("the card's recipe", lambda: train(card, None)),
                    ("fast, bfloat16, batch 32", lambda: train(fast, "eager")),
                    options.rounds)  # fmt: skip


def bench_light(options):
    """Starting: what a user waits for before anything happens."""

    def python(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True,
                                      capture_output=True, cwd=project_root())  # fmt: skip

    helps = "from workbench.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    peer = ("import sentence_transformers", python("import sentence_transformers"))
    for name, code in (("import workbench", "import workbench"), ("workbench --help", helps)):
        yield alternate("starting", "1/s", 1, peer, (name, python(code)), options.rounds)


def made_up(rows, path):
    """A file of synthetic pairs: every text of its own but one in ten, 16 % positives."""
    with path.open("w", encoding="utf-8") as file:
        file.write("sentence_0,sentence_1,label\n")
        for n in range(rows):
            file.write(
                f"怎么开通会员{n - n % 10 if n % 7 == 0 else n},如何办理 {n},{n % 6 // 5}.0\n"
            )


def bench_reading(options):
    """pandas, which checks nothing, against `read_pairs`; and the split by groups."""
    from workbench.pairs import read_pairs
    from workbench.splits import split_pairs

    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pairs.csv"
            made_up(rows, path)
            rounds = 1 if rows >= 1_000_000 else options.rounds
            yield alternate(f"reading {rows:,} rows", "rows/s", rows,
                            ("pandas.read_csv", lambda path=path: pd.read_csv(path)),
                            ("read_pairs", lambda path=path: read_pairs(path)), rounds)  # fmt: skip
            frame = read_pairs(path).frame
            yield alternate(f"splitting {rows:,} rows", "rows/s", rows,
                            ("a shuffle by rows", lambda frame=frame: frame.sample(frac=1)),
                            ("split_pairs, by groups", lambda frame=frame: split_pairs(
                                frame, 0.1, 0.1, 42)), rounds)  # fmt: skip


def highest():
    """The most memory this process has had, in bytes; `ru_maxrss` would begin with its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def bench_memory(options):
    """The highest memory of `workbench score` on files of growing size, by a tiny model."""
    from tests.benchmarks.tiny import write_tiny_model

    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            model, path = write_tiny_model(Path(folder) / "model"), Path(folder) / "pairs.csv"
            made_up(rows, path)
            start = time.time()
            code = "from workbench.__main__ import main; main(); " \
                   "from tests.benchmarks.bench import highest; print(highest())"  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", code, "score", str(model), str(path), f"{folder}/out",
                 "--max-length", "64"], check=True, capture_output=True, text=True,
            )  # fmt: skip
            seconds, most = time.time() - start, int(done.stdout.split()[-1])
            yield {"what": f"scoring a file of {rows:,} rows", "unit": "rows/s", "amount": rows,
                   "peer": "", "ours": f"workbench score, at most {most / 2**30:.2f} GiB",
                   "our_rate": rows / seconds, "our_seconds": [seconds],
                   "most_bytes": most}  # fmt: skip


BENCHES = {"scoring": bench_scoring, "training": bench_training, "light": bench_light,
           "reading": bench_reading, "memory": bench_memory}  # fmt: skip


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="scoring,training,light,reading")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=BUNDLED)
    parser.add_argument("--pairs", default="data/sample_pairs.csv")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rows", default="10000,97230",
                        type=lambda text: [int(number) for number in text.split(",")])  # fmt: skip
    parser.add_argument("--out", default=str(RESULTS / "bench.json"))
    options = parser.parse_args(arguments)
    about, rows = machine(), []
    print(f"{about['processor']}, {about['cores']} cores, load {about['load_at_start']}")
    for name in options.only.split(","):
        for row in BENCHES[name](options):
            rows.append(row)
            ratio = f"{row['ratio']:6.2f} [{row['low']:.2f}, {row['high']:.2f}]" if "ratio" in row \
                else ""  # fmt: skip
            peer = f"{row['peer_rate']:10,.1f}" if "peer_rate" in row else ""
            print(f"{row['what']:28} {row['peer']:30} {peer:>10}  {row['ours']:34} "
                  f"{row['our_rate']:10,.1f} {row['unit']:8} {ratio}", flush=True)  # fmt: skip
    given = {key: value for key, value in vars(options).items() if key != "out"}
    write_json(options.out, {"schema": 1, "machine": about, "options": given, "rows": rows})
    print(f"written: {options.out}")


if __name__ == "__main__":
    main()
