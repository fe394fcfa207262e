"""One self-contained page of a run's executed notebooks; nothing from the data can run in it."""

import base64
import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path

import bleach
import jinja2
import nbformat
from markupsafe import Markup

from workbench.files import project_path, read_json, write_text
from workbench.reports.browser import STYLE as BROWSER_STYLE
from workbench.reports.browser import query_html
from workbench.reports.figures.style import packaged_font
from workbench.reports.findings.ranking import verdict

COLOURS = {"green": "#009E73", "amber": "#E69F00", "red": "#D55E00"}
MAX_UNFOLDED = 150  # queries that unfold to their candidates; the worst for the model
MAX_QUERIES = 2000  # in the table
TAGS = (
    "a b blockquote br code details div em h1 h2 h3 h4 hr img li ol p pre span strong summary "
    "table tbody td tfoot th thead tr ul"
)
ATTRIBUTES = {"*": ["class", "id", "colspan", "rowspan"], "a": ["href"], "img": ["src", "alt"]}
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "*(Interactive in JupyterLab; on this page see [Query by query](#query-table).)*"

SCRIPT = """
const rows = Array.from(document.querySelectorAll('#queries>tbody'));  // one per query
const texts = rows.map(row => row.textContent.toLowerCase());
const box = document.getElementById('search'), count = document.getElementById('found');
document.getElementById('searching').hidden = false;
function find() {
  rows.forEach((row, place) => { row.hidden = !texts[place].includes(box.value.toLowerCase()); });
  count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' queries';
}
box.value = decodeURIComponent(location.hash.split('search=')[1] || '');  // a link to a search
box.addEventListener('input', find);
find();
"""
SCRIPT_HASH = (  # as a content security policy names it
    f"'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode('ascii')}'"
)

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
#search{font:inherit;padding:.25rem .5rem;width:18rem}#queries>tbody>tr:has(+tr)>td{border-bottom:0}
@media print{#searching{display:none!important}section{border:0}}
.traceback{background:#fef2f2;border:1px solid #fecaca;padding:.7rem;border-radius:6px}
"""

# Everything is escaped unless it was cleaned or is ours; the policy forbids scripts but ours,
# connections and forms.
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline';
 script-src {{ script_hash | safe }}; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Run {{ name }}</title><style>{{ style | safe }}{{ font }}</style></head>
<body><header><h1>Run {{ name }}</h1>
{% if status.state == "failed" %}
<p class="verdict"><strong>This run failed</strong> in notebook {{ status.act }},
cell {{ status.cell }}: {{ status.error }}</p>
{% endif %}
{% if verdict %}<div class="verdict">{{ verdict }}</div>{% endif %}
<nav>{% for id, title, _ in notebooks %}<a href="#{{ id }}">{{ title }}</a> {% endfor %}
{% if records %}<a href="#query-table">Query by query</a>{% endif %}</nav></header>
<main>{% for id, _, body in notebooks %}<section id="{{ id }}">{{ body }}</section>{% endfor %}
{% if records %}
<section id="query-table"><h1>Query by query</h1>
<p>{{ records[:listed] | length }} of {{ records | length }} queries, the model's worst first;
values: nDCG@10. The first {{ unfolded }} unfold to their candidates in both orders: the first
ranks of the model and of {{ records[0].other_name }}, with relevance, score and tokens; characters
of the query are marked, unknown ones underlined.</p>
<p id="searching" hidden><label>Search: <input id="search" type="search"></label>
<span id="found"></span></p>
<div class="output"><table id="queries"><thead><tr><th>query</th><th>model</th>
<th>{{ records[0].other_name }}</th><th>difference</th><th>first positive at rank</th>
<th>slices</th></tr></thead>
{% for record in records[:listed] %}
<tbody><tr><td>{{ record.query }}</td><td>{{ "%.3f" | format(record.model) }}</td>
<td>{{ "%.3f" | format(record.other) }}</td>
<td>{{ "%+.3f" | format(record.model - record.other) }}</td>
<td>{{ "none" if record.rank is none else record.rank }}</td>
<td class="wb-slices">{{ record.slices | join("; ") }}</td></tr>
{% if loop.index <= unfolded %}
<tr><td class="wb-unfold" colspan="6"><details><summary>candidates</summary>{{ query_html(record) }}
</details></td></tr>
{% endif %}
</tbody>
{% endfor %}
</table></div><script>{{ script | safe }}</script></section>
{% endif %}
</main></body></html>
"""

# Code is folded away; prompts are left out.
NOTEBOOK = """{%- extends 'basic/index.html.j2' -%}
{% block in_prompt %}{% endblock %}{% block output_prompt %}{% endblock %}
{% block output_area_prompt %}{% endblock %}
{% block input_group %}<details><summary>code</summary>{{ super() }}</details>{% endblock %}
"""


def verdict_card(verdict: Mapping[str, str]) -> str:
    """The verdict on a vocabulary as a coloured box, in HTML."""
    colour = verdict["colour"]
    return Markup(
        '<div class="verdict {0}" style="border-left:6px solid {1};padding:.6rem 1rem;'
        'margin:.6rem 0"><b>Vocabulary: {0}.</b> {2} <b>{3}</b></div>'
    ).format(colour, COLOURS[colour], verdict["why"], verdict["action"])


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` from the executed notebooks in `run_dir/notebooks`.

    It holds every notebook that was executed, also one that failed, with its traceback.

    Returns:
        The path of the page.
    """
    from nbconvert.filters import markdown2html

    folder = project_path(run_dir)
    records, status, metrics = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in ("evaluation/browser.json", "status.json", "evaluation/metrics.json")
    )
    notebooks = [_section(path) for path in sorted((folder / "notebooks").glob("*.ipynb"))]
    found = verdict(metrics) if metrics else ""
    texts = [found, str(records), *(body for *_, body in notebooks)]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True)
    page = environment.from_string(PAGE).render(
        script=SCRIPT,
        script_hash=SCRIPT_HASH,
        name=folder.name,
        style=STYLE + BROWSER_STYLE,
        font=_font_face("".join(texts)),
        status=status,
        verdict=_clean(markdown2html(found)),
        notebooks=notebooks,
        records=records,
        listed=MAX_QUERIES,
        unfolded=min(MAX_UNFOLDED, len(records)),
        query_html=query_html,
    )
    target = folder / "report.html"
    write_text(target, page)
    return target


def _section(path: Path) -> tuple[str, str, Markup]:
    """Name, title and HTML of an executed notebook."""
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    titles = re.findall(r"^# (.*)", prose, re.MULTILINE)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET in output.get("data", {}):  # needs a kernel; the table of queries does not
                output.data = {"text/markdown": NO_WIDGET}
            if "text/html" in output.get("data", {}):  # style sheets of tables: we have our own
                found = "".join(output.data["text/html"])
                output.data["text/html"] = re.sub(r"(?s)<style.*?</style>", "", found)
    exporter = HTMLExporter(
        extra_loaders=[jinja2.DictLoader({"report.html.j2": NOTEBOOK})],
        template_file="report.html.j2",
        sanitize_html=True,
    )
    exporter.register_filter("clean_html", _clean)
    body, _ = exporter.from_notebook_node(notebook)
    return path.stem, titles[0] if titles else path.stem, Markup(body)


def _clean(text: str) -> Markup:
    """HTML in which nothing can act: only the tags and attributes that tables need."""
    return Markup(bleach.clean(text, tags=TAGS.split(), attributes=ATTRIBUTES, strip=True))


def _font_face(text: str) -> Markup:
    """A style rule with the Chinese characters of `text`, so that the page shows them anywhere."""
    from fontTools import subset

    characters = {ord(character) for character in text if character > "\u2e7f"}
    if not characters:
        return Markup("")
    options = subset.Options(layout_features=[], notdef_outline=True, ignore_missing_unicodes=True)
    packed = io.BytesIO()
    with subset.load_font(str(packaged_font()), options) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=characters)
        subsetter.subset(font)
        font.save(packed)
    return Markup(
        "@font-face{{font-family:report-chinese;font-display:block;"
        "src:url(data:font/ttf;base64,{});"
        "unicode-range:U+2E80-A4CF,U+F900-FAFF,U+FE30-FE4F,U+FF00-FFEF,U+20000-3FFFF}}"
    ).format(base64.b64encode(packed.getvalue()).decode("ascii"))
