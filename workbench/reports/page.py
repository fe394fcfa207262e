"""One page of a run: a summary, then its executed notebooks; nothing in the data can run in it."""

import base64
import hashlib
import html
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import bleach
import jinja2
import nbformat
import yaml
from markupsafe import Markup

from workbench.files import write_text
from workbench.ranking.uncertainty import claim, format_estimate
from workbench.reports.browser import STYLE as BROWSER_STYLE
from workbench.reports.browser import query_html
from workbench.reports.figures.style import packaged_font
from workbench.reports.findings import Record, count
from workbench.reports.findings.ranking import verdict
from workbench.reports.model_card import recommendations, repaired
from workbench.run_folder import RunFolder, read_record

STATES = {"better": "green", "worse": "red", "tied": "red"}  # of a claim; others are amber
COLOURS = {"green": "#009E73", "amber": "#E69F00", "red": "#D55E00"}
MAX_UNFOLDED = 150  # queries that unfold to their candidates; the worst for the model
MAX_QUERIES = 2000  # in the table
MAX_LINES = 6  # of printed output; more are folded
TAGS = (
    "a b blockquote br code details div em h1 h2 h3 h4 hr img li ol p pre span strong summary "
    "table tbody td tfoot th thead tr ul"
)
ATTRIBUTES = {"*": ["class", "id", "colspan", "rowspan"], "a": ["href"], "img": ["src", "alt"]}
WIDGET = "application/vnd.jupyter.widget-view+json"
NO_WIDGET = "*(Interactive in JupyterLab; on this page see [Query by query](#query-table).)*"
EDITORS = {"parameters", "injected-parameters"}  # tags of cells that are for an editor
NEEDLESS = re.compile(r"wb\.environment\(|\blive_ranking\(")  # on the page once, or not possible
NOTHING = re.compile(r"(There is no|No stage|This training kept no) ")  # what a part found

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
:root{color-scheme:light dark;--text:#1f2937;--soft:#5b6472;--page:#f6f7f9;--card:#fff;
--line:#e3e6ea;--link:#0067a3;--bar:#b9c2cf;--own:#0072b2;--good:#009e73;--fair:#d28d00;
--bad:#d55e00;--mark:#fde68a;--shade:rgba(31,41,55,.22)}
@media(prefers-color-scheme:dark){:root{--text:#dde2e9;--soft:#9aa5b4;--page:#14171c;--card:#1c2027;
--line:#333a45;--link:#6cb8ea;--bar:#566171;--own:#4ba3db;--good:#2fbf94;--fair:#e6a93c;
--bad:#f0834a;--mark:#6b5514;--shade:rgba(0,0,0,.6)}
img{filter:invert(.89) hue-rotate(180deg)}}
*{box-sizing:border-box}html{scroll-padding-top:3.5rem}
body{font:16px/1.65 report-chinese,system-ui,"Noto Sans",sans-serif;color:var(--text);
background:var(--page);margin:0;display:grid;grid-template-columns:15rem minmax(0,58rem);
gap:2rem;justify-content:center;padding:0 1.5rem}
nav{position:sticky;top:0;align-self:start;max-height:100vh;overflow:auto;padding:2rem 0;
font-size:.85rem;line-height:1.4}
nav ul{list-style:none;margin:0;padding:0}nav ul ul{padding-left:.8rem}nav li{margin:.4rem 0}
nav a{color:var(--soft);text-decoration:none}nav>ul>li>a{color:var(--text);font-weight:600}
nav a:hover{color:var(--link);text-decoration:underline}a{color:var(--link)}
section{margin:1.5rem 0;padding:1.5rem 2rem;background:var(--card);border:1px solid var(--line);
border-radius:12px}
h1{font-size:1.7rem;line-height:1.25;margin:.2em 0 .7em}h2{font-size:1.25rem;margin:2.2em 0 .6em;
padding-top:1.4em;border-top:1px solid var(--line);line-height:1.3}
.verdict{border-left:5px solid var(--fair);background:var(--page);padding:.8rem 1.1rem;
border-radius:6px;margin:1rem 0}.verdict p{margin:0}.verdict.red{border-color:var(--bad)}
.verdict.green{border-color:var(--good)}
img{max-width:min(100%,45rem);height:auto;display:block;margin:.8rem 0}
p,li,td,h1,h2{overflow-wrap:anywhere}li>p{margin:.2rem 0}
code,pre{font-family:report-chinese,ui-monospace,monospace;font-size:.88em}
pre{white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.45}
code,details pre{background:var(--page);border-radius:4px;padding:.1em .3em}
pre code{background:none;padding:0}details{margin:.6rem 0}
summary{cursor:pointer;color:var(--soft);font-size:.85rem}
.wide,.output_html,.output_png{overflow-x:auto;
background:linear-gradient(90deg,var(--card) 30%,transparent) 0 0/2.5rem 100%,
linear-gradient(270deg,var(--card) 30%,transparent) 100% 0/2.5rem 100%,
linear-gradient(90deg,var(--shade),transparent) 0 0/.7rem 100%,
linear-gradient(270deg,var(--shade),transparent) 100% 0/.7rem 100%;
background-attachment:local,local,scroll,scroll;background-repeat:no-repeat}
table{border-collapse:collapse;font-size:.88rem;margin:.8rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.32rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
thead th{border-bottom-width:2px;white-space:nowrap}.anchor-link{display:none}
.ladder{width:100%}.ladder td:nth-child(2){width:45%}.ladder td,.ladder th{vertical-align:middle}
.ladder div{position:relative;height:1.1rem;background:var(--page);border-radius:3px}
.ladder i{position:absolute;top:.15rem;height:.8rem;left:0;background:var(--bar);border-radius:3px}
.ladder b{position:absolute;top:.5rem;height:2px;background:var(--text)}
.ladder .own i{background:var(--own)}.ladder .own{font-weight:600}
.facts th{font-weight:600;white-space:nowrap;width:8rem}.facts{width:100%}
#search{font:inherit;padding:.3rem .6rem;width:18rem;max-width:100%;color:inherit;
background:var(--page);border:1px solid var(--line);border-radius:6px}
#queries>tbody>tr:has(+tr)>td{border-bottom:0}#queries{width:100%}
.nothing{color:var(--soft)}.traceback{border-left:5px solid var(--bad);padding:.7rem}
@media(max-width:64rem){body{display:block;padding:0 .6rem}section{padding:1rem}
nav{background:var(--page);padding:.6rem 0;z-index:1;border-bottom:1px solid var(--line)}
nav>ul{display:flex;gap:1.1rem;overflow-x:auto;white-space:nowrap}nav ul ul{display:none}
nav li{margin:0}}
@media(max-width:40rem){.wb-slices,#queries th:nth-child(6){display:none}
h1{font-size:1.4rem}th,td{padding:.3rem .45rem}.facts th,.facts td{display:block;border:0;
padding:.1rem 0}.facts th{padding-top:.5rem}
.ladder thead{display:none}.ladder tr{display:grid;grid-template-columns:auto auto;padding:.4rem 0;
border-bottom:1px solid var(--line)}.ladder td{border:0}.ladder td:nth-child(3){text-align:right}
.ladder td:nth-child(2){grid-column:1/-1;order:3;width:auto}
.output_png img{max-width:none;width:34rem}
:is(.wide,.output_html):has(thead th:nth-child(5))::before,.output_png::before{
content:"scrolls sideways \\2194";
color:var(--soft);font-size:.78rem;position:sticky;left:0}}
@media print{nav,#searching{display:none!important}body{display:block}section{border:0}}
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
<body><nav><ul><li><a href="#summary">Summary</a></li>
{% for id, title, _, parts in notebooks %}<li><a href="#{{ id }}">{{ title }}</a><ul>
{% for part, heading in parts %}<li><a href="#{{ part }}">{{ heading }}</a></li>{% endfor %}
</ul></li>{% endfor %}
{% if records %}<li><a href="#query-table">Query by query</a></li>{% endif %}</ul></nav>
<main><section id="summary"><h1>Run {{ name }}</h1>
{% if status.state == "failed" %}
<p class="verdict red"><strong>This run failed</strong> in notebook
{{ status.notebook or status.act }}, cell {{ status.cell }}: {{ status.error }}</p>
{% endif %}
{% if verdict %}<div class="verdict {{ colour }}">{{ verdict }}</div>{% endif %}
{% if ladder %}
<div class="wide"><table class="ladder"><thead><tr><th>scorer</th><th>nDCG@10, 0 to 1</th>
<th>mean [95 % interval]</th></tr></thead><tbody>
{% for row in ladder %}<tr{{ ' class="own"' | safe if row.scorer == "model" }}>
<td>{{ row.scorer }}</td><td><div><i style="width:{{ row.mean }}%"></i>
<b style="left:{{ row.low }}%;width:{{ row.width }}%"></b></div></td><td>{{ row.text }}</td></tr>
{% endfor %}</tbody></table></div>
{% endif %}
{% if next %}<h2>What to do next</h2><ul>{% for one in next %}<li>{{ one }}</li>{% endfor %}</ul>
{% endif %}
<h2>The run</h2><table class="facts"><tbody>
{% for label, fact in facts.items() %}<tr><th>{{ label }}</th><td>{{ fact }}</td></tr>{% endfor %}
{% if files %}<tr><th>Files</th><td>{% for file, label in files.items() %}
<a href="{{ file }}">{{ label }}</a>{{ "" if loop.last else ", " }}{% endfor %}</td></tr>
{% endif %}</tbody></table>
{% for label, values in tables.items() %}<details><summary>{{ label }}</summary><table><tbody>
{% for key, value in values.items() %}<tr><td>{{ key }}</td><td>{{ value }}</td></tr>
{% endfor %}</tbody></table></details>{% endfor %}
</section>
{% for id, _, body, _ in notebooks %}<section id="{{ id }}">{{ body }}</section>{% endfor %}
{% if records %}
<section id="query-table"><h1>Query by query</h1>
<p>{{ records[:listed] | length }} of {{ records | length }} queries, the model's worst first;
values: nDCG@10. The first {{ unfolded }} unfold to their candidates in both orders: the first
ranks of the model and of {{ records[0].other_name }}, with relevance, score and tokens; characters
of the query are marked, unknown ones underlined. The scores of the model are logits.</p>
<p id="searching" hidden><label>Search: <input id="search" type="search"></label>
<span id="found"></span></p>
<div class="wide"><table id="queries"><thead><tr><th>query</th><th>model</th>
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


def verdict_card(verdict: Mapping[str, str]) -> str:
    """The verdict on a vocabulary as a coloured box, in HTML."""
    colour = verdict["colour"]
    return Markup(
        '<div class="verdict {0}" style="border-left:6px solid {1};padding:.6rem 1rem;'
        'margin:.6rem 0"><b>Vocabulary: {0}.</b> {2} <b>{3}</b></div>'
    ).format(colour, COLOURS[colour], verdict["why"], verdict["action"])


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` of a run: a summary and the executed notebooks in its `notebooks/`.

    It holds every notebook that was executed, also one that failed, with its traceback. Code,
    parameters and versions are left out of the notebooks: the summary has the latter two.

    Returns:
        The path of the page.
    """
    from nbconvert.filters import markdown2html

    run = RunFolder(run_dir)
    records, status, metrics, environment = map(
        read_record, (run.browser, run.status, run.metrics, run.environment)
    )
    notebooks = [
        _section(path, n) for n, path in enumerate(sorted(run.notebooks.glob("*.ipynb")), 1)
    ]
    found = verdict(metrics) if metrics else ""
    texts = [found, str(records), *(body for _, _, body, _ in notebooks)]
    parameters = (
        yaml.safe_load(run.parameters.read_text("utf-8")) if run.parameters.is_file() else {}
    )
    tables = {"All parameters": parameters, "Versions": environment.get("packages", {})}
    files = {"model/": "model", "model/README.md": "model card", "evaluation/": "evaluation"}
    page = jinja2.Environment(autoescape=True, trim_blocks=True).from_string(PAGE)
    text = page.render(
        script=SCRIPT,
        script_hash=SCRIPT_HASH,
        name=run.path.name,
        style=STYLE + BROWSER_STYLE,
        font=_font_face("".join(texts)),
        status=status,
        verdict=_clean(markdown2html(found)),
        colour=STATES.get(claim(metrics).state, "") if metrics else "",
        ladder=_ladder(metrics),
        next=_next_steps(run),
        facts=_facts(run, status, metrics),
        files={file: label for file, label in files.items() if (run.path / file).exists()},
        tables={label: values for label, values in tables.items() if values},
        notebooks=notebooks,
        records=records,
        listed=MAX_QUERIES,
        unfolded=min(MAX_UNFOLDED, len(records)),
        query_html=query_html,
    )
    write_text(run.report, text)
    return run.report


def _ladder(metrics: Record) -> list[dict[str, Any]]:
    """The scorers by falling nDCG@10, with the places of bar and interval in percent."""
    rows = []
    for row in metrics.get("rows", []):
        value = row["ndcg@10"]
        mean, low, high = (
            100 * float(value["mean"] if value[name] is None else value[name])
            for name in ("mean", "low", "high")
        )
        row = {"scorer": row["scorer"], "mean": mean, "low": low, "width": high - low}
        rows.append(row | {"text": format_estimate(value)})
    return sorted(rows, key=lambda row: -row["mean"])


def _next_steps(run: RunFolder) -> list[str]:
    """What the card recommends, as HTML; nothing where the records do not carry it."""
    from nbconvert.filters import markdown2html

    with suppress(LookupError, TypeError, ValueError, AttributeError):
        return [_clean(markdown2html(one)) for one in recommendations(run.path)]
    return []


def _facts(run: RunFolder, status: Record, metrics: Record) -> dict[str, str]:
    """What the run was made of, by label, as far as it is recorded."""
    facts: dict[str, str] = {}
    unrecorded = suppress(LookupError, TypeError, ValueError, AttributeError)
    with unrecorded:
        manifest = read_record(run.manifest)
        rows = manifest["rows"]
        splits = (f"{name} {one['pairs']:,}" for name, one in manifest["sides"].items())
        facts["Data"] = (
            f"{manifest['source']}: {count(rows['read'], 'row')}, {rows['bad']:,} set aside; "
            f"{', '.join(splits)} pairs"
        )
    with unrecorded:
        stages = read_record(run.lineage)["stages"]
        base, last = stages[0]["base"], stages[-1]
        asked, recipe = base.get("asked", base["name"]), last["recipe"]
        missing = "" if asked == base["name"] else f", in place of {asked}, which was out of reach"
        facts["Base"] = base["name"] + missing
        facts["Vocabulary"] = "kept" if not (how := repaired(stages)) else f"repaired by {how}"
        facts["Training"] = (
            f"{count(len(stages), 'stage')}; {recipe['epochs']:g} x {count(last['pairs'], 'pair')} "
            f"in batches of {recipe['batch_size']}, learning rate {recipe['learning_rate']:g}, up "
            f"to {recipe['max_length']} tokens, seed {recipe['seed']}; {last['precision']} on "
            f"{last['device']}"
        )
    with unrecorded:
        source = metrics["recipe"].get("source", "given")
        facts["Test"] = (
            f"{count(metrics['queries'], 'query')} with {metrics['candidates']:,} candidates, "
            f"{source}"
        )
    with unrecorded:
        runs = status.get("notebooks") or status["acts"]
        took = {act: one["seconds"] for act, one in runs.items() if "seconds" in one}
        each = ", ".join(f"notebook {act} {seconds:.0f}" for act, seconds in took.items())
        facts["Time"] = f"{sum(took.values()):,.0f} s ({each}), from {status['started']}"
    return facts


def _section(path: Path, number: int) -> tuple[str, str, Markup, list[tuple[str, Markup]]]:
    """Name, title and HTML of an executed notebook, and the anchor and title of its parts."""
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    notebook.metadata.pop("widgets", None)
    notebook.cells = _without_nothing(_for_readers(notebook.cells))
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    titles = re.findall(r"^# (.*)", prose, re.MULTILINE)
    exporter = HTMLExporter(template_name="basic", exclude_input=True, sanitize_html=True)
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.register_filter("clean_html", _clean)
    body = re.sub(r' id="cell-id=[^"]*"', "", exporter.from_notebook_node(notebook)[0])
    body = re.sub(r'(<h[1-4] id=")', rf"\1part-{number}-", body)
    parts = re.findall(r'<h2 id="([^"]*)">(.*?)<a class="anchor-link"', body)
    shown = [(anchor, Markup(re.sub(r"<.*?>", "", title))) for anchor, title in parts]
    return path.stem, titles[0] if titles else path.stem, Markup(body), shown


def _for_readers(cells: Sequence[Any]) -> list[Any]:
    """Cells without what is for an editor, widgets and style sheets; printed output in one piece.

    A markdown cell is cut where a part begins, so that a cell belongs to one part.
    """
    kept: list[Any] = []
    for cell in cells:
        if cell.cell_type == "markdown":
            parts = re.split(r"^(?=## )", cell.source, flags=re.MULTILINE)
            kept += [nbformat.v4.new_markdown_cell(part) for part in parts if part.strip()]
            continue
        outputs = cell.get("outputs", [])
        editors = EDITORS & set(cell.metadata.get("tags", [])) or NEEDLESS.search(cell.source)
        if editors and all(output.output_type != "error" for output in outputs):
            if kept and kept[-1].cell_type == "markdown":  # its introduction, but no heading
                kept[-1].source = "".join(re.findall(r"^#.*\n?", kept[-1].source, re.MULTILINE))
            continue
        cell.outputs = [*map(_shown, _joined(outputs))]
        kept.append(cell)
    return kept


def _joined(outputs: Sequence[Any]) -> list[Any]:
    """Outputs with what was printed in several pieces as one."""
    joined: list[Any] = []
    for name, group in groupby(outputs, key=lambda output: output.get("name", "")):
        first, *others = group
        if name:
            first.text += "".join(other.text for other in others)
        joined += [first] if name else [first, *others]
    return joined


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
        text = re.sub(r"[^\n]*\r(?!\n)", "", strip_ansi(output.text)).strip()
        lines = text.count("\n") + 1
        if output.name == "stderr" or lines > MAX_LINES:
            title = "1 line of output" if lines == 1 else f"{lines} lines of output"
            text = f"<details><summary>{title}</summary><pre>{html.escape(text)}</pre></details>"
            return nbformat.v4.new_output("display_data", {"text/html": text})
    return output


def _without_nothing(cells: Sequence[Any]) -> list[Any]:
    """Cells, where a part whose result is that there is nothing has become one line."""
    starts = [n for n, cell in enumerate(cells) if cell.source.startswith("## ")]
    bounds = [0, *starts, len(cells)]
    parts = [[*cells[start:end]] for start, end in pairwise(bounds)]
    for part in parts:
        said = [
            output.data["text/markdown"]
            for cell in part
            for output in cell.get("outputs", [])
            if "text/markdown" in output.get("data", {})
        ]
        if part and part[0].source.startswith("## ") and said and NOTHING.match(said[0]):
            title = part[0].source.splitlines()[0].removeprefix("## ")
            part[:] = [nbformat.v4.new_markdown_cell(f"**{title}** {said[0]}")]
    return [cell for part in parts for cell in part]


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
