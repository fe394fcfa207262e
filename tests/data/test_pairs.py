import csv
import gzip
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import labelled, write_table
from workbench.data.pairs import read_pairs
from workbench.data.readers import COLUMNS, BadRow, PairsError, file_records, parse_label
from workbench.files import RequestError
from workbench.runs.parameters import check_parameters

ROWS = [
    ("怎么开通", "如何开通", 1.0),
    ("怎么开通", "怎么关闭", 0.0),
    ('带"引号"', "逗号,和\t制表", 0.5),
]


def rows(pairs):
    return list(pairs.frame[COLUMNS].itertuples(index=False, name=None))


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_format_gives_the_same_pairs(tmp_path, kind, packed):
    result = read_pairs(write_table(labelled(*ROWS), tmp_path / f"pairs.{kind}{packed}"))
    assert not result.bad_rows
    assert rows(result) == ROWS
    assert len(result.sha256) == 64


def test_a_folder_of_files_is_read_as_a_hub_data_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    labelled(*ROWS).to_csv(folder / "train.csv", index=False)
    labelled(ROWS[0]).to_csv(folder / "test.csv", index=False)
    assert len(read_pairs(f"hub:{folder}").frame) == 3
    assert len(read_pairs(f"hub:{folder}:test").frame) == 1
    assert len(read_pairs(f"hub:{folder}:default:test").frame) == 1
    with pytest.raises(PairsError, match="cannot be loaded"):
        read_pairs(f"hub:{folder}:default:nosuchsplit")


def test_candidate_lists_are_pairs_with_their_grades_as_labels(tmp_path):
    """Rows of JSONL, and a folder of TREC files whose grades `label_map` brings to [0, 1]."""
    lists = tmp_path / "lists.jsonl"
    graded = {"query": "q", "positive": ["a", "b"], "negative": ["c"], "grades": [1, 0.5]}
    plain = {"query": "r", "positive": [], "negative": ["d"]}
    lists.write_text(f"{json.dumps(graded)}\n{json.dumps(plain)}\n")
    found = read_pairs(lists)
    assert rows(found) == [("q", "a", 1.0), ("q", "b", 0.5), ("q", "c", 0.0), ("r", "d", 0.0)]
    assert found.frame["line"].tolist() == [1, 1, 1, 2]
    lists.write_text(json.dumps(graded | {"negative": ["a"]}))
    with pytest.raises(PairsError, match="candidate 'a' occurs twice"):
        read_pairs(lists)
    trec = tmp_path / "trec"
    trec.mkdir()
    with pytest.raises(PairsError, match="there is no 'qrels' in it"):
        read_pairs(trec)
    (trec / "qrels").write_text("1 0 a 2\n1 0 b 0\n1 0 c 2\n1 0 d 1\n")
    (trec / "run").write_text("".join(f"1 Q0 {n} 1 {place} x\n" for place, n in enumerate("abcde")))
    (trec / "queries.tsv").write_text("1\tq\n")
    (trec / "documents.tsv").write_text("".join(f"{n}\t{n.upper()}\n" for n in "abcde"))
    with pytest.raises(PairsError, match=r"label_map: 0=0,1=0\.5,2=1"):
        read_pairs(trec)
    found = read_pairs(trec, label_map="0=0,1=0.5,2=1")
    labels = {"A": 1.0, "B": 0.0, "C": 1.0, "D": 0.5, "E": 0.0}  # E was not judged
    assert rows(found) == [("q", text, labels[text]) for text in "EDCBA"]
    (trec / "queries.tsv").write_text("1\tother\n")
    assert read_pairs(trec, label_map="0=0,1=0.5,2=1").sha256 != found.sha256


HEADER = b"sentence_0,sentence_1,label\n"
BAD = {
    "ragged_line": b"a,b,1,2\n",
    "broken_quotes": b'"a"x,b,1\n',
    "encoding": b"\xff\xfea,b,1\n",
    "nul": b"a\0,b,1\n",
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


def read(tmp_path, text, name="pairs.csv", **options):
    path = tmp_path / name
    path.write_text("sentence_0,sentence_1,label\n".replace(",", text[0]) + text[1:], "utf-8")
    return read_pairs(path, **options)


@pytest.mark.parametrize(
    ("text", "good", "bad"),
    [
        ('"c,d,0\ne,f,0\n', ["e"], [2]),  # never closed
        ('"c,d,0\ne,f,0\ng",h,1\ni,j,0\n', ["e", "i"], [2, 4]),  # closed two rows later
        ('"a "b" c",d,1\ne,f,0\n', ["e"], [2]),  # closed in mid-field
        ('"a\nb, c, d",x,1\n', ["a\nb, c, d"], []),  # a text over lines, with separators
        ('"he says, or\nnot, or, yes",x,0\n', ["he says, or\nnot, or, yes"], []),
        ('5" pipe,b,1\n', ['5" pipe'], []),
        (
            '"say \\"hi\\"",b,1\n"in C:\\",c,0\n"end \\"",d,0\n',
            ['say "hi"', "in C:\\", 'end "'],
            [],
        ),
    ],
)
def test_a_quotation_mark_never_swallows_a_row(tmp_path, text, good, bad):
    found = read(tmp_path, "," + text)
    assert found.frame["sentence_0"].tolist() == good
    assert [row.line for row in found.bad_rows] == bad
    assert {row.reason for row in found.bad_rows} <= {"broken_quotes"}


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ('"a\tb\t1\nc\td\t0\ne"\tf\t0\n', ['"a', "c", 'e"']),  # three rows, not one
        ('"a\tb\t1\nc\td\t0\n', ['"a', "c"]),
        ('"a" b\tc\t1\n"d"\te\t0\n', ['"a" b', '"d"']),
        ('x\ty\t0\n"a ""b"""\tc\t1\n"d\te\nf"\tg\t0\n', ["x", 'a "b"', "d\te\nf"]),  # pandas
        ('"a"\t"b"\t1\n"c"\t"d"\t0\n', ["a", "c"]),  # quoted throughout
    ],
)
def test_in_a_tsv_a_quotation_mark_that_quotes_nothing_is_a_character(tmp_path, text, good):
    found = read(tmp_path, "\t" + text, "pairs.tsv")
    assert found.frame["sentence_0"].tolist() == good
    assert not found.bad_rows


def test_a_tsv_that_is_quoted_throughout_may_have_any_text(tmp_path):
    texts = [("\t0x", "b\n'a"), ("\t", '0""'), ("11", "\t\\\n'\t"), ("1\t", "a\n\tb")]
    frame = labelled(*((*pair, n % 2) for n, pair in enumerate(texts)))
    path = tmp_path / "pairs.tsv"
    frame.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_ALL)
    names = dict(zip(COLUMNS, COLUMNS, strict=True))
    good = [row[1:3] for row in file_records(path, names) if not isinstance(row, BadRow)]
    assert good[:2] == texts[:2]
    assert set(good) <= set(texts)  # what could be two rows as well is refused


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(HEADER), "the file is in gzip: its name must end in .gz"),
        (b"PK\x03\x04" + HEADER, "a zip archive or a spreadsheet"),
        (b"PAR1", "its name must end in .parquet"),
        (HEADER.decode().encode("utf-16-le"), "The header is not UTF-8"),
        (b"\n \n", "there is no line with the names of the columns"),
        (HEADER + b"a,b,5\n", "'5' -> give each label its value"),
        (HEADER + b"a,b,\n", "the label is empty: '' -> correct them$"),  # nothing to advise
    ],
)
def test_what_a_file_is_and_what_to_do_is_said(tmp_path, content, said):
    (tmp_path / "pairs.csv").write_bytes(content)
    with pytest.raises(PairsError, match=said):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize("above", [b"\r\n\n", b"sep=,\r\n\n", b"\xef\xbb\xbfSEP=,\n\n"])
@pytest.mark.parametrize("separator", ",\t")
def test_blank_lines_and_the_separator_before_the_header_are_no_header(tmp_path, separator, above):
    path = tmp_path / ("pairs.csv" if separator == "," else "pairs.tsv")
    path.write_bytes((above + HEADER + b"a,b,1\n").replace(b",", separator.encode()))
    assert read_pairs(path).frame[["sentence_0", "line"]].to_numpy().tolist() == [["a", 4]]


def test_labels_on_another_scale_are_a_problem_that_one_parameter_solves(tmp_path):
    graded = ",a,b,0\nc,d,1\ne,f,2\ng,h,3\n"
    with pytest.raises(PairsError, match=r"from 0 to 3.*label_map: 0=0,1=0.333,2=0.667,3=1"):
        read(tmp_path, graded)
    found = read(tmp_path, graded, label_map="0=0, 1=0, 2=1, 3=1")
    assert found.frame["label"].tolist() == [0, 0, 1, 1]
    with pytest.raises(PairsError, match=r"from -1 to 1.*label_map: -1=0,1=1"):
        read(tmp_path, ",a,b,-1\nc,d,1\ne,f,-1.0\n")
    with pytest.raises(PairsError, match="bring them to that scale"):
        read(tmp_path, "," + "".join(f"a{n},b,{n}\n" for n in range(30)))
    with pytest.raises(PairsError, match=r"2 of 2 rows cannot.*label_map: no=0,yes=1"):
        read(tmp_path, ",a,b,no\nc,d,yes\n")
    words = read(tmp_path, ",a,b,No\nc,d,yes\ne,f,?\ng,h,\n", label_map="no=0,yes=1")
    assert words.frame["label"].tolist() == [0, 1]
    assert [row.reason for row in words.bad_rows] == ["label_not_mapped", "label_missing"]


@pytest.mark.parametrize(
    "wrong", ["1", "a=2", "a=0,A=1", "1=0,1.0=1", "=1", "a=x", ",", "0:0", {"a": 1}, 3, None]
)
def test_a_label_map_that_cannot_be_meant_is_refused_by_what_was_given(tmp_path, wrong):
    with pytest.raises(PairsError) as error:
        read(tmp_path, ",a,b,1\n", label_map=wrong)
    assert f"label_map is {wrong!r}, but must name each label once" in str(error.value)
    assert "such as no=0,yes=1" in str(error.value)
    if isinstance(wrong, str):  # the same before a run starts, in place of a pattern
        with pytest.raises(RequestError) as error:
            check_parameters({"label_map": wrong})
        assert f"label_map is {wrong!r}, but must name each label once" in str(error.value)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_text_has_the_same_limit_in_every_format(tmp_path, monkeypatch, kind):
    monkeypatch.setattr("workbench.data.readers.MAX_TEXT", 200_000)
    frame = labelled(("x" * 140_000, "b", 1.0), ("y" * 200_001, "b", 1.0))
    found = read_pairs(write_table(frame, tmp_path / f"p.{kind}"))
    assert found.frame["sentence_0"].str.len().tolist() == [140_000]
    (bad,) = found.bad_rows
    assert bad.reason == "long_text"
    assert len(bad.value) <= 200


def test_what_unfolds_to_a_huge_line_or_a_huge_column_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.data.readers.MAX_LINE", 10_000)
    for name in ("bomb.csv.gz", "bomb.jsonl.gz"):
        head = b"sentence_0,sentence_1,label\n" * name.endswith("csv.gz")
        (tmp_path / name).write_bytes(gzip.compress(head + b"a" * 30_000_000))
        with pytest.raises(PairsError, match=r"bomb.*line \d: more than 10,000 characters"):
            read_pairs(tmp_path / name)
    import tracemalloc

    labelled(*[("x" * 400_000, "b", 1.0)] * 500).to_parquet(tmp_path / "bomb.parquet")
    assert (tmp_path / "bomb.parquet").stat().st_size < 1_000_000
    tracemalloc.start()
    assert len(read_pairs(tmp_path / "bomb.parquet").frame) == 1
    assert tracemalloc.get_traced_memory()[1] < 100_000_000  # all rows at once: 200 MB
    tracemalloc.stop()


def parquet(path, texts, **options):
    labelled(*((text, "b", 1.0) for text in texts)).to_parquet(path, index=False, **options)
    return path


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", None])
def test_a_page_that_claims_too_much_is_refused_before_it_is_decompressed(
    tmp_path, monkeypatch, version, codec
):
    import pyarrow.parquet as pq

    path = parquet(
        tmp_path / "pairs.parquet",
        [chr(97 + n) * 9000 for n in range(3)],
        compression=codec,
        data_page_version=version,
        write_statistics=True,
        use_dictionary=version == "1.0",
    )
    assert len(read_pairs(path).frame) == 3
    monkeypatch.setattr("workbench.data.readers.MAX_PAGE", 20_000)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("was read"))
    packed = tmp_path / "pairs.parquet.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for one in (path, packed):
        with pytest.raises(PairsError, match=r"'sentence_0': a page has 27,0\d\d bytes"):
            read_pairs(one)


def test_the_header_of_a_page_counts_not_the_metadata(tmp_path, monkeypatch):
    """A file whose metadata are honest and small, and one page of which claims almost 1 GB."""
    path = parquet(tmp_path / "pairs.parquet", ["a"] * 9, compression="zstd", use_dictionary=False)
    raw = path.read_bytes()
    place = raw.index(b"\x15\x00\x15", 4)  # a data page: type 0, then the size in zigzag
    size = raw[place + 3]
    assert size < 128
    claims = raw[: place + 3] + b"\xfe\xff\xff\xff\x07" + raw[place + 4 :]
    monkeypatch.setattr("pyarrow.parquet.ParquetFile.iter_batches", lambda *_, **__: 1 / 0)
    path.write_bytes(claims)
    with pytest.raises(PairsError, match="a page has 1,073,741,823 bytes when decompressed"):
        read_pairs(path)


@pytest.mark.parametrize("damage", ["cut", "header", "text"])
def test_a_damaged_parquet_file_is_no_traceback(tmp_path, damage):
    path = parquet(tmp_path / "pairs.parquet", ["abcde"] * 9, compression=None)
    raw = path.read_bytes()
    broken = {
        "cut": raw[:-9],
        "header": raw[:4] + b"\xff" * 20 + raw[24:],
        "text": raw.replace(b"abcde", b"ab\xffde"),
    }
    path.write_bytes(broken[damage])
    with pytest.raises(PairsError, match=r"pairs\.parquet: not a Parquet file"):
        read_pairs(path)


def test_a_text_over_several_lines_keeps_line_numbers_right(tmp_path):
    result = read(tmp_path, ',"a\nb",c,1\nd,e,9\n')
    assert result.frame["sentence_0"].tolist() == ["a\nb"]
    assert result.bad_rows[0].line == 4


def test_jsonl_rows_may_lack_columns_or_be_no_json(write_jsonl):
    good = {"sentence_0": "a", "sentence_1": "b", "label": True}
    bad = {
        "missing_column": {"sentence_0": "a", "label": 1},
        "invalid_json": "{oops",
        "not_text": {**good, "sentence_0": 7},
        "label_not_a_number": {**good, "label": [1]},
    }
    result = read_pairs(write_jsonl([good, *bad.values()]))
    assert [(row.line, row.reason) for row in result.bad_rows] == [*enumerate(bad, 2)]
    assert result.frame["label"].tolist() == [1.0]


def test_columns_are_mapped_by_name(tmp_path):
    path = tmp_path / "pairs.csv"
    labelled(*ROWS).set_axis(["q", "d", "y"], axis=1).to_csv(path, index=False)
    mapped = read_pairs(path, {"sentence_0": "q", "sentence_1": "d", "label": "y"})
    assert mapped.frame["sentence_1"].tolist() == [row[1] for row in ROWS]
    with pytest.raises(PairsError, match=r"line 1.*'sentence_0'.*parameter sentence_0_column"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pairs.xlsx", b"x", "must end in one of.*save it as 'CSV UTF-8'"),
        ("pairs.csv", b"sentence_0;sentence_1;label\na;b;1\n", "separator seems to be ';'"),
        ("pairs.csv", b"How do I pay?,How to pay,1\na,b,0\n", "first line seems to be a row"),
        ("pairs.csv", "问题,答案\n".encode("gbk"), "header is not UTF-8: save it as 'CSV UTF-8'"),
        ("pairs.csv", HEADER + "怎么,如何,1\n".encode("gbk"), "perhaps GBK .*'CSV UTF-8'"),
        ("pairs.jsonl", b'{"sentence_0": "a", "sentence_1": "b", "label": 1, "label": 0}', "twice"),
        ("pairs.csv", b"sentence_0,sentence_1,labels\na,b,1\n", "did you mean 'labels'"),
        ("pairs.csv", b"", "no line with the names"),
        ("pairs.csv", b"sentence_0,sentence_1,label\n", "there is no row in it"),
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


def test_a_missing_file_is_named_and_a_byte_order_mark_is_no_part_of_a_column(tmp_path):
    with pytest.raises(PairsError, match=r"no/such\.csv"):
        read_pairs("no/such.csv")
    (tmp_path / "pairs.csv").write_text("\ufeffsentence_0,sentence_1,label\na,b,1\n", "utf-8")
    assert len(read_pairs(tmp_path / "pairs.csv").frame) == 1


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


# Two labels out of range would be another scale, which is refused as a whole.
IN_RANGE = st.text(max_size=4).filter(lambda text: parse_label(text) != "label_out_of_range")


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5), IN_RANGE), max_size=8))
def test_no_row_is_lost_whatever_the_texts_are(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("fuzz") / "pairs.jsonl"
    rows = [("a", "b", 1), ("a", "b", 7), *rows]
    lines = [dict(zip(("sentence_0", "sentence_1", "label"), row, strict=True)) for row in rows]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = read_pairs(path)
    assert result.rows_read == len(lines)
    seen = sorted([*result.frame["line"], *(row.line for row in result.bad_rows)])
    assert seen == list(range(1, len(lines) + 1))


def test_a_bad_row_reads_as_a_sentence():
    assert str(BadRow(7, "label_nan", "label", "nan")) == (
        "line 7, column label: the label is NaN: 'nan'"
    )
