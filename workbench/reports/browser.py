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

from workbench.data.texts import characters
from workbench.files import write_text
from workbench.ranking.uncertainty import format_estimate
from workbench.run_folder import RunFolder
from workbench.vocabulary.dictionary import sample_glosses, with_gloss
from workbench.vocabulary.tokens import tokenize

if TYPE_CHECKING:
    from ipywidgets import VBox
    from tokenizers import Tokenizer

    from workbench.ranking.evaluation import Evaluation
    from workbench.scoring.baselines import Scorer

TOP = 10  # candidates shown of each order; positives below are shown as well
LISTED = 2000  # queries of the report's table, and of one choice of slice and order
SORT_KEYS = {
    "worst for the model": lambda record: record["model"],
    "most lost to the baseline": lambda record: record["model"] - record["other"],
    "most won from the baseline": lambda record: record["other"] - record["model"],
    "as in the file": lambda record: record["number"],
}
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("workbench.reports"),
    autoescape=True,
    trim_blocks=True,
    undefined=jinja2.ChainableUndefined,  # what a record lacks prints as nothing
)
TEMPLATES.filters["estimate"] = format_estimate
TEMPLATES.filters["n"] = lambda v: (
    f"{v:,}" if isinstance(v, int) else f"{v:g}" if isinstance(v, float) else v or ""
)


def browser_records(
    evaluation: "Evaluation", features: pd.DataFrame, tokenizer: "Tokenizer | None" = None
) -> list[dict[str, Any]]:
    """What the browser shows, as plain values: one record per query, the model's worst first.

    Args:
        evaluation: with a scorer `model`; its best other scorer is shown as well.
        features: from `query_features`, one row per list.
        tokenizer: the model's; without it no tokens and unknown characters are shown.

    Returns:
        Records of `number`, `query`, `model` and `other` (their nDCG@10), `other_name`, `rank` (of
        the model's first positive), `slices`, candidates of both `orders`, and `tokens` by text.
    """
    from workbench.ranking.slices import BINS

    other = evaluation.best_other() or "model"
    values = {name: evaluation.values(name) for name in ("model", other)}
    shown = evaluation.ranked.rename(columns={"candidate": "text"}).sort_values("rank")
    shown = shown[(shown["rank"] <= TOP) | (shown["relevance"] > 0)].round({"score": 4})
    columns = ["text", "relevance", "score", "rank"]
    orders = {
        key: rows[columns].to_dict("records") for key, rows in shown.groupby(["scorer", "number"])
    }
    slices = pd.DataFrame({n: pd.cut(features[n], BINS[n][0], labels=BINS[n][1]) for n in features})
    queries = evaluation.per_query.query("scorer == 'model'")["query"]
    every = list(dict.fromkeys([*queries, *shown["text"]]))
    tokens = dict(zip(every, tokenize(tokenizer, every), strict=True)) if tokenizer else {}
    records = []
    for number, query in enumerate(queries):
        rows = {name: orders.get((name, number), []) for name in values}
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
                "slices": [f"{name}: {own}" for name, own in slices.iloc[number].dropna().items()],
                "orders": rows,
                "tokens": {text: tokens[text] for text in texts if tokens},
            }
        )
    return sorted(records, key=SORT_KEYS["worst for the model"])


def save_browser(run_dir: str | Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write `evaluation/browser.json`, from which the report makes its table."""
    path = RunFolder(run_dir).browser
    text = json.dumps(list(records), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_text(path, text + "\n")
    return path


def query_html(record: Mapping[str, Any]) -> Markup:
    """One query and both orders as HTML in which nothing can run; shared characters are marked."""

    def marked(text: str) -> Markup:
        """The text, its meaning where that is known, and its tokens."""
        shared = characters(record["query"]) if text != record["query"] else frozenset()
        pieces = record["tokens"].get(text, [])
        unknown = {place for _, start, end, lost in pieces if lost for place in range(start, end)}
        looks = [(one in shared, place in unknown) for place, one in enumerate(text)]
        html = Markup()
        for (common, lost), places in groupby(range(len(text)), looks.__getitem__):
            part = escape("".join(text[place] for place in places))
            part = Markup('<span class="wb-unk">{}</span>').format(part) if lost else part
            html += Markup("<mark>{}</mark>").format(part) if common else part
        for more in (sample_glosses().get(text), " ".join(piece[0] for piece in pieces)):
            html += Markup('<div class="wb-tokens">{}</div>').format(more) if more else ""
        return html

    return Markup(TEMPLATES.get_template("orders.html").render(record, marked=marked))


def error_browser(records: Sequence[Mapping[str, Any]]) -> "VBox":
    """The browser in JupyterLab, of `browser_records`: choose a slice, an order, and a query."""
    import ipywidgets as w

    names = sorted({name for record in records for name in record["slices"]})
    chosen = w.Dropdown(options=["all queries", *names], description="slice")
    order = w.Dropdown(options=list(SORT_KEYS), description="order")
    queries = w.Select(options=[], rows=12, layout=w.Layout(width="100%"))
    style, view, count = TEMPLATES.get_template("orders.css").render(), w.HTML(), w.Label()

    def show(_: Any = None) -> None:
        record = queries.value
        view.value = f"<style>{style}</style>{query_html(record)}" if record else ""

    def fill(_: Any = None) -> None:
        found = [r for r in records if chosen.value in ("all queries", *r["slices"])]
        found.sort(key=SORT_KEYS[order.value])
        count.value = f"{len(found):,} queries"
        queries.options = [
            (f"{r['model']:.2f} against {r['other']:.2f}  {r['query']}", r) for r in found[:LISTED]
        ]
        queries.index = 0 if found else None
        show()

    for control in (chosen, order):
        control.observe(fill, "value")
    queries.observe(show, "index")
    fill()
    return w.VBox([w.HBox([chosen, order, count]), queries, view])


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
        table = with_gloss(ranked, "candidate")
        view.value = table.to_html(float_format="{:.3f}".format, justify="left", border=0)

    button.on_click(answer)
    answer()
    return w.VBox([asked, lines, button, view])
