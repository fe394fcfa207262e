"""One self-contained page of a run's executed notebooks; nothing from the data can run in it."""

import base64
import html
import io
import re
from pathlib import Path
from typing import Any

import bleach
import nbformat
from jinja2 import DictLoader

from workbench.browser import STYLE as BROWSER_STYLE
from workbench.claims import ranking_finding
from workbench.files import packaged_font, project_path, read_json, write_text
from workbench.searchable import queries_section, script_hash

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
TAGS = {"a", "b", "blockquote", "br", "code", "details", "div", "em", "h1", "h2", "h3", "h4", "hr",
        "img", "li", "ol", "p", "pre", "span", "strong", "summary", "table", "tbody", "td", "tfoot",
        "th", "thead", "tr", "ul"}  # fmt: skip
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
