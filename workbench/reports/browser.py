"""The error browser: a query's candidates in the order of the model and of the best baseline.

`browser_records` collects the facts and `query_html` draws them, for the view in JupyterLab and for
the table in the report. Texts are data: all are escaped.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from workbench.data.overlap import characters
from workbench.files import project_path, write_text
from workbench.vocabulary.tokens import unknown_token

if TYPE_CHECKING:
    from ipywidgets import VBox
    from tokenizers import Tokenizer

    from workbench.ranking.evaluation import Evaluation
    from workbench.scoring.baselines import Scorer

TOP = 10  # candidates shown of each order; positives below are shown as well
SORT_KEYS = {
    "worst for the model": lambda record: record["model"],
    "most lost to the baseline": lambda record: record["model"] - record["other"],
    "most won from the baseline": lambda record: record["other"] - record["model"],
    "as in the file": lambda record: 0,
}
STYLE = """.wb-orders{display:flex;gap:1.5rem;flex-wrap:wrap}.wb-orders table{font-size:.9em}
.wb-orders td{text-align:left;vertical-align:top;padding:.15rem .5rem}
mark{background:#fde68a;color:inherit}.wb-unk{border-bottom:2px solid #d55e00}
.wb-orders>table{flex:1 1 20rem}.wb-slices{color:#6b7280;font-size:.8em}
.wb-relevant{font-weight:bold}
.wb-unfold{padding-top:0!important}.wb-tokens{color:#6b7280;font-size:.85em}"""
ORDERS = jinja2.Environment(autoescape=True).from_string("""
<p>{{ marked(query) }}</p><div class="wb-orders">
{%- for name, rows in orders.items() %}
<table><caption>{{ name }}, nDCG@10 {{ "%.3f" | format(model if name == "model" else other) }}
</caption><thead><tr><th>rank</th><th>relevance</th><th>score</th><th>candidate</th></tr></thead>
<tbody>
{%- for row in rows %}
<tr{{ ' class="wb-relevant"' | safe if row.relevance > 0 }}><td>{{ row.rank }}</td>
<td>{{ "%g" | format(row.relevance) }}</td><td>{{ "%.3f" | format(row.score) }}</td>
<td>{{ marked(row.text) }}</td></tr>
{%- endfor %}</tbody></table>
{%- endfor %}</div>""")


def browser_records(
    evaluation: "Evaluation", features: pd.DataFrame, tokenizer: "Tokenizer | None" = None
) -> list[dict[str, Any]]:
    """What the browser shows, as plain values: one record per query, the model's worst first.

    Args:
        evaluation: with a scorer `model`; its best other scorer is shown as well.
        features: from `query_features`, one row per list.
        tokenizer: the model's, for tokens and unknown characters; without it none are shown.

    Returns:
        Records of `number`, `query`, `model` and `other` (their nDCG@10), `other_name`, `rank` (of
        the model's first positive), `slices`, and `orders`: for both scorers the candidates with
        `text`, `relevance`, `score`, `rank`; `tokens` by text as pieces (`[token, start, end,
        unknown]`).
    """
    from workbench.ranking.slices import BINS

    other = evaluation.best_other() or "model"
    values = {name: evaluation.values(name) for name in ("model", other)}
    shown = evaluation.ranked
    shown = shown[(shown["rank"] <= TOP) | (shown["relevance"] > 0)].sort_values("rank")
    orders = dict(iter(shown.groupby(["scorer", "number"])))
    slices = [pd.cut(features[name], BINS[name][0], labels=BINS[name][1]) for name in features]
    queries = evaluation.per_query.query("scorer == 'model'")["query"].to_list()
    records = []
    for number, query in enumerate(queries):
        rows = {name: _order(orders.get((name, number), shown.head(0))) for name in values}
        texts = dict.fromkeys([query, *(row["text"] for order in rows.values() for row in order)])
        positives = (row["rank"] for row in rows["model"] if row["relevance"] > 0)
        records.append(
            {
                "number": number,
                "query": query,
                "other_name": other,
                "model": float(values["model"][number]),
                "other": float(values[other][number]),
                "rank": min(positives, default=None),
                "slices": [
                    f"{one.name}: {one.iloc[number]}" for one in slices if one.notna().iloc[number]
                ],
                "orders": rows,
                "tokens": {text: _pieces(tokenizer, text) for text in texts} if tokenizer else {},
            }
        )
    return sorted(records, key=SORT_KEYS["worst for the model"])


def _order(rows: pd.DataFrame) -> list[dict[str, Any]]:
    columns = zip(rows["candidate"], rows["relevance"], rows["score"], rows["rank"], strict=True)
    return [
        {"text": text, "relevance": float(gain), "score": round(float(score), 4), "rank": int(rank)}
        for text, gain, score, rank in columns
    ]


def _pieces(tokenizer: "Tokenizer", text: str) -> list[list[Any]]:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = unknown_token(tokenizer)
    places = zip(encoding.tokens, encoding.offsets, strict=True)
    return [[token, start, end, token == unknown] for token, (start, end) in places]


def save_browser(run_dir: str | Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write `evaluation/browser.json`, from which the report makes its table."""
    path = project_path(run_dir) / "evaluation" / "browser.json"
    text = json.dumps(list(records), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_text(path, text + "\n")
    return path


def query_html(record: Mapping[str, Any]) -> Markup:
    """One query as HTML: its text and both orders; nothing in it can run."""

    def marked(text: str) -> Markup:
        """The text and its tokens: characters of the query marked, unknown ones underlined."""
        shared = characters(record["query"]) if text != record["query"] else frozenset()
        pieces = record["tokens"].get(text, [])
        unknown = {place for _, start, end, lost in pieces if lost for place in range(start, end)}
        looks = ((one in shared, place in unknown) for place, one in enumerate(text))
        html = Markup()
        for (common, lost), run in groupby(zip(looks, text, strict=True), lambda at: at[0]):
            part = escape("".join(one for _, one in run))
            part = Markup('<span class="wb-unk">{}</span>').format(part) if lost else part
            html += Markup("<mark>{}</mark>").format(part) if common else part
        if pieces:
            tokens = " ".join(piece[0] for piece in pieces)
            html += Markup('<div class="wb-tokens">{}</div>').format(tokens)
        return html

    return Markup(ORDERS.render(record, marked=marked))


def error_browser(records: Sequence[Mapping[str, Any]], page_size: int = 12) -> "VBox":
    """The browser in JupyterLab: choose a slice, an order, a page, and a query on it.

    Args:
        records: from `browser_records`.
        page_size: queries per page.
    """
    import ipywidgets as w

    names = sorted({name for record in records for name in record["slices"]})
    chosen = w.Dropdown(options=["all queries", *names], description="slice")
    order = w.Dropdown(options=list(SORT_KEYS), description="order")
    page = w.BoundedIntText(value=1, min=1, max=1, description="page")
    queries = w.Select(options=[], rows=page_size, layout=w.Layout(width="100%"))
    view, count = w.HTML(), w.Label()

    def show(_: Any = None) -> None:
        record = queries.value
        view.value = f"<style>{STYLE}</style>{query_html(record)}" if record else ""

    def fill(change: Any = None) -> None:
        if change and change["owner"] is not page:
            page.value = 1
        found = [r for r in records if chosen.value in ("all queries", *r["slices"])]
        found.sort(key=lambda record: (SORT_KEYS[order.value](record), record["number"]))
        page.max = max(1, -(-len(found) // page_size))
        count.value = f"{len(found):,} queries, {page.max:,} pages"
        start = (page.value - 1) * page_size
        queries.options = [
            (f"{r['model']:.2f} against {r['other']:.2f}  {r['query']}", r)
            for r in found[start : start + page_size]
        ]
        queries.index = 0 if queries.options else None
        show()

    for control in (chosen, order, page):
        control.observe(fill, "value")
    queries.observe(show, "index")
    fill()
    return w.VBox([w.HBox([chosen, order, page, count]), queries, view])


def live_ranking(
    scorers: "Mapping[str, Scorer]", query: str = "", candidates: Sequence[str] = ()
) -> "VBox":
    """A form for a query and candidates, one per line, with a button that ranks them."""
    import ipywidgets as w

    from workbench.ranking.evaluation import rank_query

    wide = w.Layout(width="100%")
    asked = w.Text(value=query, description="query", layout=wide)
    lines = w.Textarea(value="\n".join(candidates), description="candidates", rows=8, layout=wide)
    button, view = w.Button(description="rank", button_style="primary"), w.HTML()

    def answer(_: Any = None) -> None:
        texts = [line.strip() for line in lines.value.splitlines() if line.strip()]
        if not asked.value.strip() or not texts:
            view.value = "<p>Type a query and at least one candidate.</p>"
            return
        ranked = rank_query(scorers, asked.value.strip(), texts)
        ranked.index = pd.RangeIndex(1, len(ranked) + 1, name="rank")
        view.value = ranked.to_html(float_format="{:.3f}".format, escape=True, border=0)

    button.on_click(answer)
    answer()
    return w.VBox([asked, lines, button, view])
