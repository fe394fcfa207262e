"""`make bench`: the usual way and ours, alternated in one run; prints one table, writes one JSON.

    python -m tests.benchmarks.bench [ROW ...] [--only ROW,...] [--rounds N] [--model MODEL]
                           [--pairs FILE] [--count N] [--rows N,N,...] [--out FILE] [--readme]

Each way has a process of its own (see `sides`), and the ways of a row take turns, A B C A B C ...,
so that whatever else the machine does falls on all. The ratio is the median of the rounds' ratios,
with the lowest and the highest beside it. Rows that were measured earlier on the same machine stay
in the JSON; `--readme` prints its table in Markdown without measuring anything. Nothing is
asserted: times depend on the machine, which the JSON describes.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

from workbench.files import display_path, project_root, read_json, write_json
from workbench.machine import core_count
from workbench.models import BUNDLED_MODEL

RESULTS = Path(__file__).parent / "results"
PACKAGES = (
    "torch",
    "transformers",
    "sentence-transformers",
    "numpy",
    "pandas",
    "datasets",
    "scikit-learn",
    "onnxruntime",
)
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
HEAD = ("what", "the usual way", "ours", "times as quick [lowest, highest]")


@dataclass(frozen=True)
class Group:
    """Ways to do one thing, which take turns.

    Attributes:
        what: is done; `{}` in it is filled by the side.
        unit: `s`, or what is done a second.
        peers: names of `sides.WAYS`.
        ours: the same.
        remark: on the comparison.
        values: options of this group alone.
        rounds: if they are not to be as many as asked for; then nothing is done beforehand.
    """

    what: str
    unit: str
    peers: tuple[str, ...]
    ours: tuple[str, ...]
    remark: str = ""
    values: dict[str, object] = field(default_factory=dict)
    rounds: int = 0


def scoring(options, folder):
    kinds = ("auto", "torch-bfloat16", "torch-int8", "onnx-int8")
    ours = tuple(f"`backend: {kind}`" for kind in kinds)
    yield Group("scoring {}", "pairs/s", ("`CrossEncoder.predict`, batches of 32",), ours)


def training(options, folder):
    kinds = ("32, float32", "64, float32", "32, bfloat16", "64, bfloat16")
    ours = tuple(f"`speed: fast`, batches of {kind}" for kind in kinds)
    peer = ("`CrossEncoderTrainer`, batches of 8, float32",)
    yield Group("training on {}", "pairs/s", peer, ours, "the card's recipe")


def starting(options, folder):
    ours = ("`import workbench`", "`workbench --help`")
    yield Group("starting", "s", ("`import sentence_transformers`",), ours)


def reading(options, folder):
    peers = ("`pandas.read_csv`", '`datasets.load_dataset("csv")`')
    for rows in options.rows:
        yield Group(
            f"reading {rows:,} rows",
            "s",
            peers,
            ("`read_pairs`",),
            values={"file": made_up(rows, folder)},
        )


def splitting(options, folder):
    remark = "a part of the job: the groups are given, there is no dev"
    for rows in options.rows:
        yield Group(
            f"splitting {rows:,} rows",
            "s",
            ("`GroupShuffleSplit`, given the groups",),
            ("`split_pairs`",),
            remark,
            {"file": made_up(rows, folder)},
        )


def memory(options, folder, model="", kind="tiny model"):
    for rows in options.rows:
        values = {"file": made_up(rows, folder), "file_rows": rows, "file_model": model}
        yield Group(
            f"scoring a file of {rows:,} rows, {kind}",
            "rows/s",
            (),
            ("`workbench score`",),
            values=values,
            rounds=1,
        )


def real_memory(options, folder):
    yield from memory(options, folder, options.model, "whole model")


ROWS = {
    "scoring": scoring,
    "training": training,
    "light": starting,
    "reading": reading,
    "splitting": splitting,
    "memory": memory,
    "real": real_memory,
}


def made_up(rows, folder):
    """A file of synthetic pairs, 16 % positives, every thousandth row bad; see `growth`, too."""
    path = Path(folder) / f"pairs-{rows}.csv"
    if path.is_file():
        return str(path)
    with path.open("w", encoding="utf-8") as file:
        file.write("sentence_0,sentence_1,label\n")
        for n in range(rows):
            first = n - n % 10 if n % 7 == 0 else n  # some texts occur again
            second = f"如何办理 {n}" if n % 1000 != 999 else ""
            file.write(f"怎么开通会员{first},{second},{n % 6 // 5}.0\n")
    return str(path)


class Side:
    """The process of one way."""

    def __init__(self, name, options, stack):
        self.name, self.answers = name, []
        self.errors = stack.enter_context(tempfile.TemporaryFile("w+"))  # noqa: SIM115
        self.process = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.sides", name, json.dumps(options)],
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
            raise RuntimeError(f"{self.name} has failed:\n{self.errors.read()[-3000:]}")
        return json.loads(line)

    def go(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()


def measure(group, options):
    """The rows of a group: each of ours beside each of its peers."""
    given = {name: getattr(options, name) for name in ("model", "pairs", "count")}
    with ExitStack() as stack:
        sides = [Side(name, given | group.values, stack) for name in group.peers + group.ours]
        for side in sides:
            if side.not_here:
                print(f"left out: {side.name}: {side.not_here}", file=sys.stderr)
        sides = [side for side in sides if not side.not_here]
        for side in sides:
            if not group.rounds:
                side.go()  # files into the cache, kernels made
        for _ in range(group.rounds or options.rounds):
            for side in sides:
                side.answers.append(side.go())
    peers = [side for side in sides if side.name in group.peers]
    for ours in (side for side in sides if side.name in group.ours):
        for peer in peers or [None]:
            yield compared(group, peer, ours)


def compared(group, peer, ours):
    """One row of the table, as plain values."""
    last = ours.answers[-1]
    row = {
        "what": group.what.format(f"{last.get('amount', 0):,} {last.get('detail', '')}"),
        "unit": group.unit,
        "remark": group.remark,
        "ours": described(group, ours),
    }
    if peer:
        row["peer"] = described(group, peer)
        times = zip(row["peer"]["seconds"], row["ours"]["seconds"], strict=True)
        ratios = [first / second for first, second in times]
        row |= {"ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
        if "scores" in last:
            from workbench.scoring.cross_encoder import swapped_share

            row["swapped"] = swapped_share(peer.answers[-1]["scores"], last["scores"])
    return row


def described(group, side):
    """What is known of one side."""
    last, seconds = side.answers[-1], [answer["seconds"] for answer in side.answers]
    median = statistics.median(seconds)
    return {
        "name": side.name + (f", which took {last['took']}" if "took" in last else ""),
        "seconds": seconds,
        "value": median if group.unit == "s" else last["amount"] / median,
        "most_bytes": max(answer["most_bytes"] for answer in side.answers),
        "found": last.get("found", ""),
    }


def machine():
    """What the figures depend on; processors of one name can differ in their instructions."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    known = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    return {
        "processor": known.get("model name") or platform.processor(),
        "instructions": [one for one in INSTRUCTIONS if one in known.get("flags", "").split()],
        "cores": core_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {package: version(package) for package in PACKAGES},
    }


def cells(row):
    """A row of the table as it is shown, without Markdown's bars."""
    peer = side_cell(row, row["peer"], row["remark"]) if "peer" in row else ""
    swapped = f"{row['swapped']:.2%} of couples swapped" if "swapped" in row else ""
    ratio = f"{row['ratio']:.2f} [{row['low']:.2f}, {row['high']:.2f}]" if "ratio" in row else ""
    return row["what"], peer, side_cell(row, row["ours"], swapped), ratio


def side_cell(row, side, remark):
    value = f"{side['value']:,.0f}" if side["value"] >= 100 else f"{side['value']:.3g}"
    parts = [f"{value} {row['unit']}", f"{side['most_bytes'] / 2**30:.2f} GiB"]
    return f"{side['name']}: " + ", ".join(filter(None, [*parts, side["found"], remark]))


def about(record):
    """The machine in a sentence."""
    known, loads = record["machine"], [one["load_at_start"] for one in record["measured"].values()]
    packages = known["packages"]
    able = f" ({', '.join(known['instructions'])})" if known.get("instructions") else ""
    return (
        f"{known['processor']}{able}, {known['cores']} cores, {known['memory_gib']} GiB; Python "
        f"{known['python']}, torch {packages['torch']}, sentence-transformers "
        f"{packages['sentence-transformers']}; load at the start {min(loads)} to {max(loads)}."
    )


def markdown(record):
    """What the README quotes: the machine, the table, and the commands."""
    rows = [row for one in record["measured"].values() for row in one["rows"]]
    lines = [about(record), ""]
    lines += [f"| {' | '.join(one)} |" for one in (HEAD, ("---",) * len(HEAD), *map(cells, rows))]
    commands = dict.fromkeys(one["command"] for one in record["measured"].values())
    return "\n".join([*lines, "", "```", *commands, "```"])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("row", nargs="*", help=f"of {', '.join(ROWS)}; all, if none is named")
    parser.add_argument("--only", default="", help="the same, joined by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default=BUNDLED_MODEL)
    parser.add_argument("--pairs", default="data/sample_pairs.csv")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument(
        "--rows",
        default="10000,97230",
        type=lambda text: [int(number) for number in text.split(",")],
    )
    parser.add_argument("--out", default=str(RESULTS / "bench.json"))
    parser.add_argument("--readme", action="store_true", help="print the table of --out; no more")
    options = parser.parse_args(arguments)
    out = Path(options.out)
    if options.readme:
        print(markdown(read_json(out)))
        return
    names = options.row + [name for name in options.only.split(",") if name] or list(ROWS)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(ROWS)}")
    record = {"schema": 2, "machine": machine(), "measured": {}}
    if out.is_file() and (before := read_json(out))["machine"] == record["machine"]:
        record = before
    for name in names:
        load = round(os.getloadavg()[0], 1)
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rows = []
            for group in ROWS[name](options, folder):
                for row in measure(group, options):
                    rows.append(row)
                    print(*filter(None, cells(row)), sep="\n    ", flush=True)
        record["measured"][name] = {
            "load_at_start": load,
            "command": command(options, names),
            "rows": rows,
        }
        record["measured"] = {
            one: record["measured"][one] for one in ROWS if one in record["measured"]
        }
        write_json(out, record)
    print(f"{about(record)}\nwritten: {display_path(out)}")


def command(options, names):
    """How the same rows are measured again; files of one's own have no name there."""
    flags = [
        *(names if names != list(ROWS) else []),
        f"--rounds {options.rounds}",
        f"--count {options.count}",
        f"--rows {','.join(map(str, options.rows))}",
    ]
    if options.model != BUNDLED_MODEL:
        flags.append("--model MODEL")
    if options.pairs != "data/sample_pairs.csv":
        flags.append("--pairs PAIRS.csv")
    return f"make bench BENCH_FLAGS={shlex.quote(' '.join(flags))}"


if __name__ == "__main__":
    main()
