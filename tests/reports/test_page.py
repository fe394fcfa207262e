"""The report: its summary, what it leaves out of the notebooks, and how it looks in Chromium."""

import re

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from workbench.files import write_json
from workbench.ranking.blend import Blend
from workbench.reports import findings
from workbench.reports.page import write_report

EMPTY = "<table class='dataframe'><thead><tr><th>line</th></tr></thead><tbody>\n</tbody></table>"


def metrics(lead, queries=200):
    rows = [("model", 0.5), ("bm25", 0.5 - lead)]
    return {
        "rows": [
            {"scorer": name, "ndcg@10": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}}
            for name, mean in rows
        ],
        "queries": queries,
        "candidates": 2000,
        "recipe": {"source": "lists.jsonl"},
        "model_minus": {
            "bm25": {"mean": lead, "low": lead - 0.01, "high": lead + 0.01, "p_holm": 0.001}
        },
    }


def report(folder, cells=(), **records):
    """The page of a run folder with these records and one executed notebook of these cells."""
    for name, record in records.items():
        place = {"metrics": "evaluation", "manifest": "data", "lineage": "model"}.get(name, "")
        write_json(folder / place / f"{name}.json", record)
    if cells:
        (folder / "notebooks").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "notebooks/01_a.ipynb")
    return write_report(folder).read_text(encoding="utf-8")


def printed(text, name="stdout"):
    return new_output("stream", text=text, name=name)


def said(text):
    return new_output("display_data", {"text/markdown": text})


def cell(source, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.partition("<main>")[2]))


@pytest.mark.parametrize(
    ("lead", "queries", "colour", "next_step"),
    [
        (0.2, 200, "green", "Train with other seeds"),
        (-0.2, 200, "red", "Do not use it in place of bm25"),
        (0.001, 200, "", "before you prefer it"),
        (-0.2, 5, "", "Measure on more queries"),
    ],
)
def test_the_summary_is_the_claim_its_ladder_and_what_to_do(
    tmp_path, lead, queries, colour, next_step
):
    page = report(tmp_path, metrics=metrics(lead, queries))
    assert f'<div class="verdict {colour}">' in page
    assert next_step in text_of(page)
    names = re.findall(r"<td>(model|bm25)</td>", page)
    assert names == (["model", "bm25"] if lead > 0 else ["bm25", "model"])
    assert '<tr class="own">' in page


def test_the_summary_names_data_base_settings_and_time(tmp_path):
    stage = {
        "base": {"name": "bundled:b", "asked": "owner/a"},
        "recipe": {
            "epochs": 2.0,
            "batch_size": 8,
            "learning_rate": 5e-5,
            "max_length": 64,
            "seed": 3,
        },
        "vocabulary": {"vocabulary": "extend"},
        "pairs": 90,
        "precision": "float32",
        "device": "cpu",
    }
    sides = {name: {"pairs": size} for name, size in (("train", 90), ("dev", 0), ("test", 10))}
    (tmp_path / "parameters.yaml").write_text(yaml.safe_dump({"symmetric": True}))
    page = report(
        tmp_path,
        lineage={"stages": [stage]},
        manifest={"source": "a<b.csv", "rows": {"read": 101, "bad": 1}, "sides": sides},
        metrics=metrics(0.1),
        environment={"packages": {"torch": "2.13"}},
        status={"state": "done", "started": "now", "notebooks": {"01": {"seconds": 61.2}}},
    )
    for fact in (
        "a&lt;b.csv: 101 rows, 1 set aside; train 90, dev 0, test 10 pairs",
        "bundled:b, in place of owner/a, which was out of reach",
        "repaired by extend",
        "2 x 90 pairs in batches of 8, learning rate 5e-05, up to 64 tokens, seed 3; float32",
        "200 queries with 2,000 candidates, lists.jsonl",
        "61 s",
        '<a href="model/">model</a>',
        "<td>symmetric</td><td>True</td>",
        "<td>torch</td><td>2.13</td>",
    ):
        assert fact in page, fact


def test_a_run_without_records_or_with_odd_ones_has_a_page(tmp_path):
    odd = {"lineage": {"stages": []}, "manifest": {"rows": None}, "status": {"acts": 3}}
    assert "<h1>Run " in report(tmp_path)
    assert "<h1>Run " in report(tmp_path, [new_markdown_cell("# A")], **odd)


def test_what_is_for_an_editor_is_left_out(tmp_path):
    """Instructions, parameters, code, versions, style sheets, and what only a kernel can do."""
    widget = new_output(
        "execute_result", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}
    )
    cells = [
        new_markdown_cell("# One"),
        new_markdown_cell("Change the values below."),
        cell("a = 1", tags=["parameters"]),
        cell("a = 2", tags=["injected-parameters"]),
        new_markdown_cell("The versions:\n"),
        cell("wb.environment()", printed("torch 2.13")),
        new_markdown_cell("## Part\n\nRead this.\n\n## Second\n\nOr type a query."),
        cell("wb.reports.live_ranking()", widget),
        new_markdown_cell("Browse."),
        cell("browse()", widget),
    ]
    page = text_of(report(tmp_path, cells))
    for gone in ("Change the values", "a = 2", "versions", "2.13", "Or type", "browse()", "VBox"):
        assert gone not in page, gone
    for kept in ("One", "Part", "Read this.", "Second", "Browse.", "Query by query"):
        assert kept in page, kept


def test_a_failed_cell_is_never_left_out(tmp_path):
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=["KeyError: 'x'"])
    assert "KeyError" in report(tmp_path, [cell("wb.environment()", error)])


def test_long_and_error_output_is_folded_in_one_piece(tmp_path):
    log = [printed(f"step {n} <b>\n") for n in range(9)]
    page = report(tmp_path, [cell("a", *log, printed("10%\r99%\n", "stderr"), printed("short\n"))])
    assert "<summary>9 lines of output</summary><pre>step 0 &lt;b&gt;\nstep 1" in page
    assert "<summary>1 line of output</summary><pre>99%</pre>" in page
    assert "<summary>" not in page.partition("99%</pre>")[2]
    assert "short" in page


def test_a_part_that_found_nothing_is_one_line(tmp_path):
    """With the sentences that the findings really give."""
    log = pd.DataFrame({"stage": ["s"], "epoch": [0.1], "step": [1], "loss": [1]})
    curve = findings.curve(log.head(0))
    problem = findings.blend(Blend(problem="there are 3 dev pairs"))
    cells = [
        cell(heading, said(sentence), new_output("display_data", {"text/html": EMPTY}))
        for heading, sentence in (("a", curve), ("b", problem), ("c", findings.card(log)))
    ]
    parts = [
        part
        for name, one in zip("ABC", cells, strict=True)
        for part in (new_markdown_cell(f"## {name}?\n\nLook at it."), one)
    ]
    full = new_markdown_cell("## D?\n\nLook here."), cell("d", said("There are two."))
    page = report(tmp_path, [*parts, *full, cell("e", cells[0].outputs[1])])
    for name, sentence in (("A", curve), ("B", problem), ("C", findings.card(log))):
        assert f"{name}? {sentence}" in text_of(page)
    assert text_of(page).count("Look at it.") == 0
    assert "Look here." in page
    assert "The table is empty." in page
    assert re.findall(r'<li><a href="#part-1-[^"]*">(\w)', page) == ["D"]


def test_every_picture_has_a_text_and_every_link_of_the_page_a_place(chain):
    page = write_report(chain).read_text(encoding="utf-8")
    pictures = re.findall(r"<img[^>]*>", page)
    assert len(pictures) > 10
    assert all(re.search(r'alt="[^"]{5,}"', picture) for picture in pictures)
    assert "No description" not in page
    places = re.findall(r'id="([^"]*)"', page)
    links = re.findall(r'<a href="#([^"]*)">', page.partition("<main>")[0])
    assert len(links) > 15
    assert set(links) <= set(places)
    assert len(set(places)) == len(places)


SIZES = [(width, scheme) for width in (1280, 400) for scheme in ("light", "dark")]


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_in_chromium_the_report_is_calm_and_complete(chain, browser, width, scheme):
    """No message, no request, nothing wider than the window; Chinese, not boxes; both themes."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    noise = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url))
    address = write_report(chain).as_uri()
    page.goto(address)
    assert [one for one in noise if one != address and not one.startswith("data:")] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.search(r"\d+", paper)[0]) > 128) == (scheme == "light")
    assert page.locator(".ladder tr.own").count() == 1
    page.evaluate("window.scrollTo(0, 9000)")
    assert page.locator("nav").bounding_box()["y"] == 0, "it stays in sight"
    assert page.locator(".wb-slices").first.is_visible() == (width > 400)
    assert drawn(page, "怎") != drawn(page, "么") != drawn(page, "\U000f1234")
    page.close()


def drawn(page, text):
    """The pixels of a text in the page's own font; characters without a glyph all look alike."""
    page.evaluate(
        """text => { document.getElementById('drawn')?.remove();
        const box = Object.assign(document.createElement('p'), {id: 'drawn', textContent: text});
        document.querySelector('#summary').prepend(box); }""",
        text,
    )
    return page.locator("#drawn").screenshot()
