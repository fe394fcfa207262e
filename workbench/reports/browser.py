"""The error browser: a query's candidates under the model beside the best baseline's order.

One form of the facts (`browser_records`), one way to draw them (`query_html`), used by the view in
JupyterLab and by the table in the report. Texts are data: every one is escaped before it is HTML.
"""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from workbench.data.overlap import characters
from workbench.files import project_path, write_text
from workbench.ranking.evaluation import Evaluation, rank_query
from workbench.ranking.slices import BINS
from workbench.scoring.baselines import Scorer
from workbench.vocabulary.tokens import unknown_token

if TYPE_CHECKING:
    from ipywidgets import VBox
    from tokenizers import Tokenizer

TOP = 10  # candidates shown of each order; positives below are shown as well


SORTS = {
    "worst for the model": lambda record: (record["model"], record["number"]),
    "most lost to the baseline": lambda record: (
        record["model"] - record["other"],
        record["number"],
    ),
    "most won from the baseline": lambda record: (
        record["other"] - record["model"],
        record["number"],
    ),
    "as in the file": lambda record: record["number"],
}


STYLE = """.wb-orders{display:flex;gap:1.5rem;flex-wrap:wrap}.wb-orders table{font-size:.9em}
.wb-orders td{text-align:left;vertical-align:top;padding:.15rem .5rem}
mark{background:#fde68a;color:inherit}.wb-unk{border-bottom:2px solid #d55e00}
.wb-orders>table{flex:1 1 20rem}.wb-slices{color:#6b7280;font-size:.8em}
.wb-unfold{padding-top:0!important}.wb-tokens{color:#6b7280;font-size:.85em}.wb-relevant{font-weight:bold}"""


def browser_records(
    evaluation: Evaluation, features: pd.DataFrame, tokenizer: "Tokenizer | None" = None
) -> list[dict[str, Any]]:
    """What the browser shows, as plain values: one record a query, the model's worst first.

    Args:
        evaluation: with a scorer `model`; the best other scorer is shown beside it.
        features: from `query_features`, one row a list.
        tokenizer: the model's, for tokens and unknown signs; without it none are shown.

    Returns:
        Records of `number`, `query`, `model` and `other` (their nDCG@10), `other_name`, `rank` (of
        the model's first positive), `slices`, and `orders`: for both scorers the candidates with
        `text`, `relevance`, `score`, `rank`; `tokens` by text as pieces (`[token, start, end,
        unknown]`).
    """
    other = evaluation.best_other() or "model"
    shown = {
        name: evaluation.ranked[evaluation.ranked["scorer"] == name].groupby("number")
        for name in ("model", other)
    }
    names = {
        column: pd.cut(features[column], BINS[column][0], labels=BINS[column][1])
        for column in features
    }
    queries = evaluation.per_query.query("scorer == 'model'")["query"].to_list()
    values = {name: evaluation.values(name) for name in shown}
    records = []
    for number, query in enumerate(queries):
        orders = {
            name: _order(groups.get_group(number)) if number in groups.groups else []
            for name, groups in shown.items()
        }
        texts = dict.fromkeys([query, *(row["text"] for rows in orders.values() for row in rows)])
        ranks = [row["rank"] for row in orders["model"] if row["relevance"] > 0]
        records.append(
            {
                "number": number,
                "query": query,
                "other_name": other,
                "model": float(values["model"][number]),
                "other": float(values[other][number]),
                "rank": min(ranks, default=None),
                "slices": [
                    f"{column}: {place.iloc[number]}"
                    for column, place in names.items()
                    if isinstance(place.iloc[number], str)
                ],
                "orders": orders,
                "tokens": {text: _pieces(tokenizer, text) for text in texts} if tokenizer else {},
            }
        )
    return sorted(records, key=SORTS["worst for the model"])


def save_browser(run_dir: str | Path, records: Sequence[Mapping[str, Any]]) -> Path:
    """Write `evaluation/browser.json`, from which the report makes its table."""
    path = project_path(run_dir) / "evaluation" / "browser.json"
    text = json.dumps(list(records), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    write_text(path, text + "\n")
    return path


def query_html(record: Mapping[str, Any]) -> str:
    """One query as HTML: its text and both orders; nothing in it can run."""
    query, tokens = record["query"], record["tokens"]
    parts = [
        f"<p>{_text(query, query, tokens)}{_tokens(query, tokens)}</p>",
        '<div class="wb-orders">',
    ]
    for name, rows in record["orders"].items():
        value = record["model"] if name == "model" else record["other"]
        parts.append(
            f"<table><caption>{html.escape(name)}, nDCG@10 {value:.3f}</caption><thead><tr>"
            "<th>rank</th><th>relevance</th><th>score</th><th>candidate</th></tr></thead><tbody>"
        )
        for row in rows:
            kind = ' class="wb-relevant"' if row["relevance"] > 0 else ""
            parts.append(
                f"<tr{kind}><td>{row['rank']}</td><td>{row['relevance']:g}</td>"
                f"<td>{row['score']:.3f}</td><td>{_text(row['text'], query, tokens)}"
                f"{_tokens(row['text'], tokens)}</td></tr>"
            )
        parts.append("</tbody></table>")
    return "".join(parts) + "</div>"


def error_browser(records: Sequence[Mapping[str, Any]], page_size: int = 12) -> "VBox":
    """The browser in JupyterLab: choose a slice, an order, a page, and a query on it.

    Args:
        records: from `browser_records`.
        page_size: queries a page.
    """
    import ipywidgets as w

    names = sorted({name for record in records for name in record["slices"]})
    chosen = w.Dropdown(options=["all queries", *names], description="slice")
    order = w.Dropdown(options=list(SORTS), description="order")
    page = w.BoundedIntText(value=1, min=1, max=1, description="page")
    queries = w.Select(options=[], rows=page_size, layout=w.Layout(width="100%"))
    view, count = w.HTML(), w.Label()

    def show(_: Any = None) -> None:
        record = queries.value
        view.value = f"<style>{STYLE}</style>{query_html(record)}" if record else ""

    def fill(_: Any = None) -> None:
        every = [r for r in records if chosen.value in ("all queries", *r["slices"])]
        every.sort(key=SORTS[order.value])
        page.max = max(1, -(-len(every) // page_size))
        count.value = f"{len(every):,} queries, {page.max:,} pages"
        start = (page.value - 1) * page_size
        queries.options = [
            (f"{r['model']:.2f} against {r['other']:.2f}  {r['query']}", r)
            for r in every[start : start + page_size]
        ]
        queries.index = 0 if queries.options else None
        show()

    def restart(_: Any) -> None:
        page.value = 1
        fill()

    for control in (chosen, order):
        control.observe(restart, "value")
    page.observe(fill, "value")
    queries.observe(show, "index")
    fill()
    return w.VBox([w.HBox([chosen, order, page, count]), queries, view])


def live_ranking(
    scorers: Mapping[str, Scorer], query: str = "", candidates: Sequence[str] = ()
) -> "VBox":
    """Type a query and candidates, one a line, and have them ranked at the press of a button."""
    import ipywidgets as w

    wide = w.Layout(width="100%")
    asked = w.Text(value=query, description="query", layout=wide)
    lines = w.Textarea(value="\n".join(candidates), description="candidates", rows=8, layout=wide)
    button, view = w.Button(description="rank", button_style="primary"), w.HTML()

    def answer(_: Any = None) -> None:
        texts = [line.strip() for line in lines.value.splitlines() if line.strip()]
        if not asked.value.strip() or not texts:
            view.value = "<p>Type a query and at least one candidate.</p>"
            return
        view.value = ranking_html(rank_query(scorers, asked.value.strip(), texts))

    button.on_click(answer)
    answer()
    return w.VBox([asked, lines, button, view])


def ranking_html(ranked: pd.DataFrame) -> str:
    """A table from `rank_query` as HTML, texts escaped, scores with three places."""
    frame = ranked.copy()
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="rank")
    return str(frame.to_html(float_format=lambda value: f"{value:.3f}", escape=True, border=0))


def _order(rows: pd.DataFrame) -> list[dict[str, Any]]:
    best = rows[(rows["rank"] <= TOP) | (rows["relevance"] > 0)].sort_values("rank")
    columns = zip(best["candidate"], best["relevance"], best["score"], best["rank"], strict=True)
    return [
        {"text": text, "relevance": float(gain), "score": round(float(score), 4), "rank": int(rank)}
        for text, gain, score, rank in columns
    ]


def _pieces(tokenizer: "Tokenizer", text: str) -> list[list[Any]]:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    unknown = unknown_token(tokenizer)
    places = zip(encoding.tokens, encoding.offsets, strict=True)
    return [[token, start, end, token == unknown] for token, (start, end) in places]


def _tokens(text: str, tokens: Mapping[str, Any]) -> str:
    pieces = tokens.get(text, [])
    if not pieces:
        return ""
    return f'<div class="wb-tokens">{html.escape(" ".join(piece[0] for piece in pieces))}</div>'


def _text(text: str, query: str, tokens: Mapping[str, Any]) -> str:
    """The text escaped, with the signs it shares with the query marked, unknown ones underlined."""
    shared = characters(query) if text != query else frozenset()
    unknown = {
        place for _, start, end, lost in tokens.get(text, []) if lost for place in range(start, end)
    }
    parts: list[tuple[bool, bool, str]] = []
    for place, sign in enumerate(text):
        look = sign in shared, place in unknown
        if parts and parts[-1][:2] == look:
            parts[-1] = (*look, parts[-1][2] + sign)
        else:
            parts.append((*look, sign))
    drawn = []
    for marked, lost, piece in parts:
        escaped = html.escape(piece)
        escaped = f'<span class="wb-unk">{escaped}</span>' if lost else escaped
        drawn.append(f"<mark>{escaped}</mark>" if marked else escaped)
    return "".join(drawn)
