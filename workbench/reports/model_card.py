"""The model card of a run, written from the run's own records: nothing in it is typed by hand."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from workbench.files import project_path, read_json, refuse_links, write_json, write_text
from workbench.ranking.metrics import METRICS
from workbench.ranking.uncertainty import REHEARSAL_GROUPS, claim, format_estimate
from workbench.reports.findings import Record, data, names, ranking, training
from workbench.training.log import STEPS, TrainingLog, step_means

SETTINGS = {"card_samples": 3, "language": "", "license": "", "dataset": ""}
COLUMNS = ["sentence_0", "sentence_1", "label"]
MAX_LOG_ROWS = 60  # of a stage; a longer log is printed as means of 500 steps
MAX_CHARACTERS = 200  # of a text on the card
PLAIN = " .,-/%+=?"  # characters that neither Markdown nor HTML gives a meaning
LINE_BREAKS = "\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
NEUTRAL_PAIRS = [
    ("how do I pay", text)
    for text in ("ways to pay", "opening hours", "refunds", "如何付款", "你好")
]
TEMPLATE = """\
---
{{ head }}
---

# {{ name }}: CrossEncoder based on {{ base.name }}

This is a [Cross Encoder](https://www.sbert.net/docs/cross_encoder/usage/usage.html) fine-tuned
from {{ base.name | code }} with the [sentence-transformers](https://www.sbert.net) library. It
scores pairs of texts for relevance, higher is more relevant, to rank candidates for a query.

## Model Details

### Model Description
- **Model Type:** Cross Encoder
- **Base model:** {{ base.name | code }}{{ revision }}
- **Maximum Sequence Length:** {{ last.recipe.max_length }} tokens
- **Number of Output Labels:** 1 label
- **Training Dataset:** {{ (settings.dataset or source) | code }}
- **Language:** {{ settings.language or "not stated" }}
- **License:** {{ settings.license or "not stated" }}

### Model Sources
- **Documentation:** [Sentence Transformers](https://www.sbert.net)
- **Repository:** [on GitHub](https://github.com/huggingface/sentence-transformers)

## Usage

### Direct Usage (Sentence Transformers)
After `pip install -U sentence-transformers`:

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/model")
# Get scores for pairs of texts
pairs = [
    {{ pairs }}
]
scores = model.predict(pairs)
print(scores.shape)
# (5,)

# Or rank texts by their relevance to the first one
ranks = model.rank(pairs[0][0], [candidate for _, candidate in pairs])
# [{'corpus_id': ..., 'score': ...}, {'corpus_id': ..., 'score': ...}, ...]
```

### Intended Use
{{ use }}

### Out-of-Scope Use
{{ misuse }}

## Evaluation
{{ evaluation(metrics) }}

## Bias, Risks and Limitations
{{ limits }}

### Recommendations
{{ recommendations }}

## Training Details

### Lineage
The first base is {{ base.name | code }}{{ revision }} (weights sha256 {{ base.sha256 | code }}).
Each stage starts from the saved result of the stage before it, with a new optimiser and schedule.
{% if base.asked != base.name %}
**It replaces {{ base.asked | code }}, which could not be reached.**
{% endif %}

{{ lineage(stages) }}

### Training Dataset

#### {{ source }}
* Source: {{ source | code }}, sha256 {{ last.data.sha256 | code }}
* Size: {{ size(last) }} training pairs; of {{ last.data.rows.read }} rows read,
  {{ last.data.rows.bad }} could not be used
* Splits:{% for name, split in last.data.sides.items() %} {{ name }} {{ split.pairs }},
{%- endfor %} with no text in two of them
* Columns: {{ columns | join(", ") }}
{% if last.statistics %}
* Statistics over all {{ size(last) }} rows, of texts in characters:

{{ table([""] + columns, statistics) }}

{% endif %}
{% if samples %}
* Samples:

{{ table(columns, samples) }}

{% else %}
* Samples: {{ "not at hand" if settings.card_samples else "held back" }}
{% endif %}
* Loss: [{{ last.loss }}](https://sbert.net/docs/package_reference/cross_encoder/losses.html) with
  `activation_fn` Identity and without `pos_weight`
{% for note in notes %}
* {{ note }}
{% endfor %}

### Training Hyperparameters

#### Non-Default Hyperparameters
{% for name in last.non_default %}
- `{{ name }}`: {{ last.hyperparameters[name] }}
{% else %}
None.
{% endfor %}

Settings other than the trainer's (`precision` became {{ last.precision }} on {{ last.device }}):

{{ values(recipe) }}

#### All Hyperparameters
<details><summary>Click to expand</summary>

{{ values(last.hyperparameters) }}

</details>

### Training Logs
{% for stage in stages %}

#### {{ stage.stage }}
{{ log(stage) or "No log was recorded." }}
{% endfor %}

### Training Time
Training took {{ seconds }} s on {{ last.device }}, {{ cpu_seconds or "unknown" }} s of CPU time.

### Framework Versions
{{ values(last.versions or {}) or "Not recorded." }}

## Citation

### BibTeX

#### Sentence Transformers
```bibtex
@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of EMNLP 2019",
    url = "https://arxiv.org/abs/1908.10084",
}
```
"""


class Markdown(str):
    """Text that is Markdown already; the template escapes all other text."""


def safe_text(text: object, length: int = MAX_CHARACTERS) -> str:
    """A text that cannot leave its cell, cut to `length` characters.

    Each ASCII character with a meaning in Markdown or HTML becomes a numeric entity, a line break
    becomes `<br>`, and what cannot be shown (control characters, bidi controls, lone surrogates)
    becomes U+FFFD.
    """
    given = str(text).replace("\r\n", "\n").replace("\r", "\n")
    cut = given if len(given) <= length else given[: length - 1] + "…"
    safe = "".join(map(_safe_character, cut))
    safe = re.sub(r"(?<=[a-zA-Z0-9])&#95;(?=[a-zA-Z0-9])", "_", safe)  # within a word it is plain
    return safe.replace("www.", "www&#46;")  # or it would become a link


def _safe_character(character: str) -> str:
    if character in LINE_BREAKS:
        return "<br>"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co"):
        return " " if character == "\t" else "\ufffd"
    if character.isascii() and not character.isalnum() and character not in PLAIN:
        return f"&#{ord(character)};"
    return character


def code(text: object) -> Markdown:
    """`safe_text` in code font."""
    return Markdown(f"<code>{safe_text(text)}</code>")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """A Markdown table; cells that are not `Markdown` are escaped."""
    lines = [header, [Markdown("---")] * len(header), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(_printed, line))} |" for line in lines))


def _printed(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, Markdown) else safe_text(value)


def _bullets(*lines: str | bool) -> Markdown:
    return Markdown("\n".join(f"- {line}" for line in lines if isinstance(line, str)))


def _values(values: Record) -> Markdown:
    return _bullets(*(f"`{name}`: {safe_text(value, 500)}" for name, value in values.items()))


def write_card(run_dir: str | Path, **settings: Any) -> Path:
    """Write `model/README.md` of a run from its lineage, inspection, evaluation and data.

    Sections whose record does not exist yet say so; call it again after evaluating.

    Args:
        run_dir: a run that has a model.
        settings: `card_samples` (training pairs to print; 0 holds them back), `language`,
            `license` and `dataset` (a name on the Hub) for the card's head. A setting that is not
            given keeps its last value (`card.json` of the run), at first that of `SETTINGS`.

    Raises:
        FileNotFoundError: the run has no model.
        LinkError: a link in the run leads elsewhere.
        TypeError: there is no such setting.
    """
    folder = project_path(run_dir)
    if not (folder / "model" / "lineage.json").is_file():
        raise FileNotFoundError(f"{run_dir} has no model yet: run notebook 02_fine_tune first")
    if unknown := settings.keys() - SETTINGS.keys():
        raise TypeError(f"write_card: there is no setting {', '.join(sorted(unknown))}")
    refuse_links(folder)
    kept = _read(folder / "card.json")
    chosen = SETTINGS | {name: kept[name] for name in SETTINGS if name in kept} | settings
    write_json(folder / "card.json", chosen)
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, finalize=_printed
    )
    environment.filters["code"] = code
    path = folder / "model" / "README.md"
    text = environment.from_string(TEMPLATE).render(_facts(folder, chosen))
    write_text(path, re.sub(r"\n{3,}", "\n\n", text))
    return path


def _read(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _facts(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What the template prints, and the functions that it calls."""
    stages = read_json(folder / "model" / "lineage.json")["stages"]
    for stage in stages:  # older lineages have no log
        stage.setdefault("log", TrainingLog(folder, stage["stage"]).rows())
    last, base = stages[-1], stages[0]["base"]
    inspection = _read(folder / "inspection.json")
    metrics = _read(folder / "evaluation" / "metrics.json")
    file, rows = folder / "data" / "train.parquet", pd.DataFrame(columns=COLUMNS)
    if settings["card_samples"] and file.is_file():
        rows = pd.read_parquet(file, columns=COLUMNS)
    shown = rows[COLUMNS[:2]].head(5).to_numpy().tolist() if len(rows) > 4 else NEUTRAL_PAIRS
    described = last.get("statistics") or {}
    cpu = [stage.get("processor_seconds") or 0 for stage in stages]
    return {
        "head": _head(folder.name, stages, metrics, settings),
        "name": folder.name,
        "settings": settings,
        "stages": stages,
        "last": last,
        "base": base,
        "revision": Markdown(f", revision {code(base['revision'])}" if base["revision"] else ""),
        "source": Path(last["data"]["source"]).name,
        "columns": COLUMNS,
        "pairs": Markdown("\n    ".join(f"{list(pair)!r}," for pair in shown)),
        "samples": [[code(v) for v in row] for row in rows.head(settings["card_samples"]).values],
        "statistics": [
            [kind, *(f"{values[kind]:.4g}" for values in described.values())]
            for kind in ("min", "mean", "max")
        ],
        "metrics": metrics,
        "notes": [Markdown(note) for note in (training.kept(last), training.scores(last)) if note],
        "use": Markdown(_intended_use(metrics)),
        "recipe": {n: v for n, v in last["recipe"].items() if n not in last["hyperparameters"]},
        "seconds": round(sum(stage["seconds"] for stage in stages)),
        "cpu_seconds": round(sum(cpu)) if all(cpu) else None,
        **_cautions(last, inspection, metrics),
        "evaluation": _evaluation,
        "lineage": _lineage,
        "log": _log,
        "size": _pair_count,
        "table": table,
        "values": _values,
    }


def _pair_count(stage: Record) -> int:
    return int(stage.get("pairs") or stage["data"]["sides"]["train"]["pairs"])


def _head(name: str, stages: Sequence[Record], metrics: Record, settings: Record) -> Markdown:
    """The YAML that the Hub reads."""
    base = stages[0]["base"]
    tags = ["sentence-transformers", "cross-encoder", "reranker", "generated_from_trainer"]
    tags += [f"dataset_size:{_pair_count(stage)}" for stage in stages]
    tags += [f"loss:{stage['loss']}" for stage in stages]
    test = metrics.get("recipe", {}).get("source", "candidate lists")
    results = {
        "task": {"type": "text-ranking", "name": "Text Ranking"},
        "dataset": {"name": Path(test).name, "type": "unknown"},
        "metrics": [
            {"type": metric, "value": round(value["mean"], 6), "name": metric}
            for row in metrics.get("rows", [])
            for metric, value in row.items()
            if row["scorer"] == "model" and metric != "scorer" and value["mean"] is not None
        ],
    }
    head = {
        "base_model": base["name"] if base["kind"] == "hub" else "",
        "datasets": [settings["dataset"]] if settings["dataset"] else [],
        "language": settings["language"],
        "library_name": "sentence-transformers",
        "license": settings["license"],
        "pipeline_tag": "text-ranking",
        "tags": list(dict.fromkeys(tags)),
        "model-index": [{"name": name, "results": [results]}] if results["metrics"] else [],
    }
    given = {key: value for key, value in head.items() if value}
    return Markdown(yaml.safe_dump(given, allow_unicode=True, sort_keys=False).strip())


def _intended_use(metrics: Record) -> str:
    """What the evaluation shows the model to be good for."""
    if not metrics:
        return "None is shown: the model has not been evaluated."
    found = claim(metrics)
    ahead, unclear = names(found.ahead or [""]), names(found.unclear or [""])
    good = "Ranking candidates for queries like those of the test below"
    return {
        "nothing": "None is shown: the model has been compared with nothing.",
        "few": "None is shown: the test has too few queries that share no text.",
        "worse": f"None is shown. On the test below {ahead} ranks better, so use that; this model "
        "is useful for studying why.",
        "tied": "None is shown: the model gives most candidates the same score.",
        "coarse": "None is shown: the evaluation had too few resamples to tell.",
        "unclear": f"{good}; that it does so better than {unclear} is not shown.",
        "better": f"{good}, where it is ahead of every other scorer.",
    }[found.state]


def _cautions(stage: Record, inspection: Record, metrics: Record) -> dict[str, Markdown]:
    """What was neither trained nor measured, known weaknesses, and what to do about them."""
    described, mean = stage.get("statistics"), stage["data"]["sides"]["train"]["label_mean"]
    texts = [described[name] for name in COLUMNS[:2]] if described else []
    doubtful = sum((metrics.get("suspect_negatives") or {}).values())
    queries, seen = metrics.get("queries", 0), metrics.get("seen", 0)
    unreadable = bool(inspection) and inspection["verdict"]["colour"] != "green"
    groups = metrics.get("query_groups", queries)
    return {
        "misuse": _bullets(
            bool(texts)
            and f"Texts unlike those it was trained on, which have {min(t['min'] for t in texts)} "
            f"to {max(t['max'] for t in texts)} characters; pairs of more than "
            f"{stage['recipe']['max_length']} tokens are cut.",
            "Texts in languages or on subjects that the training pairs do not cover.",
            f"Scores used as probabilities. {ranking.calibration(metrics)}",
            "Decisions about people: a score says how similar two texts were to this model.",
        ),
        "limits": _bullets(
            data.vocabulary(inspection) if inspection else "The vocabulary was not inspected yet.",
            "contradictions" in inspection and data.contradictions(inspection),
            mean is not None
            and f"The labels have a mean of {mean:.3f}; scores lean towards that share of "
            "positives, whatever it is elsewhere.",
            not metrics and "It has not been evaluated: nothing may be claimed about this model.",
            0 < groups < REHEARSAL_GROUPS
            and f"The test has only {groups:,} independent groups of queries.",
            seen > 0 and f"Test queries it was trained on: {seen:,}; its metrics are too good.",
            doubtful > 0
            and f"Test negatives that may be paraphrases which nobody labelled: {doubtful:,}.",
            "One training with one seed; another seed gives another model.",
        ),
        "recommendations": _bullets(
            unreadable
            and "Give the base a vocabulary that covers the data (`vocabulary: extend`) and train "
            "again.",
            not metrics and "Evaluate before use: `04_evaluate_ranking`.",
            bool(metrics)
            and claim(metrics).state == "worse"
            and "Do not use it in place of the better scorer.",
            "Measure on your own queries before relying on it.",
        ),
    }


def _evaluation(metrics: Record) -> Markdown:
    if not metrics:
        return Markdown("Not evaluated yet: nothing may be claimed about this model.")
    names = [Markdown(name) for name in METRICS if name in metrics["rows"][0]]
    rows = [
        [row["scorer"], *(Markdown(format_estimate(row.get(name))) for name in names)]
        for row in metrics["rows"]
    ]
    text = f"{metrics['queries']:,} queries with {metrics['candidates']:,} candidates"
    if metrics["pairs"]:
        text += f"; `roc_auc` and the columns after it over {metrics['pairs']:,} labelled pairs"
    text += f". In brackets: {metrics['interval']} intervals. {ranking.ties(metrics)}"
    if metrics.get("left_out"):
        text += f" {ranking.left_out(metrics['left_out'])}."
    return Markdown(f"{ranking.verdict(metrics)}\n\n{table(['scorer', *names], rows)}\n\n{text}")


def _lineage(stages: Sequence[Record]) -> Markdown:
    """One row per stage: what it started from, learned from, and how it ended."""
    rows = []
    for stage in stages:
        losses = [row["loss"] for row in stage["log"] if "loss" in row]
        mean, ranked = stage.get("label_mean"), (stage.get("evaluation") or {}).get("ndcg@10")
        rows.append(
            {
                "stage": stage["stage"],
                "starts from": code(stage.get("parent", stage["base"]["name"])),
                "pairs": _pair_count(stage),
                "label mean": "?" if mean is None else f"{mean:.3f}",
                "pairs sha256": code(stage.get("pairs_sha256", stage["data"]["sha256"])[:12]),
                "steps": stage["steps"],
                "loss, first → last": f"{losses[0]:.4f} → {losses[-1]:.4f}" if losses else "none",
                "nDCG@10": Markdown(format_estimate(ranked) if ranked else "not evaluated"),
            }
        )
    return table(list(map(Markdown, rows[0])), [list(row.values()) for row in rows])


def _log(stage: Record) -> Markdown:
    """The log of a stage; of a long one the means of 500 steps."""
    if not stage["log"]:
        return Markdown("")
    columns = {"loss": "Training Loss", "dev_loss": "Dev Loss", "dev_ap": "Dev AP"}
    log = pd.DataFrame(stage["log"], columns=["epoch", "step", *columns]).assign(stage="")
    if len(log) > MAX_LOG_ROWS:
        log, columns = step_means(log), {"loss": f"Training Loss (mean of {STEPS} steps)"}
    log = log.groupby("step", as_index=False).first().dropna(axis="columns", how="all")
    shown = {name: title for name, title in columns.items() if name in log}
    values = [log[name].map("{:.4f}".format).replace("nan", "-") for name in ["epoch", *shown]]
    rows = zip(values[0], log["step"].astype(int), *values[1:], strict=True)
    return table(["Epoch", "Step", *shown.values()], rows)
