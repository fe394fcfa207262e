import gzip
import json
import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.pairs import read_pairs
from workbench.data.readers import BadRow, PairsError, parse_label

ROWS = [
    ("怎么开通", "如何开通", 1.0),
    ("怎么开通", "怎么关闭", 0.0),
    ('带"引号"', "逗号,和\t制表", 0.5),
]


def frame():
    return pd.DataFrame(ROWS, columns=["sentence_0", "sentence_1", "label"])


def write(path, kind):
    if kind == "parquet":
        frame().to_parquet(path, index=False)
    elif kind == "jsonl":
        frame().to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        frame().to_csv(path, sep="," if kind == "csv" else "\t", index=False)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_pairs(tmp_path, kind, zipped):
    path = tmp_path / f"pairs.{kind}"
    write(path, kind)
    if zipped:
        packed = tmp_path / f"pairs.{kind}.gz"
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path = packed
    result = read_pairs(path)
    assert not result.bad_rows
    read = result.frame[["sentence_0", "sentence_1", "label"]]
    assert list(read.itertuples(index=False, name=None)) == ROWS
    assert len(result.sha256) == 64


def test_a_folder_of_files_is_read_as_a_hub_data_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    frame().to_csv(folder / "train.csv", index=False)
    frame().head(1).to_csv(folder / "test.csv", index=False)
    assert len(read_pairs(f"hub:{folder}").frame) == 3
    assert len(read_pairs(f"hub:{folder}:test").frame) == 1
    assert len(read_pairs(f"hub:{folder}:default:test").frame) == 1
    with pytest.raises(PairsError, match="cannot be loaded"):
        read_pairs(f"hub:{folder}:default:nosuchsplit")


BAD = {
    "ragged_line": b"a,b,1,2\n",
    "broken_quotes": b'"a"x,b,1\n',
    "encoding": b"\xff\xfea,b,1\n",
    "empty_text": b"  ,b,1\n",
    "label_missing": b"a,b,\n",
    "label_not_a_number": b"a,b,yes\n",
    "label_nan": b"a,b,NaN\n",
    "label_out_of_range": b"a,b,2\n",
    "duplicate": b"good,pair,1\n",
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_is_counted_with_its_line_and_the_rest_is_kept(tmp_path, reason):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"sentence_0,sentence_1,label\ngood,pair,1\n" + BAD[reason] + b"last,one,0\n")
    result = read_pairs(path)
    assert [(row.line, row.reason) for row in result.bad_rows] == [(3, reason)]
    assert list(result.frame["sentence_0"]) == ["good", "last"]
    assert list(result.frame["line"]) == [2, 4]
    assert result.rows_read == 3
    with pytest.raises(PairsError, match="line 3"):
        read_pairs(path, on_bad_rows="fail")


def test_a_quote_that_never_closes_says_which_lines_it_swallowed(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('sentence_0,sentence_1,label\na,b,1\n"c,d,0\ne,f,0\n', encoding="utf-8")
    (row,) = read_pairs(path).bad_rows
    assert row.reason == "broken_quotes"
    assert "lines 3 to 4" in row.value


def test_a_text_over_several_lines_keeps_line_numbers_right(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('sentence_0,sentence_1,label\n"a\nb",c,1\nd,e,9\n', encoding="utf-8")
    result = read_pairs(path)
    assert result.frame["sentence_0"].tolist() == ["a\nb"]
    assert result.bad_rows[0].line == 4


def test_jsonl_rows_may_lack_columns_or_be_no_json(write_jsonl):
    good = {"sentence_0": "a", "sentence_1": "b", "label": True}
    path = write_jsonl(
        [
            good,
            {"sentence_0": "a", "label": 1},
            "{oops",
            {**good, "sentence_0": 7},
            {**good, "label": [1]},
        ]
    )
    result = read_pairs(path)
    reasons = [(row.line, row.reason) for row in result.bad_rows]
    assert reasons == [
        (2, "missing_column"),
        (3, "invalid_json"),
        (4, "not_text"),
        (5, "label_not_a_number"),
    ]
    assert result.frame["label"].tolist() == [1.0]


def test_columns_are_mapped_by_name(tmp_path):
    path = tmp_path / "pairs.csv"
    frame().set_axis(["q", "d", "y"], axis=1).to_csv(path, index=False)
    mapped = read_pairs(path, {"sentence_0": "q", "sentence_1": "d", "label": "y"})
    assert mapped.frame["sentence_1"].tolist() == [row[1] for row in ROWS]
    with pytest.raises(PairsError, match=r"line 1.*'sentence_0'.*parameter sentence_0_column"):
        read_pairs(path)


def test_the_nearest_column_is_suggested(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("sentence_0,sentence_1,labels\na,b,1\n", encoding="utf-8")
    with pytest.raises(PairsError, match="did you mean 'labels'"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.xlsx", b"x", "must end in one of"),
        ("pairs.csv", b"", "no column"),
        ("pairs.csv", b"sentence_0,sentence_1,label\n", "no usable pair"),
        ("pairs.csv", b"label,label,sentence_0,sentence_1\n1,1,a,b\n", "twice"),
        ("pairs.csv", "sentence_0,sentence_1,label\n".encode("utf-16"), "UTF-16"),
        ("pairs.parquet", b"no parquet", "not a Parquet file"),
        ("pairs.csv.gz", b"no gzip at all", "gzip"),
    ],
)
def test_a_hopeless_file_is_an_error_that_says_why(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(PairsError, match=message):
        read_pairs(path)


def test_a_missing_file_is_named():
    with pytest.raises(PairsError, match=r"no/such\.csv"):
        read_pairs("no/such.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes("\ufeffsentence_0,sentence_1,label\na,b,1\n".encode())
    assert len(read_pairs(path).frame) == 1


@pytest.mark.parametrize(
    ("value", "label"),
    [("true", 1.0), ("FALSE", 0.0), (" 0.25 ", 0.25), (True, 1.0), (0, 0.0), ("1", 1.0)],
)
def test_labels_in_many_spellings(value, label):
    assert parse_label(value) == label


@given(st.one_of(st.floats(), st.integers(), st.text(max_size=8), st.none(), st.booleans()))
def test_a_label_is_in_range_or_has_a_reason(value):
    result = parse_label(value)
    assert isinstance(result, str) or (0.0 <= result <= 1.0 and not math.isnan(result))


@given(
    st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), st.text(max_size=4)), max_size=8)
)
def test_no_row_is_lost_whatever_the_texts_are(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "pairs.jsonl"
    lines = [{"sentence_0": "a", "sentence_1": "b", "label": 1}]
    lines += [dict(zip(("sentence_0", "sentence_1", "label"), row, strict=True)) for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = read_pairs(path)
    assert result.rows_read == len(lines)
    seen = sorted([*result.frame["line"], *(row.line for row in result.bad_rows)])
    assert seen == list(range(1, len(lines) + 1))


def test_a_bad_row_reads_as_a_sentence():
    assert str(BadRow(7, "label_nan", "label", "nan")) == (
        "line 7, column label: the label is NaN: 'nan'"
    )
