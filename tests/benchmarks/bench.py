"""`make bench`: the plain way and ours, in turns; prints one Markdown table and writes one JSON.

    python -m tests.benchmarks.bench [ROW ...] [--rounds N] [--model MODEL] [--pairs FILE]
                                     [--count N] [--rows N,N,...] [--out FILE]

Each way has its own process (see `ways`), and the ways of a row take turns, A B C A B C ..., so
that whatever else the machine does slows all of them. The ratio is the median of the rounds'
ratios, with the lowest and the highest. Nothing is asserted: times depend on the machine, which
the JSON describes.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import psutil

from workbench.files import display_path, project_root, write_json
from workbench.machine import core_count
from workbench.models import BUNDLED_MODEL
from workbench.scoring.backends import inverted_share

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "transformers", "sentence-transformers", "numpy", "pandas", "onnxruntime")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
TRAINERS = {"`CrossEncoderTrainer`": "library_training", "`speed: fast`": "fast_training"}
BATCHES = {"batch_size": 32, "precision": "float32"}
HEAD = ("what", "the plain way", "ours", "x faster [lowest, highest]")


class Way(NamedTuple):
    """A way to do something: its label, the function in `ways`, and further options for it."""

    label: str
    function: str
    options: dict[str, object] = {}  # noqa: RUF012


class Group(NamedTuple):
    """Ways to do one thing, which take turns; `unit` is `s`, or what is done a second."""

    what: str
    unit: str
    peers: list[Way]
    ours: list[Way]


def scoring(options, folder):
    names = ("auto", "torch-float32", "torch-bfloat16", "onnx-int8")
    ours = [Way(f"`backend: {name}`", "backend", {"backend": name}) for name in names]
    yield Group("scoring", "pairs/s", [Way("`CrossEncoder.predict`", "predict")], ours)


def training(options, folder):
    """At equal batch size: the recipe of the reference card, float32, with batches of 8 first."""
    for size in (8, 32):
        every = [
            Way(f"{name}, {precision}", function, {"batch_size": size, "precision": precision})
            for name, function in TRAINERS.items()
            for precision in ("float32", "bfloat16")
        ]
        yield Group(f"training, batches of {size}", "pairs/s", every[:2], every[2:])


def vocabularies(options, folder):
    """The same texts as characters and as words of a dictionary: fewer tokens for each pair."""
    ways = [
        ("scoring by `predict`", "backend", {"backend": "predict"}),
        ("scoring by `torch-float32`", "backend", {"backend": "torch-float32"}),
        ("training by `CrossEncoderTrainer`", "library_training", BATCHES),
        ("training by `speed: fast`", "fast_training", BATCHES),
    ]
    for what, function, given in ways:
        characters = Way("characters", function, given | {"vocabulary": "extend"})
        words = Way("words", function, given | {"vocabulary": "words"})
        yield Group(what, "pairs/s", [characters], [words])


def light(options, folder):
    peer = Way("`import sentence_transformers`", "start", {"code": "import sentence_transformers"})
    command = "from workbench.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    ours = [("`import workbench`", "import workbench"), ("`workbench --help`", command)]
    yield Group(
        "starting", "s", [peer], [Way(label, "start", {"code": code}) for label, code in ours]
    )


def reading(options, folder):
    for rows in options.rows:
        file = {"file": made_up(rows, folder)}
        peers = [
            Way("`pandas.read_csv`", "read_by_pandas", file),
            Way('`datasets.load_dataset("csv")`', "read_by_datasets", file),
        ]
        yield Group(f"reading {rows:,} rows", "s", peers, [Way("`read_pairs`", "read_by_us", file)])


def splitting(options, folder):
    for rows in options.rows:
        file = {"file": made_up(rows, folder)}
        peer = Way("`GroupShuffleSplit`, given the groups", "split_by_sklearn", file)
        yield Group(
            f"splitting {rows:,} rows", "s", [peer], [Way("`split_pairs`", "split_by_us", file)]
        )


def memory(options, folder):
    for rows in options.rows:
        given = {"file": made_up(rows, folder), "file_rows": rows}
        ours = [Way("`workbench score`, tiny model", "score_file", given)]
        yield Group(f"scoring a file of {rows:,} rows", "rows/s", [], ours)


MAKERS = (scoring, training, vocabularies, light, reading, splitting, memory)
ROWS = {make.__name__: make for make in MAKERS}


def made_up(rows, folder):
    """A file of synthetic pairs, 16 % positives, every thousandth row bad."""
    path = Path(folder) / f"pairs-{rows}.csv"
    if not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            file.write("sentence_0,sentence_1,label\n")
            for n in range(rows):
                first = n - n % 10 if n % 7 == 0 else n  # some texts occur again
                second = f"如何办理 {n}" if n % 1000 != 999 else ""
                file.write(f"怎么开通会员{first},{second},{n % 6 // 5}.0\n")
    return str(path)


class Process:
    """The process of one way."""

    def __init__(self, way, options, stack):
        self.way, self.answers = way, []
        self.errors = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        given = json.dumps(options | way.options)
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.ways", way.function, given],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                text=True,
                cwd=project_root(),
            )
        )
        self.not_here = self.answer().get("not_here", "")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"{self.way.label} has failed:\n{self.errors.read()[-3000:]}")
        return json.loads(line)

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()


def measure(group, options):
    """The rows of a group: each of ours with each of its peers."""
    given = {name: getattr(options, name) for name in ("model", "pairs", "count")}
    with ExitStack() as stack:
        every = [Process(way, given, stack) for way in group.peers + group.ours]
        for one in every:
            if one.not_here:
                print(f"left out: {one.way.label}: {one.not_here}", file=sys.stderr)
        here = [one for one in every if not one.not_here]
        for one in here:
            one.go()  # files into the cache, kernels compiled
        for _ in range(options.rounds):
            for one in here:
                one.answers.append(one.go())
    peers = [one for one in here if one.way in group.peers]
    for ours in (one for one in here if one.way in group.ours):
        for peer in peers or [None]:
            yield compared(group, peer, ours)


def compared(group, peer, ours):
    """One row of the table, as plain values."""
    last = ours.answers[-1]
    row = {
        "what": f"{group.what} {last.get('detail', '')}".strip(),
        "unit": group.unit,
        "ours": described(group, ours),
    }
    if peer:
        row["peer"] = described(group, peer)
        times = zip(row["peer"]["seconds"], row["ours"]["seconds"], strict=True)
        ratios = [first / second for first, second in times]
        row |= {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        if "scores" in last:
            row["inverted"] = inverted_share(peer.answers[-1]["scores"], last["scores"])
    return row


def described(group, process):
    """What is known of one way."""
    last, seconds = process.answers[-1], [answer["seconds"] for answer in process.answers]
    median = statistics.median(seconds)
    return {
        "name": process.way.label + (f" ({last['chosen']})" if "chosen" in last else ""),
        "seconds": seconds,
        "value": median if group.unit == "s" else last["amount"] / median,
        "most_bytes": max(answer["most_bytes"] for answer in process.answers),
        "found": last.get("found", ""),
    }


def machine():
    """What the numbers depend on; processors of one name can differ in their instructions."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    return {
        "processor": known.get("model name") or platform.processor(),
        "instructions": [one for one in INSTRUCTIONS if one in known.get("flags", "").split()],
        "cores": core_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "load_at_start": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {package: version(package) for package in PACKAGES},
    }


def processor(machine):
    """The processor with the instructions that the figures depend on."""
    found = ", ".join(machine["instructions"]) or "none of " + ", ".join(INSTRUCTIONS)
    return f"{machine['processor']}, {machine['cores']} cores, instructions {found}"


def cells(row):
    """A row of the table."""
    inverted = f"{row['inverted']:.2%} of pairwise orders inverted" if "inverted" in row else ""
    peer = cell(row, row["peer"]) if "peer" in row else ""
    ratio = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if "ratio" in row else ""
    return row["what"], peer, cell(row, row["ours"], inverted), ratio


def cell(row, way, remark=""):
    value = f"{way['value']:,.0f}" if way["value"] >= 100 else f"{way['value']:.3g}"
    parts = f"{value} {row['unit']}", f"{way['most_bytes'] / 2**30:.2f} GiB", way["found"], remark
    return f"{way['name']}: " + ", ".join(filter(None, parts))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", nargs="*", help=f"of {', '.join(ROWS)}; all, if none is named")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=BUNDLED_MODEL)
    parser.add_argument("--pairs", default="data/sample_pairs.csv")
    parser.add_argument("--count", type=int, default=1000, help="pairs to score and to train on")
    parser.add_argument(
        "--rows",
        default="10000,97230",
        type=lambda text: [int(number) for number in text.split(",")],
        help="of the files to read, to split and to score",
    )
    parser.add_argument("--out", default=str(RESULTS / "bench.json"))
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.row if name not in ROWS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(ROWS)}")
    record = {"schema": 3, "machine": machine(), "rows": []}
    print(*record["machine"].items(), sep="\n")
    print(f"\nOn {processor(record['machine'])}:\n")
    for line in (HEAD, ("---",) * len(HEAD)):
        print(f"| {' | '.join(line)} |")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name in options.row or ROWS:
            for group in ROWS[name](options, folder):
                for row in measure(group, options):
                    record["rows"].append(row)
                    print(f"| {' | '.join(cells(row))} |", flush=True)
    write_json(options.out, record)
    print(f"\nOn {processor(record['machine'])}. Written: {display_path(options.out)}")


if __name__ == "__main__":
    main()
