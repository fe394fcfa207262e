"""Readers and parameters under made-up input: a clear refusal or a sound result, never a surprise.

Two hundred examples each as a rule; `make nightly` asks for 10,000 (`FUZZ_EXAMPLES`).
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench.batch.plan import SweepFile, read_plan
from workbench.data.lists import read_test
from workbench.data.readers import COLUMNS, REASONS, PairsError, check_rows, file_records
from workbench.files import RequestError
from workbench.runs.parameters import Parameters, check_parameters, read_settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
fuzz = settings(
    max_examples=EXAMPLES,
    derandomize=EXAMPLES == 200,  # the same examples every time, but for the nights
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
BYTES = st.one_of(
    st.binary(max_size=400),
    st.text(alphabet=st.characters(codec="utf-8"), max_size=200).map(lambda t: t.encode("utf-8")),
    st.text(alphabet='ab,"\n\r\t\0=怎', max_size=200).map(lambda t: t.encode("utf-8")),
)
HEADER = b"sentence_0,sentence_1,label\n"


def read_rows(path):
    """The good and the bad rows of a file with the usual columns."""
    return check_rows(file_records(path, dict(zip(COLUMNS, COLUMNS, strict=True))))


def told(error, name):
    """A refusal in one plain text that names the file."""
    assert name in str(error)
    str(error).encode("utf-8")


@fuzz
@given(BYTES, st.booleans(), st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet", ".csv.gz"]))
def test_reading_pairs(tmp_path, content, headed, suffix):
    path = tmp_path / f"pairs{suffix}"
    head = HEADER.replace(b",", b"\t") if suffix == ".tsv" else HEADER
    path.write_bytes(head + content if headed else content)
    try:
        good, bad_rows = read_rows(path)
    except PairsError as error:
        return told(error, "pairs")
    for row in good:
        line, first, second, label = row
        assert line >= 1
        assert first == first.strip() != ""
        assert second == second.strip() != ""
        assert 0 <= label <= 1
        (first + second).encode("utf-8")
        assert "\0" not in first + second
    for bad in bad_rows:
        assert bad.reason in REASONS
        str(bad).encode("utf-8")
    assert len({row[1:] for row in good}) == len(good)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
)


@fuzz
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(COLUMNS, VALUES)), max_size=6))
def test_reading_json_rows_with_any_values(tmp_path, rows):
    import json

    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert sum(map(len, read_rows(path))) == len(rows)


@fuzz
@given(BYTES, st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet"]))
def test_reading_candidates(tmp_path, content, suffix):
    path = tmp_path / f"lists{suffix}"
    path.write_bytes(content)
    try:
        lists = read_test(path).lists
    except PairsError as error:
        return told(error, "lists")
    assert all(
        one.query.strip() and len(set(one.candidates)) == len(one.candidates) for one in lists
    )


YAML = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet="abs:-[]{}&*!?|>'\"#%@`,\n \t1.e怎", max_size=120).map(str.encode),
    st.text(max_size=100).map(lambda t: t.encode("utf-8", "surrogatepass")),
)


@fuzz
@given(YAML)
def test_reading_settings(tmp_path, content):
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    try:
        assert all(isinstance(name, str) for name in read_settings(path))
    except RequestError as error:
        told(error, "settings.yaml")
    for read in (lambda path: check_parameters(read_settings(path)), read_plan):
        try:
            read(path)
        except RequestError as error:
            str(error).encode("utf-8")


NAMES = st.one_of(st.sampled_from(list(Parameters.model_fields)), st.text(max_size=12))
ANY = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=2), max_leaves=3)


@fuzz
@given(st.dictionaries(NAMES, ANY, max_size=5))
def test_checking_parameters(given_values):
    try:
        found = check_parameters(given_values)
    except RequestError as error:
        return told(error, "")
    assert set(given_values) <= set(Parameters.model_fields)
    assert found.dev_share + found.test_share < 1
    assert check_parameters(found.model_dump()) == found  # what was taken is taken again


PARTS = st.sampled_from([*SweepFile.model_fields, "x"])
SETTINGS = st.one_of(ANY, st.dictionaries(NAMES, ANY, max_size=2))


@fuzz
@given(st.dictionaries(PARTS, SETTINGS, max_size=3))
def test_planning_sweeps(tmp_path, given_values):
    import yaml

    path = tmp_path / "sweep.yaml"
    try:
        path.write_text(yaml.safe_dump(given_values, allow_unicode=True), encoding="utf-8")
    except (UnicodeEncodeError, yaml.YAMLError):
        return
    try:
        plan = read_plan(path)
    except RequestError as error:
        str(error).encode("utf-8")
        return
    assert len({run.identity for run in plan.runs}) == len(plan.runs)
    assert plan.runs or plan.search


def test_the_fuzzer_is_not_vacuous(tmp_path):
    """The checks above would notice: a reader that lets a bad row through breaks them."""
    path = tmp_path / "pairs.csv"
    path.write_bytes(HEADER + b"a,b,0.5\n")
    assert len(read_rows(path)[0]) == 1
    with pytest.raises(AssertionError):
        told(PairsError("no name"), "pairs.csv")
