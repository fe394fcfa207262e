"""Findings follow their numbers; phrases; and the names that the rooms lend to notebooks."""

import pandas as pd
import pytest

from workbench.reports import figures, findings
from workbench.reports import findings as phrases


@pytest.fixture
def manifest():
    splits = {
        name: {"pairs": pairs, "positives": positives, "label_mean": mean}
        for name, pairs, positives, mean in (
            ("train", 80, 40, 0.5),
            ("dev", 0, 0, None),
            ("test", 20, 9, 0.45),
        )
    }
    return {
        "rows": {"read": 1000, "usable": 1000, "bad": 0, "used": 100},
        "bad_rows": {},
        "sides": splits,
        "groups": {"count": 60, "largest_share": 0.1},
    }


def test_phrases():
    assert phrases.count(1, "query") == "1 query"
    assert phrases.count(2000, "query") == "2,000 queries"
    assert phrases.count(0, "pair") == "0 pairs"
    assert phrases.names(["a", "b", "c"]) == "`a`, `b` and `c`"
    assert phrases.code("a`b\n\nc") == "`a'b c`"
    assert phrases.sentences("{a}", False, "b {c}.", a="{c}", c=1) == "{c} b 1."


def test_rows_and_splits(manifest):
    assert findings.bad_rows(manifest).endswith("No row was set aside.")
    bad = {"empty": {"count": 2, "meaning": "a text is {empty}"}}
    rows = manifest["rows"] | {"bad": 2}
    text = findings.bad_rows(manifest | {"rows": rows, "bad_rows": bad})
    assert "**2 set aside**: 2 because a text is {empty}." in text
    text = findings.split(manifest)
    assert "train 80 (label mean 0.500), dev 0, test 20 (label mean 0.450)." in text
    assert "only 9 positives" in text
    manifest["groups"]["largest_share"] = 0.5
    manifest["sides"]["test"]["positives"] = 0
    text = findings.split(manifest | {"test_pairs": {"pairs_kept_out_of_train": 7}})
    for words in ("a text with it: 7.", "holds 50% of the pairs", "has no positive"):
        assert words in text


def test_runs_in_words():
    assert findings.states([]) == "0 runs: none."
    assert findings.differences([], pd.DataFrame()) == "There are not two runs to compare."
    assert findings.seeds(pd.DataFrame()) == "No run has `ndcg@10` yet."
    rows = [{"runs": 1, "mean": 0.5, "sd": None, "p_corrected": None}]
    assert "more than one seed" in findings.seeds(pd.DataFrame(rows))
    rows = [{"runs": 2, "mean": 0.5, "sd": 0.1, "p_corrected": None}]
    assert findings.seeds(pd.DataFrame(rows)).endswith("(mean standard deviation of 1 setting).")


@pytest.mark.parametrize("room", [findings, figures])
def test_every_lazy_name_is_a_function_of_the_room(room):
    names = [name for name in dir(room) if name not in ("save_figure", "show")]
    assert len(names) > 10
    for name in names:
        found = getattr(room, name)
        assert found.__module__.startswith(room.__name__), name
        assert found.__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = room.no_such_name


def test_importing_the_report_does_not_load_torch():
    import subprocess
    import sys

    code = "import sys, workbench.reports.page, workbench.reports.findings.ranking as _, "
    code += "workbench.reports.figures.ranking, workbench.reports.model_card; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {"torch", "transformers", "sentence_transformers"}
