"""Candidate lists from JSONL, tables and TREC files: what is read, in which order, what is not."""

import gzip

import numpy as np
import pandas as pd
import pytest

from tests.conftest import write_table
from workbench.data.lists import CandidateList, read_test, write_candidates
from workbench.data.pairs import read_pairs
from workbench.data.readers import PairsError

LISTS = [
    CandidateList("ab", ("ab!", "cd", "xy"), (1.0, 0.0, 0.0)),
    CandidateList(
        "cd", ("zz", "c", "ab"), (0.0, 2.0, 1.0), (3.0,), ("random", "positive", "positive")
    ),
]
TREC = {
    "qrels": "q1 0 d1 1\nq1 0 d2 0\nq1 0 d9 2\nq2 0 d1 -1\nq3 0 d3 1\n",
    "run": "q1 Q0 d2 1 9.5 x\nq1 Q0 d1 2 8.0 x\nq1 Q0 d3 3 7.0 x\nq2 Q0 d1 1 3 x\n"
    "q9 Q0 d1 1 1.0 x\n",
    "queries.tsv": "q1\t怎么借\nq2\t还款\nq3\t开通\nq9\t多余\n",
    "documents.tsv": "d1\t如何借\nd2\t怎么还\nd3\t天气\nd9\t借钱\n",
}


@pytest.fixture
def trec(tmp_path):
    def write(**changes):
        folder = tmp_path / "trec"
        folder.mkdir(exist_ok=True)
        for name, text in (TREC | changes).items():
            if text is not None:
                (folder / name).write_text(text, encoding="utf-8")
        return folder

    return write


def test_lists_survive_writing_and_reading_with_order_grades_and_kinds(tmp_path):
    path = tmp_path / "lists.jsonl"
    write_candidates(path, LISTS)
    assert read_test(path, seed=1).lists == LISTS
    assert read_test(path).recipe["order"] == "as the source states it"


def test_jsonl_without_a_stated_order_is_shuffled_so_that_positives_are_not_first(write_jsonl):
    """Read as written, candidate order would be a perfect scorer."""
    from workbench.scoring.baselines import CandidateOrder

    row = {"query": "q", "positive": ["a"], "negative": [str(n) for n in range(19)]}
    lists = read_test(write_jsonl([row] * 400), seed=3).lists
    places = np.array([one.relevance.index(1.0) for one in lists])
    assert abs(places.mean() - 9.5) < 1.2
    assert len(set(places)) == 20
    assert lists == read_test(write_jsonl([row] * 400), seed=3).lists
    assert lists != read_test(write_jsonl([row] * 400), seed=4).lists
    assert CandidateOrder().score(lists[0].pairs())[places[0]] == -places[0]


def test_jsonl_in_gzip_is_read_and_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "lists.jsonl.gz"
    write_candidates(tmp_path / "lists.jsonl", LISTS)
    path.write_bytes(gzip.compress((tmp_path / "lists.jsonl").read_bytes()))
    assert read_test(path).lists == LISTS
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PairsError, match=r"lists\.jsonl\.gz: not a complete gzip file"):
        read_test(path)


def test_shuffling_keeps_text_relevance_and_kind_together():
    _, candidates, relevance, missed, kinds = LISTS[1].shuffled(5, 0)
    before = zip(*LISTS[1][1:3], LISTS[1].kinds, strict=True)
    assert set(zip(candidates, relevance, kinds, strict=True)) == set(before)
    assert missed == (3.0,)


def test_the_recipe_counts_what_is_there(write_jsonl):
    rows = [
        {"query": "q", "positive": ["a", "b"], "negative": ["c"]},
        {"query": "r", "positive": ["a"], "negative": []},
        {"query": "s", "positive": [], "negative": ["a", "b"]},
        {"query": "t", "positive": ["a", "b"], "negative": []},
    ]
    recipe = read_test(write_jsonl(rows)).recipe
    assert (recipe["queries"], recipe["candidates"], recipe["positives"]) == (4, 8, 5)
    assert recipe["odd_queries"] == {
        "without_candidate": 0,
        "without_positive": 1,
        "one_candidate": 1,
        "all_positive": 1,
    }
    assert list(recipe["sha256"]) == ["rows.jsonl"]


ROW = {"query": "q", "positive": ["a"], "negative": []}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", "line 2"),
        ("[]", "not a JSON object"),
        (ROW | {"query": " "}, "line 2, column query: the text is empty: ' '"),
        ({"query": "q", "positive": ["a"]}, "column negative: the row lacks a column"),
        (ROW | {"positive": [""]}, "column positive: the text is empty: ''"),
        (ROW | {"negative": ["a"]}, "'a' occurs twice among positive and negative"),
        (ROW | {"negative": ["b", "b"]}, "'b' occurs twice among positive and negative"),
        (ROW | {"positive": []}, "has no candidates"),
        (ROW | {"grades": [0]}, "column grades: Input should be greater than 0: 0"),
        (ROW | {"grades": []}, "grades must be one per positive"),
        (ROW | {"order": [1]}, "each of 0 to 0 once"),
        (ROW | {"missed": 3}, "column missed: Input should be a valid list: 3"),
        (ROW | {"kinds": ["x"]}, "column kinds: Input should be 'positive', .*'given': 'x'"),
        (ROW | {"kinds": ["random"] * 2}, "kinds one per candidate"),
    ],
)
def test_a_bad_jsonl_row_is_named(write_jsonl, row, message):
    path = write_jsonl([ROW, row])
    with pytest.raises(PairsError, match=message) as error:
        read_test(path)
    assert "line 2" in str(error.value)
    assert "rows.jsonl" in str(error.value)


def test_rows_that_are_not_utf8_or_mixed_in_order_are_named(tmp_path, write_jsonl):
    path = tmp_path / "latin.jsonl"
    path.write_bytes(b'{"query": "\xe9", "positive": ["a"], "negative": []}\n')
    with pytest.raises(PairsError, match="line 1, column query: the bytes are not UTF-8 text"):
        read_test(path)
    row = {"query": "q", "positive": ["a"], "negative": ["b"]}
    with pytest.raises(PairsError, match="1 of 2 rows have a field 'order'"):
        read_test(write_jsonl([row, row | {"order": [1, 0]}]))


def test_missing_empty_and_unknown_files(tmp_path):
    with pytest.raises(PairsError, match="no such file"):
        read_test(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(PairsError, match="no candidate list"):
        read_test(tmp_path / "empty.jsonl")
    for name, said in (("x.txt", "must end in one of"), ("x.parquet", "not a Parquet file")):
        (tmp_path / name).write_text("x")
        with pytest.raises(PairsError, match=rf"x\..*: .*{said}"):
            read_test(tmp_path / name)


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_a_table_gives_graded_lists_in_the_order_of_its_ranks(tmp_path, suffix, packed):
    rows = [
        ("1", "怎么借", "如何借", 2, 2),
        ("1", "怎么借", "天气，\n好", 0, 1),
        ("2", "还款", "怎么还", 1, 1),
    ]
    frame = pd.DataFrame(rows, columns=["query_id", "query", "candidate", "label", "rank"])
    assert read_test(write_table(frame, tmp_path / f"table{suffix}{packed}")).lists == [
        CandidateList("怎么借", ("天气，\n好", "如何借"), (0.0, 2.0)),
        CandidateList("还款", ("怎么还",), (1.0,)),
    ]


def test_a_table_without_ranks_is_shuffled_and_ids_may_be_numbers(tmp_path):
    rows = [(0, "q", str(n), float(n == 3)) for n in range(9)]
    frame = pd.DataFrame(rows, columns=["query_id", "query", "candidate", "label"])
    frame.to_parquet(tmp_path / "table.parquet")
    (one,), recipe = read_test(tmp_path / "table.parquet")
    assert "shuffled with seed 42" in recipe["order"]
    assert one == CandidateList("q", tuple("012345678"), tuple(frame["label"])).shuffled(42, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n1,a,b\n", "line 1: there is no column 'label'"),
        (",label\n1,a,b,x\n", "line 2, column label: .*a valid number.*: 'x'"),
        (",label\n1,a,b,-1\n", "line 2, column label: .*greater than or equal to 0: '-1'"),
        (",label\n1,a,,1\n", "line 2, column candidate: the text is empty"),
        (",label\n1,a,b,1\n1,c,d,1\n", "line 3: the query is 'c', but above 'a' for '1'"),
        (",label\n1,a,b,1\n1,a,b,0\n", "line 3: 'b' occurs twice"),
        (",label,rank\n1,a,b,1,x\n", "line 2, column rank: .*a valid number.*: 'x'"),
        (",label\n1,a,b\n", "line 2: the line has more or fewer fields"),
        (',label\n1,a,"b,1\n', "line 2: a quotation mark is opened"),
        (",label\n1,a,b,1\n1,a, b ,0\n", "line 3: 'b' occurs twice"),
        (",label\n", "no candidate list"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(f"query_id,query,candidate{text}", encoding="utf-8")
    with pytest.raises(PairsError, match=message) as error:
        read_test(tmp_path / "table.csv")
    assert "table.csv" in str(error.value)


def test_labels_of_a_table_may_be_words_as_in_pairs_and_an_id_must_be_there(tmp_path):
    text = "query_id,query,candidate,label\n1,a,b,True\n1,a,c,false\n"
    (tmp_path / "table.csv").write_text(text, encoding="utf-8")
    (found,) = read_test(tmp_path / "table.csv").lists
    assert found.positives() == ["b"]
    table = pd.DataFrame({"query_id": [1.0, None], "query": "a", "candidate": ["b", "c"]})
    table.assign(label=1).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(PairsError, match="line 2, column query_id: the text is empty"):
        read_test(tmp_path / "table.parquet")


def test_trec_files_keep_the_runs_order_and_every_judged_query(trec):
    lists, recipe = read_test(trec())
    assert lists == [
        CandidateList(
            "怎么借",
            ("怎么还", "如何借", "天气"),
            (0.0, 1.0, 0.0),
            (2.0,),
            ("labelled", "positive", "unjudged"),
        ),
        CandidateList("还款", ("如何借",), (0.0,), (), ("labelled",)),
        CandidateList("开通", (), (), (1.0,)),
    ]
    assert recipe["unjudged_candidates"] == 1
    assert recipe["queries_without_run"] == 1
    assert recipe["queries_without_judgement"] == 1
    assert recipe["missed_positives"] == 2
    assert recipe["order"] == "as the source states it"


def test_trec_scores_decide_the_order_not_the_place_in_the_file(trec):
    run = "q1 Q0 d1 1 1.0 x\nq1 Q0 d2 2 2.0 x\nq1 Q0 d3 1 1.0 x\n"
    assert read_test(trec(run=run)).lists[0].candidates == ("怎么还", "如何借", "天气")


def test_our_figures_of_a_trec_run_are_those_of_trec_eval(trec):
    import ir_measures
    from ir_measures import AP, nDCG

    from workbench.ranking.evaluation import evaluate
    from workbench.scoring.baselines import CandidateOrder

    folder = trec()
    nothing = pd.DataFrame({"sentence_0": [], "sentence_1": [], "label": []})
    found = evaluate({"candidate_order": CandidateOrder()}, read_test(folder).lists, nothing)
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels")))
    run = list(ir_measures.read_trec_run(str(folder / "run")))
    reference = ir_measures.calc_aggregate([nDCG @ 10, AP], qrels, run)
    row = found.metrics["rows"][0]
    assert row["ndcg@10"]["mean"] == pytest.approx(reference[nDCG @ 10])
    assert row["map"]["mean"] == pytest.approx(reference[AP])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qrels": "q1 0 d1\n"}, "qrels: 1 bad rows\n  line 1, column grade: Field required"),
        ({"qrels": "q1 0 d1 x\n"}, "line 1, column grade: Input should be a valid number"),
        ({"qrels": "q7 0 d1 1\n"}, "line 1: the query 'q7' has no text in queries.tsv"),
        ({"qrels": "q1 0 d1 1\nq1 0 d1 1\n"}, "line 2: 'd1' occurs twice"),
        ({"run": "q1 Q0 d1 1 nan x\n"}, "column score: Input should be a finite number: 'nan'"),
        ({"run": "q1 Q0 d7 1 1 x\n"}, "'d7' has no text in documents.tsv"),
        ({"run": "q1 Q0 d1 1 1 x\nq1 Q0 d1 2 0 x\n"}, "line 2: 'd1' occurs twice"),
        ({"queries.tsv": "q1 no tab\n"}, "line 1, column text: Field required: {'id': 'q1 no tab"),
        ({"documents.tsv": "d1\ta\nd1\tb\n"}, "line 2: 'd1' occurs twice"),
    ],
)
def test_bad_trec_files_are_named(trec, changes, message):
    with pytest.raises(PairsError) as error:
        read_test(trec(**changes))
    assert message in str(error.value)


def test_documents_with_one_text_are_one_candidate_with_the_highest_grade(trec):
    folder = trec(
        qrels="q1 0 d1 1\nq1 0 d2 2\nq1 0 d9 3\nq2 0 d3 1\n",
        run="q1 Q0 d3 1 9 x\nq1 Q0 d2 2 8 x\nq1 Q0 d1 3 7 x\nq2 Q0 d1 1 1 x\n",
    )
    (folder / "documents.tsv").write_text("d1\ta\nd2\t a \nd3\tc\nd9\ta\n", encoding="utf-8")
    lists, recipe = read_test(folder)
    assert lists == [
        CandidateList("怎么借", ("c", "a"), (0.0, 3.0), (), ("unjudged", "positive")),
        CandidateList("还款", ("a",), (0.0,), (1.0,), ("unjudged",)),
    ]
    assert recipe["equal_texts_merged"] == 1


def test_rows_that_are_wrong_in_one_way_are_told_once_with_keys_and_shape(write_jsonl):
    with pytest.raises(PairsError) as error:
        read_test(write_jsonl([{"q": "a", "pos": ["b"], "neg": []}] * 30))
    lines = str(error.value).splitlines()
    assert "30 bad rows" in lines[0]
    assert "line 1, column query: the row lacks a column: 'it has q, pos, neg'" in lines[1]
    assert "29 more like it" in lines[1]
    assert '{"query": "...", "positive": ["..."]' in lines[2]
    assert len(lines) == 3


def test_trec_texts_that_are_not_utf8_are_named(trec):
    folder = trec()
    (folder / "documents.tsv").write_bytes(b"d1\ta\nd2\t\xff\n")
    with pytest.raises(
        PairsError,
        match=r"documents.tsv: 1 bad rows\n  line 2, column text: the bytes are not UTF-8",
    ):
        read_test(folder)


def test_a_folder_without_the_four_files_says_what_is_absent(trec):
    with pytest.raises(PairsError, match="there is no 'run' in it"):
        read_test(trec(run=None))


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_any_end_of_line_ends_a_line_in_lists_as_in_pairs(tmp_path, end):
    row = '{"query": "%s", "positive": ["a"], "negative": ["b"]}'
    path = tmp_path / "lists.jsonl"
    path.write_text(end.join(row % query for query in "qrs"), encoding="utf-8", newline="")
    assert [one.query for one in read_test(path).lists] == ["q", "r", "s"]
    path = tmp_path / "pairs.csv"
    rows = ["sentence_0,sentence_1,label", "a,b,1", "c,d,0", "e,f,9"]
    path.write_text(end.join(rows), encoding="utf-8", newline="")
    found = read_pairs(path)
    assert found.frame["line"].tolist() == [2, 3]
    assert [bad.line for bad in found.bad_rows] == [4]
