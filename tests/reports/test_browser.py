"""The error browser in a notebook and in the report, and what hostile texts can do: nothing."""

import html
import re

import nbformat
import pytest
from markupsafe import escape

from tests.ranking.test_evaluation import NO_PAIRS
from workbench.data.build_lists import build_test
from workbench.data.lists import CandidateList
from workbench.files import read_json, write_json
from workbench.models import find_model, load_tokenizer
from workbench.ranking.evaluation import evaluate
from workbench.ranking.slices import query_features
from workbench.reports.browser import (
    browser_records,
    error_browser,
    live_ranking,
    query_html,
    save_browser,
)
from workbench.reports.page import SCRIPT, SCRIPT_HASH, write_report
from workbench.scoring.baselines import CharacterJaccard, RandomScorer
from workbench.vocabulary.dictionary import sample_glosses

HOSTILE = [
    "<script>alert(1)</script>",
    "</td>",
    "</table></script><b id=broken>x",
    "<img src=x onerror=\"document.title='taken'\">",
    "\"><script>document.title='taken'",
    "{{7*7}} & $x$ '\"",
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(find_model(str(tiny_model)))


@pytest.fixture(scope="module")
def records(sample, tokenizer):
    lists = build_test(sample, 20).lists[:30]
    gain = (1.0,) + (0.0,) * (len(HOSTILE) - 1)
    for text in HOSTILE:
        others = (other for other in HOSTILE if other != text)
        lists.append(CandidateList(text, ("怎么开通", *others), gain))
    lists.append(CandidateList("空", (), (), (1.0,)))
    scorers = {"model": RandomScorer(1), "char_jaccard": CharacterJaccard()}
    result = evaluate(scorers, lists, sample.head(0), resamples=100)
    return browser_records(result, query_features(lists, tokenizer), tokenizer)


def test_records_hold_both_orders_with_tokens_and_every_positive(records):
    assert len(records) == 37
    assert [r["model"] for r in records] == sorted(r["model"] for r in records)
    for record in records:
        for name, rows in record["orders"].items():
            ranks = [row["rank"] for row in rows]
            assert ranks == sorted(ranks)
            assert len(rows) >= min(10, len(rows))
            assert any(row["relevance"] > 0 for row in rows) or record["query"] == "空", name
            assert all(row["text"] in record["tokens"] for row in rows)
        positives = [r["rank"] for r in record["orders"]["model"] if r["relevance"] > 0]
        assert record["rank"] == min(positives, default=None)
        assert any(name.startswith("length:") for name in record["slices"])


def test_a_query_shows_shared_and_unknown_signs(tokenizer):
    lists = [CandidateList("怎么龘", ("怎么龘x", "天气"), (1.0, 0.0))]
    scorers = {"model": CharacterJaccard(), "random": RandomScorer(1)}
    result = evaluate(scorers, lists, NO_PAIRS, resamples=100)
    (record,) = browser_records(result, query_features(lists, tokenizer), tokenizer)
    shown = query_html(record)
    shown = re.sub(r"\s*\n\s*", "", shown)
    candidate = shown.partition("<tbody>")[2]
    assert '<mark>怎么</mark><mark><span class="wb-unk">龘</span></mark>' in candidate
    assert "</mark>x<div" in candidate  # neither shared nor unknown
    assert "[UNK]" in shown
    assert '<tr class="wb-relevant"><td>1</td><td>1</td>' in shown
    assert shown.count("<table>") == 2


def test_hostile_texts_are_no_tags_and_the_only_script_is_ours(records, tmp_path):
    save_browser(tmp_path, records)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert f"script-src {SCRIPT_HASH};" in page
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", SCRIPT_HASH)
    for words in ("default-src 'none'", "form-action 'none'", "src:url(data:font"):
        assert words in page
    body = page.partition("<main>")[2].replace(f"<script>{SCRIPT}</script>", "")
    allowed = {"main", "body", "html", "section", "h1", "p", "label", "input", "span", "div"}
    allowed |= {"table", "thead", "tbody", "tr", "th", "td", "caption"}
    allowed |= {"details", "summary", "mark", "h2", "a"}
    assert {tag.lower() for tag in re.findall(r"</?([a-zA-Z0-9]+)", body)} <= allowed
    plain = html.unescape(re.sub(r"</?(?:mark|span)[^>]*>", "", body))
    for text in HOSTILE:
        assert str(escape(text)) in page
        assert plain.count(text) >= 3
    save_browser(tmp_path, [])
    assert "<script" not in write_report(tmp_path).read_text(encoding="utf-8")


REFRESH = '<meta http-equiv="refresh" content="0; url=about:blank"><form action=x>"'


@pytest.fixture
def foreign(tmp_path, records):
    """A run folder made elsewhere, with a redirect in every value that the page shows."""
    return write_foreign(tmp_path, records)


def write_foreign(tmp_path, records):
    record = records[0] | {"rank": REFRESH, "other_name": REFRESH, "slices": [REFRESH]}
    record["orders"] = {
        f"{name}{REFRESH}": [row | {"rank": REFRESH} for row in rows]
        for name, rows in record["orders"].items()
    }
    save_browser(tmp_path, [record])
    scorer = f"a`{REFRESH}\n\n{REFRESH}"
    row = {"mean": 0.5, "low": 0.1, "high": 0.9}
    rows = [{"scorer": name, "ndcg@10": row} for name in ("model", scorer)]
    metrics = {"queries": 20, "rows": rows, "model_minus": {scorer: row}}
    write_json(tmp_path / "evaluation/metrics.json", metrics)
    status = {"state": "failed", "notebook": REFRESH, "cell": REFRESH, "error": REFRESH}
    write_json(tmp_path / "status.json", status)
    name = REFRESH.replace("/", "")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"# {REFRESH}")])
    for stem in (name, f'01"{name}'):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, tmp_path / "notebooks" / f"{stem}.ipynb")
        notebook.cells[0].source = REFRESH  # without a title the name of the file is shown
    return tmp_path


def test_a_run_folder_made_elsewhere_leads_nowhere(foreign):
    """No value of a run's records becomes a tag: no redirect, no form, no attribute."""
    page = write_report(foreign).read_text(encoding="utf-8")
    assert re.findall(r"<meta [a-z-]+", page) == ["<meta charset", "<meta http-equiv", "<meta name"]
    assert page.count('http-equiv="') == 1
    assert "<form" not in page
    assert page.count(str(escape(REFRESH))) >= 9
    assert read_json(foreign / "evaluation/browser.json")[0]["rank"] == REFRESH


def test_the_view_in_jupyterlab_chooses_slice_order_and_query(records):
    view = error_browser(records)
    controls, queries, shown = view.children
    chosen, order, count = controls.children
    assert len(queries.options) == 37
    assert count.value == "37 queries"
    first = shown.value
    known = next(record for record in records if record["query"] in sample_glosses())
    assert str(escape(sample_glosses()[known["query"]])) in query_html(known)
    assert records[0]["query"] in html.unescape(re.sub(r"<[^>]*>", "", first))
    queries.index = 2
    assert shown.value != first
    name = next(name for name in chosen.options if name.startswith("length"))
    chosen.value = name
    matching = [r for r in records if name in r["slices"]]
    assert len(queries.options) == len(matching) < 37
    assert count.value == f"{len(matching)} queries"
    chosen.value = "all queries"
    order.value = "most won from the baseline"
    gains = [r["model"] - r["other"] for r in records]
    best = queries.options[0][1]
    assert best["model"] - best["other"] == max(gains)
    order.value = "as in the file"
    assert [record["number"] for _, record in queries.options] == list(range(37))


def test_a_browser_of_nothing_shows_nothing():
    assert error_browser([]).children[2].value == ""


def test_a_query_typed_in_is_ranked_live_with_its_scores():
    view = live_ranking({"model": CharacterJaccard(), "b": RandomScorer(1)}, "ab", ["x", "ab"])
    asked, lines, button, shown = view.children
    assert shown.value.index("<td>ab</td>") < shown.value.index("<td>x</td>")
    assert "<th>b</th>" in shown.value
    assert re.search(r"<td>ab</td>\s*<td>1.000</td>", shown.value)
    lines.value = "a\n\n <script>alert(1)</script> \n"
    button.click()
    assert "<script>" not in shown.value
    assert "&lt;script&gt;" in shown.value
    assert "in English" not in shown.value
    lines.value, meaning = next(iter(sample_glosses().items()))
    button.click()
    assert f"<td>{meaning}</td>" in shown.value
    asked.value = " "
    button.click()
    assert "Type a query" in shown.value
