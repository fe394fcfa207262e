"""The error browser in a notebook and in the report, and what hostile texts can do: nothing."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from workbench.data.build_lists import build_candidates
from workbench.data.lists import CandidateList
from workbench.models import find_model, load_tokenizer
from workbench.ranking.evaluation import evaluate, rank_query
from workbench.ranking.slices import query_features
from workbench.reports.browser import (
    browser_records,
    error_browser,
    live_ranking,
    query_html,
    ranking_html,
    save_browser,
)
from workbench.reports.page import SCRIPT, queries_section, script_hash, write_report
from workbench.scoring.baselines import CharacterJaccard, RandomScorer

HOSTILE = [
    "<script>alert(1)</script>",
    "</td>",
    "</table></script><b id=broken>x",
    "<img src=x onerror=\"document.title='taken'\">",
    "\"><script>document.title='taken'",
    "{{7*7}} & $x$ '\"",
]
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return load_tokenizer(find_model(str(tiny_model)))


@pytest.fixture(scope="module")
def records(sample, tokenizer):
    lists = build_candidates(sample, 20)[:30]
    lists += [
        CandidateList(
            text,
            ("怎么开通", *(t for t in HOSTILE if t != text)),
            (1.0,) + (0.0,) * (len(HOSTILE) - 1),
        )
        for text in HOSTILE
    ]
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
    import pandas as pd

    nothing = pd.DataFrame({"sentence_0": [], "sentence_1": [], "label": []})
    scorers = {"model": CharacterJaccard(), "random": RandomScorer(1)}
    result = evaluate(scorers, lists, nothing, resamples=100)
    (record,) = browser_records(result, query_features(lists, tokenizer), tokenizer)
    shown = query_html(record)
    candidate = shown.partition("<tbody>")[2]
    assert '<mark>怎么</mark><mark><span class="wb-unk">龘</span></mark>' in candidate
    assert "</mark>x<div" in candidate  # neither shared nor unknown
    assert "[UNK]" in shown
    assert '<tr class="wb-relevant"><td>1</td><td>1</td>' in shown
    assert shown.count("<table>") == 2


def test_hostile_texts_are_shown_and_are_no_tags(records):
    page = queries_section(records)
    body = page.replace(f"<script>{SCRIPT}</script>", "")
    allowed = {
        "h1",
        "p",
        "label",
        "input",
        "span",
        "div",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "caption",
        "mark",
    }
    assert {tag.lower() for tag in re.findall(r"</?([a-zA-Z0-9]+)", body)} <= allowed
    for text in HOSTILE:
        assert html.escape(text) in page
    plain = html.unescape(re.sub(r"</?(?:mark|span)[^>]*>", "", body))
    for text in HOSTILE:
        assert plain.count(text) >= 3


def test_the_script_is_ours_alone_and_its_hash_is_the_policy(records, tmp_path):
    save_browser(tmp_path, records)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<script") == 1
    assert f"script-src {script_hash()};" in page
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", script_hash())
    assert "default-src 'none'" in page
    assert "src:url(data:font" in page
    assert queries_section([]) == ""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the report with")
@pytest.mark.parametrize(("asked", "found"), [("", 37), ("alert(1)", 6), ("没有这样的", 0)])
def test_in_a_browser_the_search_works_and_hostile_texts_do_not(records, tmp_path, asked, found):
    """The page in a real browser: our script runs, and no text from the data does."""
    save_browser(tmp_path, records)
    page = write_report(tmp_path)
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}/u",
            "--dump-dom",
            f"{page.as_uri()}#search={asked}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f'<span id="found">{found} of 37 queries</span>' in done.stdout
    assert "<title>Run " in done.stdout
    assert "taken</title>" not in done.stdout
    assert 'id="broken"' not in done.stdout
    assert done.stdout.count("<script>") == 1
    assert done.stdout.count("<tbody hidden") == 37 - found


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to open the report with")
def test_the_browser_would_notice_a_script_that_runs(records, tmp_path):
    """Without this the test above could pass because nothing ever runs."""
    save_browser(tmp_path, records)
    page = write_report(tmp_path)
    text = page.read_text(encoding="utf-8")
    evil = "<script>document.title='taken'</script>"
    for policy, taken in ((script_hash(), False), ("'unsafe-inline'", True)):
        changed = text.replace(f"script-src {script_hash()}", f"script-src {policy}")
        page.write_text(changed.replace("</main>", f"</main>{evil}"), encoding="utf-8")
        done = subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--dump-dom",
                f"--user-data-dir={tmp_path}/u",
                page.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert ("taken</title>" in done.stdout) == taken


def test_the_view_in_jupyterlab_chooses_slice_order_page_and_query(records):
    view = error_browser(records, page_size=5)
    controls, queries, shown = view.children
    chosen, order, page, count = controls.children
    assert len(queries.options) == 5
    assert count.value == "37 queries, 8 pages"
    first = shown.value
    assert records[0]["query"] in html.unescape(re.sub(r"<[^>]*>", "", first))
    queries.index = 2
    assert shown.value != first
    page.value = 8
    assert len(queries.options) == 2
    name = next(name for name in chosen.options if name.startswith("length"))
    chosen.value = name
    assert page.value == 1
    matching = [r for r in records if name in r["slices"]]
    assert count.value.startswith(f"{len(matching)} queries")
    chosen.value = "all queries"
    order.value = "most won from the baseline"
    gains = [r["model"] - r["other"] for r in records]
    best = queries.options[0][1]
    assert best["model"] - best["other"] == max(gains)


def test_a_browser_of_nothing_shows_nothing():
    assert error_browser([]).children[2].value == ""


def test_a_query_typed_in_is_ranked_live():
    view = live_ranking({"model": CharacterJaccard()}, "ab", ["x", "ab"])
    asked, lines, button, shown = view.children
    assert shown.value.index("<td>ab</td>") < shown.value.index("<td>x</td>")
    lines.value = "a\n\n <script>alert(1)</script> \n"
    button.click()
    assert "<script>" not in shown.value
    assert "&lt;script&gt;" in shown.value
    asked.value = " "
    button.click()
    assert "Type a query" in shown.value


def test_scores_are_shown_beside_their_candidates():
    ranked = rank_query({"model": CharacterJaccard(), "b": RandomScorer(1)}, "ab", ["ab", "a"])
    shown = ranking_html(ranked)
    assert "<th>b</th>" in shown
    assert re.search(r"<td>ab</td>\s*<td>1.000</td>", shown)
    assert np.isfinite(ranked["b"]).all()
