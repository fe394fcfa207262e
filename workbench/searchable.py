"""The error browser without a kernel: a table of the report that can be searched and sorted.

The page's policy allows one script, this module's, by its hash. Texts from the data are escaped,
and even one that were not could not run, for its hash is another. Without the script, or on paper,
the table is whole; only searching and sorting are missing.
"""

import base64
import hashlib
import html
from collections.abc import Mapping, Sequence
from typing import Any

from workbench.browser import query_html

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
