"""One page of a run: a summary, then its executed notebooks; nothing in the data can run in it."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import bleach
import nbformat
from markupsafe import Markup
from nbformat.v4 import new_markdown_cell, new_output

from workbench.files import write_text
from workbench.reports.browser import LISTED, TEMPLATES, query_html
from workbench.reports.figures import style
from workbench.reports.findings import count
from workbench.reports.findings.ranking import claimed, verdict
from workbench.reports.model_card import model_length, recommendations, repair_record, vocabulary
from workbench.run_folder import RunFolder, read_record
from workbench.runs.parameters import read_settings

MAX_UNFOLDED = 150  # queries that unfold to their candidates; the worst for the model
MAX_LINES = 6  # of printed output; more are folded
TAGS = (
    "a b blockquote br code details div em h1 h2 h3 h4 hr img li ol p pre span strong summary "
    "table tbody td tfoot th thead tr ul"
)
ATTRIBUTES = {"*": ["class", "id", "colspan", "rowspan"], "a": ["href"], "img": ["src", "alt"]}
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "*(Interactive in JupyterLab; on this page see [Query by query](#query-table).)*"
LEFT_OUT = {"parameters", "injected-parameters", "not-in-report"}  # tags of cells for an editor
NOTHING = re.compile(r"(There is no|This training kept no) ")  # what a part found
SCRIPT = TEMPLATES.get_template("page.js").render()
DIGEST = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
SCRIPT_HASH = f"'sha256-{DIGEST}'"  # as a content security policy names it


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` of a run, and return its path: a summary, and the executed notebooks.

    A notebook that failed is there with its traceback. A damaged file is named and left out.

    Example:
        >>> write_report("runs/mine")  # doctest: +SKIP
    """
    from nbconvert.filters import markdown2html

    run, damaged, notebooks = RunFolder(run_dir), list[str](), list[tuple[Any, ...]]()

    def read(reader: Callable[[Path], Any], file: Path) -> Any:
        try:
            return reader(file) if file.is_file() else {}
        except Exception as error:  # there are as many kinds as there are kinds of damage
            damaged.append(f"{file.name}: {str(error)[:200]}")
            return {}

    names = ("status", "environment", "manifest", "lineage", "metrics", "browser")
    records = {name: read(read_record, getattr(run, name)) for name in names}
    metrics, stages = records["metrics"], records["lineage"].get("stages", [])
    for file in sorted(run.notebooks.glob("*.ipynb")):
        if notebook := read(partial(nbformat.read, as_version=4), file):
            notebooks.append(_section(file.stem, notebook, len(notebooks) + 1))
    found, entries = verdict(metrics) if metrics else "", records["status"].get("notebooks", {})
    texts = [found, str(records["browser"]), *(body for _, _, body, _ in notebooks)]
    advice = list[str]()
    if metrics or stages:
        with suppress(ValueError, LookupError, OSError):  # the vocabulary needs more records
            advice = recommendations(stages, metrics, vocabulary(run, stages)[1])
    links = {"model/": "model", "model/README.md": "model card", "evaluation/": "evaluation"}
    text = TEMPLATES.get_template("page.html").render(
        **records,
        colours=style,
        damaged=damaged,
        name=run.path.name,
        script=SCRIPT,
        script_hash=SCRIPT_HASH,
        font=_chinese_font("".join(texts)),
        verdict=_clean(markdown2html(found)),
        colour=claimed(metrics)[0] if metrics else "",
        advice=[_clean(markdown2html(one)) for one in advice],
        stages=stages,
        repair=repair_record(stages),
        length=read(lambda _: model_length(run, stages[-1]), run.lineage) if stages else 0,
        seconds={name: one["seconds"] for name, one in entries.items() if "seconds" in one},
        files={file: label for file, label in links.items() if (run.path / file).exists()},
        parameters=read(read_settings, run.parameters),
        notebooks=notebooks,
        listed=LISTED,
        unfolded=min(MAX_UNFOLDED, len(records["browser"])),
        query_html=query_html,
    )
    write_text(run.report, text)
    return run.report


def _section(name: str, notebook: Any, number: int) -> tuple[str, str, Markup, list[Any]]:
    """Name, title and HTML of an executed notebook, and the anchor and title of its parts."""
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    notebook.metadata.pop("widgets", None)
    notebook.cells = _for_readers(CoalesceStreamsPreprocessor().preprocess(notebook, {})[0].cells)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = re.search(r"^# (.*)", prose, re.MULTILINE)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, sanitize_html=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("clean_html", _clean)
    body = re.sub(r' id="cell-id=[^"]*"', "", exporter.from_notebook_node(notebook)[0])
    body = re.sub(r'(<h[1-4] id=")', rf"\1part-{number}-", body)
    parts = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body)
    shown = [(anchor, Markup(re.sub(r"<.*?>", "", heading))) for anchor, heading in parts]
    return name, title[1] if title else name, Markup(body), shown


def _for_readers(cells: Sequence[Any]) -> list[Any]:
    """Cells as the page shows them: none for an editor, a part that found nothing as one line."""

    def failed(cell: Any) -> bool:
        return any(output.output_type == "error" for output in cell.get("outputs", []))

    shown = [new_markdown_cell()]
    for cell, after in zip(cells, [*cells[1:], {}], strict=True):
        before, outputs = shown[-1], cell.get("outputs", [])
        found = "".join(one.get("data", {}).get("text/markdown", "") for one in outputs)
        needed = failed(after if cell.cell_type == "markdown" else cell)
        if LEFT_OUT.intersection(cell.metadata.get("tags", [])) and not needed:
            continue
        if cell.cell_type == "markdown":
            parts = re.split(r"^(?=## )", cell.source, flags=re.MULTILINE)
            shown += map(new_markdown_cell, parts)
        elif NOTHING.match(found) and not needed and before.source.startswith("## "):
            before.source = f"**{before.source[3:].splitlines()[0]}** {found}"
        else:
            cell.outputs = [*map(_shown, outputs)]
            shown.append(cell)
    return shown


def _shown(output: Any) -> Any:
    """An output as the page shows it."""
    from nbconvert.filters import strip_ansi

    data = output.get("data", {})
    if WIDGET in data:  # needs a kernel; the table of queries does not
        output.data = {"text/markdown": NO_WIDGET}
    elif "text/html" in data:  # style sheets of tables: we have our own
        found = re.sub(r"(?s)<style.*?</style>", "", "".join(data["text/html"]))
        empty = re.search(r"<tbody>\s*</tbody>", found)
        data["text/html"] = '<p class="nothing">The table is empty.</p>' if empty else found
    elif "name" in output:
        text = strip_ansi(output.text).strip()
        lines = text.count("\n") + 1
        if output.name == "stderr" or lines > MAX_LINES:
            title = f"<summary>{count(lines, 'line')} of output</summary>"
            text = f"<details>{title}<pre>{html.escape(text)}</pre></details>"
            return new_output("display_data", {"text/html": text})
    return output


def _clean(text: str) -> Markup:
    """HTML in which nothing can act: only the tags and attributes that tables need."""
    return Markup(bleach.clean(text, tags=TAGS.split(), attributes=ATTRIBUTES, strip=True))


def _chinese_font(text: str) -> str:
    """A font in base64 with the Chinese characters of `text`, so that they show anywhere."""
    from fontTools import subset

    characters = {ord(character) for character in text if character > "\u2e7f"}
    if not characters:
        return ""
    options = subset.Options(layout_features=[], notdef_outline=True)
    subsetter, packed = subset.Subsetter(options), io.BytesIO()
    subsetter.populate(unicodes=characters)
    with subset.load_font(str(style.packaged_font()), options) as font:
        subsetter.subset(font)
        font.save(packed)
    return base64.b64encode(packed.getvalue()).decode("ascii")
