"""One self-contained page of a run's executed notebooks; nothing from the data can run in it."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bleach
import nbformat
from jinja2 import DictLoader

from workbench.files import project_path, read_json, write_text
from workbench.reports.browser import STYLE as BROWSER_STYLE
from workbench.reports.browser import query_html
from workbench.reports.figures.style import packaged_font
from workbench.reports.findings.ranking import ranking_finding

COLOURS = {"green": "#009E73", "amber": "#E69F00", "red": "#D55E00"}


def verdict_card(verdict: Mapping[str, str]) -> str:
    """The verdict as a coloured box, in HTML."""
    colour = verdict["colour"]
    return (
        f'<div class="verdict {colour}" style="border-left:6px solid {COLOURS[colour]};'
        f'padding:.6rem 1rem;margin:.6rem 0"><b>Vocabulary: {colour}.</b> '
        f"{html.escape(verdict['why'])} <b>{html.escape(verdict['action'])}</b></div>"
    )


DETAILED = 150  # queries whose orders are shown whole; the worst for the model


LISTED = 2000  # queries in the table


SCRIPT = """
const table = document.getElementById('queries');  // each query is a body of its own
const box = document.getElementById('search'), count = document.getElementById('found');
const rows = Array.from(table.tBodies), texts = rows.map(row => row.textContent.toLowerCase());
document.getElementById('searching').hidden = false;
function find() {
  const asked = box.value.toLowerCase();
  let shown = 0;
  rows.forEach((row, place) => {
    row.hidden = !texts[place].includes(asked);
    shown += row.hidden ? 0 : 1;
  });
  count.textContent = shown + ' of ' + rows.length + ' queries';
}
box.value = decodeURIComponent(location.hash.split('search=')[1] || '');  // a link to a search
box.addEventListener('input', find);
find();
Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
  let up = false;
  head.addEventListener('click', () => {
    up = !up;
    const key = row => row.rows[0].cells[column].dataset.value;
    const compare = (one, two) => isNaN(key(one)) || isNaN(key(two))
      ? key(one).localeCompare(key(two)) : key(one) - key(two);
    rows.slice().sort((one, two) => up ? compare(one, two) : compare(two, one))
      .forEach(row => table.appendChild(row));
  });
});
"""


def script_hash() -> str:
    """The script's hash as a content security policy names it: `'sha256-...'`."""
    digest = hashlib.sha256(SCRIPT.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def queries_section(records: Sequence[Mapping[str, Any]]) -> str:
    """The section of the report: a row a query, the worst for the model first.

    Args:
        records: from `browser_records`; of more than 2,000 the worst are listed, and it says so.
    """
    if not records:
        return ""
    other = html.escape(records[0]["other_name"])
    heads = ("query", "model", other, "difference", "first positive at rank", "slices")
    listed = records[:LISTED]
    said = (
        f"{len(listed):,} of {len(records):,} queries, the model's worst first; values: nDCG@10. "
        f"The first {min(DETAILED, len(listed)):,} unfold to both orders of their candidates: the "
        f"first ranks of the model and of {other}, with relevance, score and tokens; signs shared "
        "with the query are marked, unknown ones underlined."
    )
    body = "".join(_row(record, place < DETAILED) for place, record in enumerate(listed))
    return (
        f"<h1>Query by query</h1><p>{said}</p>"
        '<p id="searching" hidden><label>Search: <input id="search" type="search"></label> '
        '<span id="found"></span> (click a heading to sort)</p>'
        '<div class="output"><table id="queries"><thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead>{body}</table></div><script>{SCRIPT}</script>"
    )


def _row(record: Mapping[str, Any], detailed: bool) -> str:
    query, gap = html.escape(record["query"]), record["model"] - record["other"]
    rank = "none" if record["rank"] is None else str(record["rank"])
    sorting = "9999" if record["rank"] is None else rank
    slices = html.escape("; ".join(record["slices"]))
    unfolded = (
        '<tr><td class="wb-unfold" colspan="6"><details><summary>candidates</summary>'
        f"{query_html(record)}</details></td></tr>"
    )
    return (
        f'<tbody><tr><td data-value="{query}">{query}</td>'
        f'<td data-value="{record["model"]:.6f}">{record["model"]:.3f}</td>'
        f'<td data-value="{record["other"]:.6f}">{record["other"]:.3f}</td>'
        f'<td data-value="{gap:.6f}">{gap:+.3f}</td><td data-value="{sorting}">{rank}</td>'
        f'<td class="wb-slices" data-value="{slices}">{slices}</td></tr>'
        + (unfolded if detailed else "")
        + "</tbody>"
    )


# The page's policy forbids every script but ours, known by its hash; on top of that, nbconvert
# cleans the outputs' HTML.
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline';
 script-src {script}; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1>{summary}<nav>{links}</nav></header>
<main>{sections}</main></body></html>
"""


STYLE = """
body{font:16px/1.6 report-chinese,system-ui,"Noto Sans",sans-serif;
 color:#1f2937;background:#f8fafc;margin:0}
header,section{max-width:56rem;margin:1.5rem auto;padding:1.5rem 2rem;background:#fff;
 border:1px solid #e5e7eb;border-radius:10px}
h1{line-height:1.25;margin:.2em 0 .6em}h2{margin-top:1.8em;line-height:1.3}
.verdict{border-left:5px solid #e69f00;background:#fffbeb;padding:.7rem 1rem;border-radius:4px}
.verdict.red{border-color:#d55e00;background:#fef2f2}
.verdict.green{border-color:#009e73;background:#ecfdf5}
nav a{display:inline-block;margin:.3rem .8rem .3rem 0;color:#0072b2}
img{max-width:100%;height:auto}code,pre{font-family:report-chinese,ui-monospace,monospace}
pre{white-space:pre-wrap;font-size:.84rem;line-height:1.45}
details{margin:.4rem 0}summary{cursor:pointer;color:#6b7280;font-size:.82rem}
details pre{background:#f3f4f6;padding:.7rem;border-radius:6px}
.output{overflow-x:auto}table{border-collapse:collapse;font-size:.88rem;margin:.8rem 0}
th,td{padding:.28rem .7rem;border-bottom:1px solid #e5e7eb;text-align:left;vertical-align:top}
thead th{border-bottom:2px solid #9ca3af}.anchor-link{display:none}
#queries th{cursor:pointer}#search{font:inherit;padding:.25rem .5rem;width:18rem}
#queries>tbody>tr:has(+tr)>td{border-bottom:0}
@media print{#searching{display:none!important}section{border:0}}
.traceback{background:#fef2f2;border:1px solid #fecaca;padding:.7rem;border-radius:6px}
"""


TAGS = {
    "a",
    "b",
    "blockquote",
    "br",
    "code",
    "details",
    "div",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "hr",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "span",
    "strong",
    "summary",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "ul",
}


ATTRIBUTES = {"*": ["class", "id", "colspan", "rowspan"], "a": ["href"], "img": ["src", "alt"]}


WIDGET = "application/vnd.jupyter.widget-view+json"


NO_WIDGET = "*(Interactive in JupyterLab; on this page see [Query by query](#query-table).)*"


TEMPLATE = """{%- extends 'basic/index.html.j2' -%}
{% block in_prompt %}{% endblock %}{% block output_prompt %}{% endblock %}
{% block output_area_prompt %}{% endblock %}
{% block input_group %}<details><summary>code</summary>{{ super() }}</details>{% endblock %}
"""


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` from the executed notebooks in `run_dir/notebooks`.

    Every notebook that was executed is there, also one that failed, with its traceback. Code is
    folded away; texts from the data are escaped.

    Returns:
        The path of the page.
    """
    folder = project_path(run_dir)
    notebooks = sorted((folder / "notebooks").glob("*.ipynb"))
    links, sections = [], []
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        title = _title(notebook, path.stem)
        links.append(f'<a href="#{path.stem}">{html.escape(title)}</a>')
        sections.append(f'<section id="{path.stem}">{_body(notebook)}</section>')
    browser = folder / "evaluation" / "browser.json"
    if browser.is_file():
        links.append('<a href="#query-table">Query by query</a>')
        table = queries_section(read_json(browser))
        sections.append(f'<section id="query-table">{table}</section>')
    page = PAGE.format(
        script=script_hash(),
        title=f"Run {html.escape(folder.name)}",
        style=STYLE + BROWSER_STYLE + _font_face("".join(sections)),
        summary=_summary(folder),
        links=" ".join(links),
        sections="\n".join(sections),
    )
    target = folder / "report.html"
    write_text(target, page)
    return target


def _body(notebook: nbformat.NotebookNode) -> str:
    from nbconvert import HTMLExporter

    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):  # needs a kernel; the table below does not
                output.data = {"text/markdown": NO_WIDGET}
            if "text/html" in output.get("data", {}):  # style sheets of tables: we have our own
                found = output.data["text/html"]
                output.data["text/html"] = re.sub(r"(?s)<style.*?</style>", "", "".join(found))
    exporter = HTMLExporter(
        extra_loaders=[DictLoader({"report.html.j2": TEMPLATE})],
        template_file="report.html.j2",
        sanitize_html=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
    )
    exporter.register_filter("clean_html", _clean)
    body, _ = exporter.from_notebook_node(notebook)
    return str(body)


def _clean(text: str) -> str:
    """HTML without anything that could act: only the tags and attributes that tables need."""
    return str(bleach.clean(text, tags=TAGS, attributes=ATTRIBUTES, strip=True))


def _font_face(text: str) -> str:
    """A style rule with the Chinese characters of `text`, so that the page shows them anywhere."""
    from fontTools import subset

    characters = {ord(character) for character in text if character > "\u2e7f"}
    if not characters:
        return ""
    options = subset.Options(layout_features=[], notdef_outline=True, ignore_missing_unicodes=True)
    packed = io.BytesIO()
    with subset.load_font(str(packaged_font()), options) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=characters)
        subsetter.subset(font)
        font.save(packed)
    encoded = base64.b64encode(packed.getvalue()).decode("ascii")
    return (
        "@font-face{font-family:report-chinese;font-display:block;"
        f"src:url(data:font/ttf;base64,{encoded});"
        "unicode-range:U+2E80-A4CF,U+F900-FAFF,U+FE30-FE4F,U+FF00-FFEF,U+20000-3FFFF}"
    )


def _title(notebook: nbformat.NotebookNode, default: str) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0][2:])
    return default


def _summary(folder: Path) -> str:
    parts = []
    status: dict[str, Any] = {}
    if (folder / "status.json").is_file():
        status = read_json(folder / "status.json")
    if status.get("state") == "failed":
        where = f"notebook {status['act']}, cell {status['cell']}"
        parts.append(
            f"<strong>This run failed</strong> in {html.escape(where)}: "
            f"{html.escape(status['error'])}"
        )
    metrics = folder / "evaluation" / "metrics.json"
    if metrics.is_file():
        parts.append(_inline(ranking_finding(read_json(metrics))))
    return "".join(f'<p class="verdict">{part}</p>' for part in parts)


def _inline(markdown: str) -> str:
    """The few marks that findings use, as HTML."""
    from nbconvert.filters import markdown2html

    return str(markdown2html(markdown)).removeprefix("<p>").removesuffix("</p>\n")
