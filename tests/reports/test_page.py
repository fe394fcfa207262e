"""The report: its summary, and what it leaves out of the notebooks."""

import re

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from workbench.files import write_json
from workbench.ranking.slices import Blend
from workbench.reports import findings
from workbench.reports.page import write_report

EMPTY = "<table class='dataframe'><thead><tr><th>line</th></tr></thead><tbody>\n</tbody></table>"


def metrics(lead, queries=200):
    rows = [
        {"scorer": name, "ndcg@10": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}}
        for name, mean in (("model", 0.5), ("bm25", 0.5 - lead))
    ]
    gap = {"mean": lead, "low": lead - 0.01, "high": lead + 0.01, "p_holm": 0.001}
    found = {"rows": rows, "queries": queries, "candidates": 2000, "model_minus": {"bm25": gap}}
    return found | {"recipe": {"source": "lists.jsonl"}}


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


def code(source, *outputs, tags=()):
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)})


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page.partition("<main>")[2]))


@pytest.mark.parametrize(
    ("lead", "queries", "colour", "next_step"),
    [
        (0.2, 200, "green", "Train with other seeds"),
        (-0.2, 200, "red", "Do not use it in place of bm25"),
        (0.001, 200, "amber", "before you prefer it"),
        (-0.2, 5, "amber", "Measure on more queries"),
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
    recipe = {"epochs": 2.0, "batch_size": 8, "learning_rate": 5e-5, "max_length": 64, "seed": 3}
    stage = {"recipe": recipe, "pairs": 90, "precision": "float32", "device": "cpu"}
    stage |= {"base": {"name": "bundled:b", "asked": "owner/a"}}
    stage |= {"vocabulary": {"vocabulary": "extend"}}
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
        assert fact in " ".join(page.split()), fact


ODD = [
    {},
    {"lineage": {"stages": []}, "manifest": {"rows": None}, "status": {"acts": 3}},
    {"lineage": {"stages": [{}]}, "manifest": {"rows": {"read": "x", "bad": []}}},
    {"lineage": {"stages": [{"recipe": 3, "vocabulary": "x", "base": "y"}]}},
    {"metrics": metrics(0.1) | {"model_minus": {"gone": {"mean": 1.0}}}},
]


@pytest.mark.parametrize("odd", ODD)
def test_a_run_without_records_or_with_odd_ones_has_a_page(tmp_path, odd):
    assert "<h1>Run " in report(tmp_path, [new_markdown_cell("# A")] if odd else [], **odd)


def test_what_is_for_an_editor_is_left_out(tmp_path):
    """Instructions, parameters, code, versions, style sheets, and what only a kernel can do."""
    widget = new_output(
        "execute_result", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "VBox()"}
    )
    tagged = {"tags": ["not-in-report"]}
    cells = [
        new_markdown_cell("# One"),
        new_markdown_cell("Change the values below.", metadata=tagged),
        code("a = 1", tags=["parameters"]),
        code("a = 2", tags=["injected-parameters"]),
        new_markdown_cell("The versions:\n", metadata=tagged),
        code("wb.environment()", printed("torch 2.13"), **tagged),
        new_markdown_cell("## Part\n\nRead this.\n\n## Second"),
        new_markdown_cell("Or type a query.", metadata=tagged),
        code("wb.reports.live_ranking()", widget, **tagged),
        new_markdown_cell("Browse."),
        code("browse()", widget),
    ]
    page = text_of(report(tmp_path, cells))
    for gone in ("Change the values", "a = 2", "versions", "2.13", "Or type", "browse()", "VBox"):
        assert gone not in page, gone
    for kept in ("One", "Part", "Read this.", "Second", "Browse.", "Query by query"):
        assert kept in page, kept


def test_a_failed_cell_is_never_left_out(tmp_path):
    error = new_output("error", ename="KeyError", evalue="'x'", traceback=["KeyError: 'x'"])
    tagged = {"tags": ["not-in-report"]}
    introduction = new_markdown_cell("Or type a query.", metadata=tagged)
    page = report(tmp_path, [introduction, code("a = 1", error, **tagged)])
    assert "KeyError" in page
    assert "Or type a query." in page
    part = [new_markdown_cell("## Part"), code("a = 1", said("There is no pair."), error)]
    assert "KeyError" in report(tmp_path, part)


def test_an_output_is_no_script_whatever_it_holds(tmp_path):
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)><td onclick=alert(3)>x</td>"
    script = new_output("display_data", {"application/javascript": "alert(4)"})
    shown = new_output("display_data", {"text/html": evil})
    page = report(tmp_path, [code("1", shown, script, printed(evil))])
    assert "<script" not in page
    assert "onerror=alert(2)>" not in page
    assert "<td onclick" not in page
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_long_and_error_output_is_folded_in_one_piece(tmp_path):
    log = [printed(f"step {n} <b>\n") for n in range(9)]
    page = report(tmp_path, [code("a", *log, printed("10%\r99%\n", "stderr"), printed("short\n"))])
    assert "<summary>9 lines of output</summary><pre>step 0 &lt;b&gt;\nstep 1" in page
    assert "<summary>1 line of output</summary><pre>99%</pre>" in page
    assert "<summary>" not in page.partition("99%</pre>")[2]
    assert "short" in page


def test_a_part_that_found_nothing_is_one_line(tmp_path):
    """With the sentences that the findings really give."""
    nothing = pd.DataFrame()
    said_of = {
        "A": findings.curve(nothing),
        "B": findings.blend(Blend(problem="there are 3 dev pairs")),
        "C": findings.label_efficiency(nothing),
    }
    empty = new_output("display_data", {"text/html": EMPTY})
    cells = [
        cell
        for name, sentence in said_of.items()
        for cell in (
            new_markdown_cell(f"## {name}?\n\nLook at it."),
            code(name, said(sentence), empty),
        )
    ]
    full = new_markdown_cell("## D?\n\nLook here."), code("d", said("There are two."))
    page = report(tmp_path, [*cells, *full, code("e", empty)])
    for name, sentence in said_of.items():
        assert f"{name}? {sentence.replace('`', '')}" in text_of(page)
    assert text_of(page).count("Look at it.") == 0
    assert "Look here." in page
    assert "The table is empty." in page
    assert re.findall(r'<li><a href="#part-1-[^"]*">(\w)', page) == ["D"]


def test_a_damaged_file_is_named_and_the_rest_is_shown(tmp_path):
    for file in ("status.json", "model/lineage.json", "notebooks/02_b.ipynb"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("[" * 100_000, encoding="utf-8")
    (tmp_path / "parameters.yaml").write_text("a: [", encoding="utf-8")
    page = report(tmp_path, [new_markdown_cell("# One")], metrics=metrics(0.2))
    assert page.count("A damaged file was left out") == 4
    for words in ("status.json", "lineage.json", "02_b.ipynb", "parameters.yaml"):
        assert words in page
    assert "One" in page
    assert '<div class="verdict green">' in page
