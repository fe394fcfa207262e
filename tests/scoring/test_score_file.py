"""A file scored part by part: every row once, in order, whatever interrupts it."""

import gzip
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

from tests.conftest import ROOT, processes_of, write_table
from tests.scoring.test_cross_encoder import made_up
from workbench.cli import main
from workbench.data.readers import PairsError
from workbench.files import FailedError, RequestError, read_json
from workbench.models import find_model
from workbench.scoring.cross_encoder import ModelScorer
from workbench.scoring.score_file import (
    NOTE,
    PartWriter,
    Row,
    ScoringRequest,
    open_scorer,
    part_table,
    score_file,
)

ROWS, MANY = 500, 2000
LENGTH = ["--max-length", "64"]
ONNX = [*LENGTH, "--backend", "onnx"]


@pytest.fixture(scope="module")
def table():
    """Pairs of which some are equal, in a random order."""
    pairs = [pair for pair in made_up(600) if all(map(str.strip, pair))][: ROWS - 50]
    return pd.DataFrame(pairs + pairs[:50], columns=["sentence_0", "sentence_1"])


@pytest.fixture(scope="module")
def source(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("bulk") / "pairs.csv"
    table.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def large(table, tmp_path_factory):
    """Enough rows to be interrupted in the midst of."""
    found = pd.concat([table] * (MANY // ROWS), ignore_index=True)
    path = tmp_path_factory.mktemp("bulk") / "large.csv"
    found.to_csv(path, index=False)
    return path, found


@pytest.fixture(scope="module")
def quick_model(tiny_model, tmp_path_factory):
    """The tiny model with a graph for ONNX Runtime, so that processes need no torch.

    Its logit is the sum of one number for each token.
    """
    onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    folder = tmp_path_factory.mktemp("quick") / "model"
    shutil.copytree(tiny_model, folder)
    numbers = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    make = onnx.helper
    graph = make.make_graph(
        [
            make.make_node("Gather", ["numbers", "input_ids"], ["found"]),
            make.make_node("ReduceSum", ["found", "axis"], ["logits"], keepdims=0),
        ],
        "sum",
        [make.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["n", "length"])],
        [make.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", 1])],
        [
            onnx.numpy_helper.from_array(numbers, "numbers"),
            onnx.numpy_helper.from_array(np.array([1]), "axis"),
        ],
    )
    (folder / "onnx").mkdir()
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "onnx/model.onnx")
    return folder


def request_for(model, source, **values):
    given = {"backend": "onnx", "max_length": 64, "part_rows": 80} | values
    return ScoringRequest(str(model), str(source), **given)


def command(model, source, out, *more):
    """The arguments of `workbench` that score a file with ONNX Runtime."""
    return [*map(str, ("score", model, source, out)), *ONNX, *map(str, more)]


def right(out, table, model, backend="onnx"):
    """Whether the folder, read as a user would, holds every row once, in order, with its score."""
    found = pd.read_parquet(out)
    scorer = open_scorer(request_for(model, "", backend=backend))
    exact = scorer.score(list(table.itertuples(index=False, name=None)))
    assert found["line"].tolist() == list(range(2, len(table) + 2))
    assert found["sentence_0"].tolist() == table["sentence_0"].tolist()
    assert found["sentence_1"].tolist() == table["sentence_1"].tolist()
    assert found["score"].to_numpy() == pytest.approx(exact, abs=1e-5)
    assert found["score"].nunique() > 100
    assert found["problem"].isna().all()
    return True


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet", "csv.gz"])
def test_every_row_is_scored_in_order_from_every_format(kind, quick_model, table, tmp_path, capsys):
    path, out = write_table(table, tmp_path / f"rows.{kind}"), tmp_path / "out"
    assert main(command(quick_model, path, out, "--part-rows", 80)) == 0
    assert f"{ROWS} rows in 7 parts, 0 without a score, by onnx" in capsys.readouterr().out
    first = 1 if kind in ("jsonl", "parquet") else 2
    lines = pd.read_parquet(out)["line"].tolist()
    assert lines == list(range(first, ROWS + first))
    if first == 2:
        assert right(out, table, quick_model)


def test_auto_is_decided_once_and_gives_the_models_scores(
    tiny_model, source, table, tmp_path, monkeypatch
):
    monkeypatch.setattr("workbench.scoring.cross_encoder.MIN_PAIRS_TO_CHECK", 300)
    done = score_file(request_for(tiny_model, source, backend="auto"), tmp_path / "out")
    plan = read_json(tmp_path / "out/_plan.json")
    assert done["backend"] == plan["chosen"]
    assert (plan["chosen"]["asked"], plan["chosen"]["pairs"]) == ("auto", 256)
    found = pd.read_parquet(tmp_path / "out")["score"].to_numpy()
    exact = ModelScorer.load(find_model(str(tiny_model)), 64).score(list(table.to_numpy()))
    assert found == pytest.approx(exact, abs=0.02)
    (tmp_path / "out/_done.json").unlink()
    plan["chosen"]["checks"] = []  # a second start keeps to the plan and repeats no check
    (tmp_path / "out/_plan.json").write_text(json.dumps(plan), encoding="utf-8")
    again = score_file(request_for(tiny_model, source, backend="auto"), tmp_path / "out")
    assert again["backend"] == plan["chosen"]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_at_any_place_loses_no_row_and_doubles_none(
    seed, quick_model, source, table, tmp_path
):
    out = tmp_path / "out"
    given = ["-m", "tests.scoring.kill_scoring", quick_model, source, out, 40, seed]
    done = subprocess.run(
        [sys.executable, *map(str, given)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    killed = json.loads(done.stdout)
    assert len(killed) >= 3
    assert "within part" in killed
    assert right(out, table, quick_model)
    assert not list(out.glob(".*.tmp"))
    record = read_json(out / "_done.json")
    assert (record["rows"], record["parts"]) == (ROWS, 13)
    again = score_file(request_for(quick_model, source, part_rows=40), out)
    assert again == record | {"seconds": again["seconds"]}


def started(arguments, out):
    """The command in its own process, once it has made parts, and its child processes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    before = len(list(out.glob("part-*.parquet")))
    while len(list(out.glob("part-*.parquet"))) < before + 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_end_it_cleanly(number, quick_model, large, tmp_path):
    """SIGTERM strikes the command alone, Ctrl-C all processes of its terminal."""
    path, table = large
    out = tmp_path / "out"
    process, children = started(command(quick_model, path, out, "--part-rows", 10), out)
    (os.kill if number == signal.SIGTERM else os.killpg)(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert error.splitlines()[-1] == "interrupted; the same command goes on"
    assert "Traceback" not in error
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    kept = {file.name: file.stat().st_mtime_ns for file in out.glob("part-*.parquet")}
    assert 3 <= len(kept) < MANY // 10
    assert all(
        json.loads(pq.read_metadata(out / name).metadata[NOTE])["rows"] == 10 for name in kept
    )
    assert not (out / "_done.json").exists()
    assert score_file(request_for(quick_model, path, part_rows=10), out)["parts"] == MANY // 10
    assert right(out, table, quick_model)
    assert all((out / name).stat().st_mtime_ns == changed for name, changed in kept.items())
    assert not list(out.glob(".*.tmp"))


@pytest.mark.cluster
def test_a_cluster_serves_who_has_its_token_though_a_worker_is_killed(
    cluster, quick_model, large, tmp_path
):
    """A stranger is refused; of two actors one is killed and replaced, its part made again."""
    path, table = large
    out = tmp_path / "out"
    ray = ["--workers", 2, "--engine", "ray", "--address", cluster]
    asked = command(quick_model, path, out, "--part-rows", 10, *ray)
    stranger = subprocess.run(
        [sys.executable, "-m", "workbench", *asked],
        cwd=ROOT,
        env=os.environ | {"RAY_AUTH_TOKEN": secrets.token_hex(32)},
        capture_output=True,
        text=True,
    )
    assert stranger.returncode == 2
    assert f"no cluster at '{cluster}'" in stranger.stderr
    assert not list(out.glob("part-*.parquet"))
    process, _ = started(asked, out)
    actors = []
    while len(actors) < 2 and process.poll() is None:  # the second may come after the first part
        actors = processes_of("PartMaker")
    assert len(actors) == 2, process.communicate()
    actors[0].kill()
    at_the_kill = len(list(out.glob("part-*.parquet")))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert at_the_kill < MANY // 10
    assert right(out, table, quick_model)
    assert not (out / ".rows").exists()


def test_a_folder_of_another_request_is_refused_by_name(quick_model, source, tmp_path):
    out, model, pairs = tmp_path / "out", tmp_path / "model", tmp_path / "pairs.csv"
    shutil.copytree(quick_model, model)
    shutil.copy(source, pairs)
    score_file(request_for(model, pairs), out)
    changed = "another request; .*\npart_rows: the folder .* 80, not 50\ntop_k: the folder .* not 1"
    with pytest.raises(RequestError, match=changed):
        score_file(request_for(model, pairs, part_rows=50, top_k=1), out)
    shutil.move(pairs, tmp_path / "moved.csv")  # the same bytes under another name
    assert score_file(request_for(model, tmp_path / "moved.csv"), out)["rows"] == ROWS
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    changed = r"\nsha256 of the model's tokenizer\.json: the folder was started with '\w+'"
    with pytest.raises(RequestError, match=changed):
        score_file(request_for(model, tmp_path / "moved.csv"), out)
    with (tmp_path / "moved.csv").open("a") as file:
        file.write("one,more\n")
    with pytest.raises(RequestError, match="sha256 of the source: the folder was"):
        score_file(request_for(quick_model, tmp_path / "moved.csv"), out)


def test_a_part_that_is_not_whole_is_made_again(quick_model, source, table, tmp_path):
    """A pipe, which would hang; none; one whose note is of other types; half of one; another's."""
    out = tmp_path / "out"
    parts = [out / f"part-{number:06d}.parquet" for number in range(7)]
    score_file(request_for(quick_model, source), out)
    for part in parts[1:3]:
        part.unlink()
    os.mkfifo(parts[1])
    note = json.loads(pq.read_metadata(parts[3]).metadata[NOTE]) | {"rows": "many"}
    changed = pq.read_table(parts[3]).replace_schema_metadata({NOTE: json.dumps(note)})
    pq.write_table(changed, parts[3])
    parts[4].write_bytes(parts[4].read_bytes()[:-20])
    shutil.copy(parts[0], parts[5])
    kept = parts[6].stat().st_mtime_ns
    assert score_file(request_for(quick_model, source), out)["parts"] == 7
    assert right(out, table, quick_model)
    assert parts[6].stat().st_mtime_ns == kept


def test_a_file_that_changes_while_it_is_read_is_noticed(
    quick_model, source, tmp_path, monkeypatch
):
    path = tmp_path / "pairs.csv"
    shutil.copy(source, path)

    def changing(*given):
        with path.open("a") as file:
            file.write("one,more\n")
        return part_table(*given)

    monkeypatch.setattr("workbench.scoring.score_file.part_table", changing)
    with pytest.raises(FailedError, match=r"pairs\.csv was changed while it was read"):
        score_file(request_for(quick_model, path), tmp_path / "out")
    assert not (tmp_path / "out/_done.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--backend", "magic"], "'magic' is none of auto"),
        (["--backend", "onnx-int4"], "'onnx-int4' is none of auto"),
        (["--backend", "onnx-int8"], "has no onnx/model_qint8.onnx"),
        (["--sentence-0-column", "question"], "no column 'question'"),
        (["--part-rows", "0"], "part rows must be 1 or more"),
        (["--workers", "0"], "0 is not in the range x>=1"),
        (["--workers", "2"], "--workers is for --engine ray: here one process uses all cores"),
        (["--max-length", "3"], "max-length is 3; it must be 8 or more"),
        (["--engine", "ray", "--address", "127.0.0.1:9"], "no cluster at '127.0.0.1:9'"),
        ({"IN": "-"}, "-: the name must end in one of .csv"),
        ({"IN": "none.csv"}, "there is no such file"),
        ({"IN": "empty.csv"}, "no pair in it that can be scored"),
        ({"IN": "bad.csv"}, "the first problem is at line 2, column sentence_1: the text is empty"),
        ({"RUN": "none"}, "neither a folder"),
        ({"OUT": "file"}, "file is no folder"),
        ({"OUT": "full"}, "full holds something else (mine.txt)"),
        ({"OUT": "file/below"}, "file is no folder"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    change, said, quick_model, source, tmp_path, capsys
):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    (tmp_path / "empty.csv").write_text("sentence_0,sentence_1\n")
    (tmp_path / "bad.csv").write_text("sentence_0,sentence_1\na,\n")
    before = sorted(tmp_path.rglob("*"))
    named = {"RUN": str(quick_model), "IN": str(source), "OUT": "new"}
    named |= change if isinstance(change, dict) else {}
    places = [name if name == "-" else tmp_path / name for name in (named["IN"], named["OUT"])]
    given = change if isinstance(change, list) else []
    assert main(command(named["RUN"], *places, *given)) == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_strange_paths_and_a_folder_in_use(quick_model, source, tmp_path, monkeypatch, capsys):
    from filelock import FileLock

    odd = tmp_path / "a b\n'怎么'\udcff"
    odd.mkdir()
    shutil.copy(source, odd / "-x.CSV")
    asked = command(quick_model, odd / "-x.CSV", odd / "out")
    assert main(asked) == 0
    assert "500 rows in 1 parts" in capsys.readouterr().out
    with FileLock(odd / "out/.lock"):
        assert main(asked) == 2
    assert "another process is writing there" in capsys.readouterr().err
    monkeypatch.setattr("workbench.batch.engines.find_spec", lambda name: None)
    assert main(command(quick_model, asked[2], odd / "other", "--engine", "ray")) == 2
    assert ".[cluster]" in capsys.readouterr().err


def test_a_bad_row_stays_in_its_place_and_is_named(quick_model, tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_bytes("sentence_0,sentence_1\na,b\na,\na,b,c\nb,a\n\xff,b\n".encode("latin-1"))
    out = tmp_path / "out"
    assert main(command(quick_model, path, out)) == 0
    shown = capsys.readouterr()
    assert "5 rows in 1 parts, 3 without a score" in shown.out
    assert f"{path}, line 3, column sentence_1: the text is empty: ''" in shown.err
    found = pd.read_parquet(out)
    assert found["score"].isna().tolist() == [False, True, True, False, True]
    assert found["line"].tolist() == [2, 3, 4, 5, 6]
    assert found["problem"].isna().tolist() == [True, False, False, True, False]
    assert "more or fewer fields" in found["problem"][2]
    assert "column sentence_0: the bytes are not UTF-8 text" in found["problem"][4]
    assert "\\xff" in found["sentence_0"][4]


def test_a_score_that_is_no_number_is_a_problem_of_its_row(quick_model, source, tmp_path):
    class Broken:
        def score(self, pairs):
            return np.where(np.arange(len(pairs)) == 3, np.nan, 1.0).astype(np.float32)

    request = request_for(quick_model, source, part_rows=1000)
    (rows,) = request.parts()
    write = PartWriter(request, tmp_path, scorer=Broken())
    write(0, rows)
    assert write.note(0) == {"part": 0, "rows": ROWS, "bad_rows": 1}
    found = pd.read_parquet(tmp_path)
    assert found["problem"].dropna().to_dict() == {3: "line 5: the model's score is NaN"}


@pytest.mark.parametrize("zipped", [False, True])
def test_top_k_of_candidate_lists(zipped, quick_model, tmp_path):
    pairs = [pair for pair in made_up(80) if all(map(str.strip, pair))]
    lists = [
        {"query": pairs[n][0], "candidates": [b for _, b in pairs[n : n + 6]]}
        for n in range(0, 48, 6)
    ]
    lists[3] = {"query": lists[2]["query"], "positive": ["a"], "negative": ["b", "ab", "", 7]}
    rows = [json.dumps(one, ensure_ascii=False) for one in lists]
    rows += ['{"query": 3, "candidates": []}', '{"query": "a"', '{"query": "a"}']
    path = tmp_path / ("lists.jsonl.gz" if zipped else "lists.jsonl")
    with gzip.open(path, "wt", encoding="utf-8") if zipped else path.open("w") as file:
        file.write("\n".join(rows))
    done = score_file(request_for(quick_model, path, top_k=3, part_rows=10), tmp_path / "out")
    assert (done["rows"], done["bad_rows"]) == (7 * 6 + 5 + 3, 5)
    assert done["bad_row_examples"][0] == "line 4, column negative: the text is empty: ''"
    found = pd.read_parquet(tmp_path / "out")
    bad = found[found["score"].isna()]
    assert bad["line"].tolist() == [4, 4, 9, 10, 11]
    assert bad["rank"].isna().all()
    assert "column query: the value is not a text: '3'" in bad["problem"].iloc[2]
    assert "not a JSON object" in bad["problem"].iloc[3]
    assert "column candidates: the row lacks a column" in bad["problem"].iloc[4]
    best = found.dropna(subset="score")
    assert best["line"].tolist() == [n for n in range(1, 9) for _ in range(3)]
    assert best["rank"].tolist() == [1, 2, 3] * 8
    scorer = open_scorer(request_for(quick_model, path))
    for line, group in best.groupby("line"):
        one = lists[line - 1]
        texts = one.get("candidates", ["a", "b", "ab"])
        scores = dict(zip(texts, scorer.score([(one["query"], t) for t in texts]), strict=True))
        assert group["score"].to_numpy() == pytest.approx(sorted(scores.values())[:-4:-1], abs=1e-5)
        assert [scores[text] for text in group["sentence_1"]] == pytest.approx(
            group["score"].to_list(), abs=1e-5
        )


def test_no_candidate_of_a_list_is_dropped_whatever_holds_it(write_jsonl):
    rows = [{"query": "q", "positive": "a", "negative": ["b"]}, {"query": "q", "candidates": {}}]
    path = write_jsonl([*rows, {"negative": ["c"]}, "[1]", {"query": "q", "negative": None}])
    found = [*ScoringRequest("model", str(path)).rows()]
    assert [row[:3] for row in found[:2]] == [(1, "q", "a"), (1, "q", "b")]
    assert [(row.query, bool(row.problem)) for row in found] == [
        *[("q", False)] * 2,
        *[("q", True), ("", True), ("", True), ("q", True)],
    ]


def test_queries_stay_whole_and_ties_keep_the_order(tmp_path, monkeypatch):
    rows = [Row(n, query, str(n), "", ord(query)) for n, query in enumerate("aaabbbbcc")]
    monkeypatch.setattr(ScoringRequest, "rows", lambda job: iter(rows))
    sizes = [
        [len(part) for part in ScoringRequest("", "", part_rows=2, top_k=k).parts()] for k in (0, 1)
    ]
    assert sizes == [[2, 2, 2, 2, 1], [3, 4, 2]]
    monkeypatch.undo()
    scores = np.array([1, 3, 3, 0, 0, 0, 0, 5, np.nan], dtype=np.float32)
    found = part_table(pd.DataFrame(rows).assign(score=scores), top_k=2).to_pydict()
    assert found["sentence_1"] == ["1", "2", "3", "4", "7", "8"]
    assert found["rank"] == [1, 2, 1, 2, 1, None]
    path = tmp_path / "cut.csv"  # bad rows do not cut the query that they stand among in two
    path.write_text("sentence_0,sentence_1\na,b\na,b,c\n,d\na,e\nb,f\na,g\n")
    found = list(ScoringRequest("", str(path)).rows())
    assert [row.group for row in found] == [1, 1, 1, 1, 2, 3]
    assert [bool(row.problem) for row in found] == [False, True, True, False, False, False]


@pytest.mark.parametrize(
    ("name", "row"),
    [("cut.csv.gz", "a{n},b{n}\n"), ("cut.jsonl.gz", '{"query": "q{n}", "candidates": ["a"]}\n')],
)
def test_a_damaged_file_is_refused_before_the_start(name, row, quick_model, tmp_path):
    path = tmp_path / name
    rows = "sentence_0,sentence_1\n" * name.startswith("cut.csv")
    rows += "".join(row.replace("{n}", str(n)) for n in range(20000))
    path.write_bytes(gzip.compress(rows.encode())[:-9])
    with pytest.raises(PairsError, match=f"{name}: not a complete gzip file"):
        score_file(request_for(quick_model, path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_scoring_by_onnx_loads_no_torch(quick_model, source, tmp_path):
    code = (
        "import sys; from workbench.__main__ import main; code = main(sys.argv[1:]); "
        "print(code, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    asked = [sys.executable, "-c", code, *command(quick_model, source, tmp_path / "o")]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "0 False False", done.stderr
    assert Path(tmp_path / "o/_done.json").exists()


def test_a_damaged_plan_is_refused_by_name(quick_model, source, tmp_path, capsys):
    out = tmp_path / "out"
    score_file(request_for(quick_model, source), out)
    other_types = '{"asked": 1, "source": 2, "rows": "x", "backend": 1, "chosen": {}}'
    for plan in ("{}", "[1]", "[" * 100_000, '{"asked": {}}', other_types, "{"):
        (out / "_plan.json").write_text(plan)
        assert main(command(quick_model, source, out)) == 2, plan
        assert "_plan.json is damaged" in capsys.readouterr().err
    assert len(list(out.glob("part-*.parquet"))) == 7


def test_a_folder_that_cannot_be_written_to_is_not_called_damaged(
    quick_model, source, tmp_path, monkeypatch, capsys
):
    asked = command(quick_model, source, tmp_path / "new/out")
    monkeypatch.setattr("os.access", lambda *given: False)
    assert main(asked) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} cannot be written to" in error
    assert "damaged" not in error
    monkeypatch.undo()
    monkeypatch.setattr(Path, "mkdir", Mock(side_effect=PermissionError("read-only")))
    assert main(asked) == 2
    assert "cannot be written to (read-only)" in capsys.readouterr().err


def test_long_texts_make_smaller_parts_and_no_query_is_endless(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.scoring.score_file.MAX_PART_CHARACTERS", 100)
    path = tmp_path / "long.csv"
    lines = [f"q{n},{'x' * 45}" for n in range(6)] + ["same," + "y" * 300, "same," + "z" * 300]
    path.write_text("sentence_0,sentence_1\n" + "\n".join([*lines, "same,z"]) + "\n")
    sizes = [len(part) for part in ScoringRequest("", str(path)).parts()]
    assert sizes == [2, 2, 2, 1, 1, 1]
    with pytest.raises(PairsError, match="line 10: the query has too much text for --top-k"):
        list(ScoringRequest("", str(path), top_k=1).parts())


def test_the_model_is_cut_where_it_was_trained_to_cut(sharp_model, tmp_path, capsys):
    """`workbench score` gives what plain code of the library gives, without being told a length."""
    import torch
    from sentence_transformers import CrossEncoder

    pairs = [pair for pair in made_up(60, longest=90) if all(map(str.strip, pair))]
    path, out = tmp_path / "pairs.csv", tmp_path / "out"
    pd.DataFrame(pairs, columns=["sentence_0", "sentence_1"]).to_csv(path, index=False)
    assert main(["score", str(sharp_model), str(path), str(out)]) == 0
    exact = CrossEncoder(str(sharp_model)).predict(pairs, activation_fn=torch.nn.Identity())
    assert pd.read_parquet(out)["score"].to_numpy() == pytest.approx(exact, abs=1e-5)
    assert main(["score", str(sharp_model), str(path), str(tmp_path / "b"), "--max-length=9"]) == 0
    other = pd.read_parquet(tmp_path / "b")["score"].to_numpy()
    assert np.abs(other - exact).max() > 1e-3
