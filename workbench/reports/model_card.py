"""The model card of a run, written from the run's own records: nothing in it is typed by hand."""

import html
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.files import project_path, read_json, refuse_links, write_json, write_text
from workbench.ranking.uncertainty import SIGNIFICANT, format_estimate
from workbench.reports.findings.data import vocabulary_finding
from workbench.reports.findings.ranking import FEW, left_out_finding, ranking_finding, ties_finding
from workbench.training.log import STEPS, TrainingLog, step_means

Record = Mapping[str, Any] | None


def use_section(metrics: Record) -> str:
    """What the model may be used for, going by its evaluation."""
    if metrics is None:
        return "None is shown: the model has not been evaluated."
    means = {row["scorer"]: row["ndcg@10"]["mean"] for row in metrics["rows"]}
    means.pop("model", None)
    gaps = metrics["model_minus"]
    if not means or not gaps:
        return "None is shown: the model has been compared with nothing."
    best = max(means, key=lambda name: means[name])
    gap = gaps[best]
    sure = gap.get("p_holm", 0.0) < SIGNIFICANT
    if gap["high"] < 0 and sure:
        return (
            f"None is shown. On the test below `{best}` ranks better, so use that; this model is "
            "of use for studying why."
        )
    if not (gap["low"] > 0 and sure):
        return (
            f"Ranking candidates for queries like those of the test below; that it does so better "
            f"than `{best}` is not shown."
        )
    return (
        "Ranking candidates for queries like those of the test below, where it is ahead of every "
        "other scorer."
    )


def misuse_section(stage: Mapping[str, Any], metrics: Record) -> str:
    """What lies outside of what was trained and measured."""
    described, recipe = stage.get("statistics"), stage["recipe"]
    lines = []
    if described:
        texts = [described["sentence_0"], described["sentence_1"]]
        least, most = min(t["min"] for t in texts), max(t["max"] for t in texts)
        lines.append(
            f"Texts unlike those it was trained on, which have {least} to {most} characters; pairs "
            f"of more than {recipe['max_length']} tokens are cut."
        )
    lines.append("Texts in languages or on subjects that the training pairs do not hold.")
    lines.append(_calibration(metrics))
    lines.append("Decisions about people: a score says how alike two texts were to this model.")
    return "\n".join(f"- {line}" for line in lines)


def _calibration(metrics: Record) -> str:
    rows = metrics["rows"] if metrics else []
    found = [row.get("ece") for row in rows if row["scorer"] == "model"]
    error = found[0]["mean"] if found and found[0] else None
    if error is None:
        return "Scores taken for probabilities: whether they are was not measured."
    kind = "they are off by" if error >= 0.05 else "they come close, off by"
    return f"Scores taken for probabilities: {kind} {100 * error:.1f} points on average (ECE)."


def limits_section(inspection: Record, metrics: Record, stage: Mapping[str, Any]) -> str:
    """Known weaknesses, each from a record of the run."""
    lines = []
    if inspection is None:
        lines.append("What the model can read was not inspected yet.")
    else:
        lines.append(vocabulary_finding(inspection))
        rows = inspection.get("contradictions", {}).get("rows", 0)
        if rows:
            lines.append(f"{rows:,} of the labelled pairs contradict another one.")
    positives = stage["data"]["sides"]["train"]["label_mean"]
    if positives is not None:
        lines.append(
            f"The labels have a mean of {positives:.3f}; scores lean towards that share of "
            "positives, whatever it is elsewhere."
        )
    lines += _of_the_test(metrics)
    lines.append("One training with one seed; another seed gives another model.")
    return "\n".join(f"- {line}" for line in lines)


def _of_the_test(metrics: Record) -> list[str]:
    if metrics is None:
        return ["It has not been evaluated: nothing may be claimed about this model."]
    lines = []
    if metrics["queries"] < FEW:
        lines.append(f"The test has {metrics['queries']:,} queries only.")
    if metrics.get("seen"):
        lines.append(f"{metrics['seen']:,} queries of the test were trained on; that flatters.")
    doubtful = sum((metrics.get("suspect_negatives") or {}).values())
    if doubtful:
        lines.append(f"{doubtful:,} negatives of the test may be paraphrases nobody labelled.")
    return lines


def recommendations_section(inspection: Record, metrics: Record) -> str:
    """What to do about it."""
    lines = []
    if inspection and inspection["verdict"]["colour"] != "green":
        lines.append(
            "Give the base a vocabulary that covers the data (`vocabulary: extend`) and train anew."
        )
    if metrics is None:
        lines.append("Evaluate before use: `04_evaluate_ranking`.")
    elif use_section(metrics).startswith("None"):
        lines.append("Do not put it in place of the better scorer.")
    lines.append("Measure on queries of your own before relying on it.")
    return "\n".join(f"- {line}" for line in lines)


SHOWN = 200  # characters of a text that a card shows


PLAIN = " .,-/%+=?"


BREAKS = "\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def safe_text(text: object, length: int = SHOWN) -> str:
    """A text that stays within its cell, whatever it holds; cut to `length` characters.

    Every ASCII sign that Markdown or HTML could read as its own becomes a numeric entity, line
    breaks become `<br>`, and what cannot be shown (control characters, marks that turn the writing
    direction, halves of surrogate pairs) becomes U+FFFD.
    """
    given = str(text).replace("\r\n", "\n").replace("\r", "\n")
    cut = given if len(given) <= length else given[: length - 1] + "…"
    safe = "".join(_safe(character) for character in cut)
    safe = re.sub(r"(?<=[a-zA-Z0-9])&#95;(?=[a-zA-Z0-9])", "_", safe)  # within a word it is plain
    return safe.replace("www.", "www&#46;")  # or it would become a link


def _safe(character: str) -> str:
    if character in BREAKS:
        return "<br>"
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co"):
        return " " if character == "\t" else "\ufffd"
    if character.isascii() and not character.isalnum() and character not in PLAIN:
        return f"&#{ord(character)};"
    return character


def code(text: object, length: int = SHOWN) -> str:
    """The same in the type of code, for a cell or a line."""
    return f"<code>{safe_text(text, length)}</code>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the cells must be safe already (numbers, own words, or `safe_text`)."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def details(summary: str, body: str) -> str:
    """A part of the page that is folded until someone asks for it."""
    return (
        f"<details><summary>{html.escape(summary)}</summary>\n\n{body}\n\n</details>"
        if body
        else ""
    )


Stages = Sequence[Mapping[str, Any]]


LOSS_PAGE = "https://sbert.net/docs/package_reference/cross_encoder/losses.html"


COLUMNS = ("sentence_0", "sentence_1", "label")


LINES = 60  # log lines of a stage that are printed; more become means of 500 steps


def lineage_section(stages: Stages) -> str:
    """One row a stage: what it started from, learned from, and came to."""
    rows = []
    for stage in stages:
        ranked = (stage.get("evaluation") or {}).get("ndcg@10")
        losses = [row["loss"] for row in stage.get("log", []) if "loss" in row]
        moved = f"{losses[0]:.4f} → {losses[-1]:.4f}" if losses else "not recorded"
        pairs, mean = stage_pairs_count(stage), stage.get("label_mean")
        rows.append(
            [
                safe_text(stage["stage"]),
                code(stage.get("parent", stage["base"]["name"])),
                f"{pairs:,}",
                "?" if mean is None else f"{mean:.3f}",
                code(str(stage.get("pairs_sha256", stage["data"]["sha256"]))[:12]),
                f"{stage['steps']:,}",
                moved,
                format_estimate(ranked) if ranked else "not evaluated",
            ]
        )
    header = [
        "stage",
        "starts from",
        "pairs",
        "label mean",
        "pairs sha256",
        "steps",
        "logged loss, first → last",
        "nDCG@10",
    ]
    first = stages[0]["base"]
    text = (
        f"The first base is {code(first['name'])}"
        + (f", revision {code(first['revision'])}" if first["revision"] else "")
        + f" (weights sha256 {code(first['sha256'])}). Each stage starts from the saved result of "
        "the one before it, with a fresh optimiser and schedule."
    )
    if first["asked"] != first["name"]:
        text += f" **It stands in for {code(first['asked'])}, which could not be reached.**"
    return text + "\n\n" + table(header, rows)


def stage_pairs_count(stage: Mapping[str, Any]) -> int:
    """The pairs a stage was trained on."""
    return int(stage.get("pairs") or stage["data"]["sides"]["train"]["pairs"])


def dataset_section(stage: Mapping[str, Any], train: pd.DataFrame | None, samples: int) -> str:
    """The data of the last stage: name, hash, size, statistics over all rows, samples, loss.

    Args:
        stage: its record.
        train: the training side, for samples; None if it is not at hand.
        samples: how many to print; 0 holds them back.
    """
    data, described = stage["data"], stage.get("statistics")
    lines = [
        f"#### {safe_text(Path(data['source']).name)}",
        "",
        f"* Source: {code(Path(data['source']).name)}, sha256 {code(data['sha256'])}",
        f"* Size: {stage_pairs_count(stage):,} training pairs, of {data['rows']['read']:,} rows "
        f"read, {data['rows']['bad']:,} of which could not be used",
        f"* Sides: {_sides(data['sides'])}; no text is on two of them",
        "* Columns: " + ", ".join(code(name) for name in COLUMNS),
    ]
    if described:
        lines += [
            f"* Statistics over all {stage_pairs_count(stage):,} rows:",
            "",
            _statistics(described),
        ]
    if train is None or not samples:
        lines += ["", "* Samples: held back" if not samples else "* Samples: not at hand"]
    else:
        rows = [
            [code(value) for value in row]
            for row in train[list(COLUMNS)].head(samples).itertuples(index=False)
        ]
        lines += ["", "* Samples:", "", table(list(COLUMNS), rows)]
    parameters = {"activation_fn": "torch.nn.modules.linear.Identity", "pos_weight": None}
    anchor = str(stage["loss"]).lower()
    lines += [
        "",
        f"* Loss: [{code(stage['loss'])}]({LOSS_PAGE}#{anchor}) with these parameters:",
        "",
        "```json",
        json.dumps(parameters, indent=4),
        "```",
    ]
    return "\n".join(lines)


def _sides(sides: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {side['pairs']:,}" for name, side in sides.items())


def _statistics(described: Mapping[str, Any]) -> str:
    cells = []
    for name in COLUMNS:
        unit = "" if name == "label" else " characters"
        values = (
            f"{kind}: {round(described[name][kind], 2):g}{unit}" for kind in ("min", "mean", "max")
        )
        cells.append("<br>".join(values))
    kinds = ["type", "string", "string", "float"]
    return table(["", *COLUMNS], [kinds, ["details", *cells]])


def hyperparameters_section(stages: Stages) -> str:
    """The trainer's arguments of the last stage, and what differs in earlier ones."""
    last = stages[-1]
    used = last["hyperparameters"]
    parts = ["#### Non-Default Hyperparameters"]
    parts.append(_values({name: used[name] for name in last.get("non_default", [])}) or "None.")
    for stage in stages[:-1]:
        other = stage["hyperparameters"]
        changed = {n: other[n] for n in other if n in used and other[n] != used[n]}
        if changed:
            parts.append(f"In {safe_text(stage['stage'])} these differ:\n\n{_values(changed)}")
    recipe = {name: value for name, value in last["recipe"].items() if name not in used}
    parts.append(
        "Settings beside the trainer's (`precision` came to "
        f"{last['precision']} on {last['device']}):\n\n{_values(recipe)}"
    )
    parts += ["#### All Hyperparameters", details("Click to expand", _values(used))]
    return "\n\n".join(parts)


def _values(values: Mapping[str, Any]) -> str:
    return "\n".join(f"- `{name}`: {safe_text(value, 500)}" for name, value in values.items())


def logs_section(stages: Stages) -> str:
    """The log lines of each stage; of a long log the means of 500 steps."""
    parts = []
    for stage in stages:
        rows = stage.get("log", [])
        if not rows:
            parts.append(f"#### {safe_text(stage['stage'])}\n\nNo log was recorded.")
            continue
        log = pd.DataFrame(rows).assign(stage="one")
        for name in ("loss", "dev_loss", "dev_ap"):
            log[name] = log[name] if name in log else float("nan")
        if len(log) > LINES:
            shown = step_means(log)
            lines = [[f"{r.epoch:.4f}", f"{r.step:,}", f"{r.loss:.4f}"] for r in shown.itertuples()]
            header = ["Epoch", "Step", f"Training Loss (mean of {STEPS} steps)"]
        else:
            log = log.groupby("step", as_index=False).first()
            names = ["loss", *(n for n in ("dev_loss", "dev_ap") if log[n].notna().any())]
            header = [
                "Epoch",
                "Step",
                *(
                    {"loss": "Training Loss", "dev_loss": "Dev Loss", "dev_ap": "Dev AP"}[n]
                    for n in names
                ),
            ]
            lines = [
                [
                    f"{row['epoch']:.4f}",
                    f"{row['step']:,.0f}",
                    *("-" if pd.isna(row[n]) else f"{row[n]:.4f}" for n in names),
                ]
                for _, row in log.iterrows()
            ]
        parts.append(f"#### {safe_text(stage['stage'])}\n\n{table(header, lines)}")
    return "\n\n".join(parts)


def cost_section(stages: Stages) -> str:
    """The time that all stages took together."""
    seconds = sum(stage["seconds"] for stage in stages)
    text = f"Training took {seconds:,.0f} s ({seconds / 3600:.2f} h) on {stages[-1]['device']}"
    processor = [stage.get("processor_seconds") or float("nan") for stage in stages]
    if not math.isnan(sum(processor)):
        text += f", {sum(processor):,.0f} s of processor time"
    return text + "."


def versions_section(stages: Stages) -> str:
    """The versions that the last stage was trained with."""
    versions = stages[-1].get("versions")
    if not versions:
        return "Not recorded."
    return "\n".join(f"- {name}: {safe_text(value)}" for name, value in versions.items())


SETTINGS = {"card_samples": 3, "language": "", "license": "", "dataset": ""}


LIBRARY = "https://www.sbert.net"


SOURCES = f"""- **Documentation:** [Sentence Transformers Documentation]({LIBRARY})
- **Documentation:** [Cross Encoder Documentation]({LIBRARY}/docs/cross_encoder/usage/usage.html)
- **Repository:** [Sentence Transformers on GitHub](https://github.com/huggingface/sentence-transformers)"""


CITATION = """### BibTeX

#### Sentence Transformers

```bibtex
@inproceedings{reimers-2019-sentence-bert,
    title = "Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks",
    author = "Reimers, Nils and Gurevych, Iryna",
    booktitle = "Proceedings of the 2019 Conference on Empirical Methods in Natural Language \
Processing",
    month = "11",
    year = "2019",
    publisher = "Association for Computational Linguistics",
    url = "https://arxiv.org/abs/1908.10084",
}
```"""


NEUTRAL = [
    ("怎么开通会员", "如何办理会员"),
    ("怎么开通会员", "明天会下雨吗"),
    ("how do I pay", "ways to pay"),
    ("how do I pay", "opening hours"),
    ("你好", "您好"),
]


def write_card(run_dir: str | Path, **settings: Any) -> Path:
    """Write `model/README.md` of a run from its lineage, inspection, evaluation and data.

    Sections whose record does not exist yet say so; call it again after evaluating.

    Args:
        run_dir: a run that has a model.
        settings: `card_samples` (training pairs to print; 0 holds them back), `language`,
            `license` and `dataset` (a name on the Hub) for the card's head. What is not given is
            as it was the last time (`card.json` of the run), at first 3 samples and nothing else.

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
    kept = _read(folder / "card.json") or {}
    chosen = SETTINGS | {name: kept[name] for name in SETTINGS if name in kept} | settings
    write_json(folder / "card.json", chosen)
    path = folder / "model" / "README.md"
    write_text(path, _card(folder, chosen))
    return path


def _card(folder: Path, settings: Mapping[str, Any]) -> str:
    stages = read_json(folder / "model" / "lineage.json")["stages"]
    for stage in stages:  # records from before the lineage held the log
        stage.setdefault("log", TrainingLog(folder, stage["stage"]).rows())
    last, base = stages[-1], stages[0]["base"]
    inspection = _read(folder / "inspection.json")
    metrics = _read(folder / "evaluation" / "metrics.json")
    file, train = folder / "data" / "train.parquet", None
    if settings["card_samples"] and file.is_file():
        train = pd.read_parquet(file)
    sections = [
        f"---\n{_head(folder, stages, metrics, settings)}\n---",
        f"# {safe_text(folder.name)}: CrossEncoder based on {safe_text(base['name'])}",
        f"This is a [Cross Encoder]({LIBRARY}/docs/cross_encoder/usage/usage.html) fine-tuned from "
        f"{code(base['name'])} with the [sentence-transformers]({LIBRARY}) library. It scores "
        "pairs of texts for relevance, higher is more relevant, to rank candidates for a query.",
        "## Model Details",
        f"### Model Description\n\n{_description(stages, settings)}",
        f"### Model Sources\n\n{SOURCES}",
        f"## Usage\n\n### Direct Usage (Sentence Transformers)\n\n{_usage(train)}",
        f"### Intended Use\n\n{use_section(metrics)}",
        f"### Out-of-Scope Use\n\n{misuse_section(last, metrics)}",
        f"## Evaluation\n\n{_evaluation(metrics)}",
        "## Bias, Risks and Limitations\n\n" + limits_section(inspection, metrics, last),
        f"### Recommendations\n\n{recommendations_section(inspection, metrics)}",
        "## Training Details",
        f"### Lineage\n\n{lineage_section(stages)}",
        "### Training Dataset\n\n" + dataset_section(last, train, int(settings["card_samples"])),
        f"### Training Hyperparameters\n\n{hyperparameters_section(stages)}",
        f"### Training Logs\n\n{logs_section(stages)}",
        f"### Training Time\n\n{cost_section(stages)}",
        f"### Framework Versions\n\n{versions_section(stages)}",
        f"## Citation\n\n{CITATION}",
    ]
    return "\n\n".join(sections) + "\n"


def _head(
    folder: Path, stages: Stages, metrics: Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> str:
    """The YAML that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    base = stages[0]["base"]
    sizes = (f"dataset_size:{stage_pairs_count(stage)}" for stage in stages)
    losses = (f"loss:{stage['loss']}" for stage in stages)
    tags = ["sentence-transformers", "cross-encoder", "reranker", "generated_from_trainer"]
    results = None
    if metrics and (row := next((r for r in metrics["rows"] if r["scorer"] == "model"), None)):
        test = Path(metrics.get("recipe", {}).get("source", "candidate lists")).name
        results = [
            EvalResult(
                task_type="text-ranking",
                task_name="Text Ranking",
                dataset_type="unknown",
                dataset_name=test,
                metric_type=name,
                metric_name=name,
                metric_value=round(value["mean"], 6),
            )
            for name, value in row.items()
            if name != "scorer" and value and value["mean"] is not None
        ]
    data = ModelCardData(
        language=settings["language"] or None,
        license=settings["license"] or None,
        tags=list(dict.fromkeys([*tags, *sizes, *losses])),
        base_model=base["name"] if base["kind"] == "hub" else None,
        datasets=[settings["dataset"]] if settings["dataset"] else None,
        pipeline_tag="text-ranking",
        library_name="sentence-transformers",
        model_name=folder.name if results else None,
        eval_results=results,
    )
    return str(data.to_yaml())


def _description(stages: Stages, settings: Mapping[str, Any]) -> str:
    base, last = stages[0]["base"], stages[-1]
    at = f" at revision {code(base['revision'])}" if base["revision"] else ""
    lines = [
        "**Model Type:** Cross Encoder",
        f"**Base model:** {code(base['name'])}{at}",
        f"**Maximum Sequence Length:** {last['recipe']['max_length']} tokens",
        "**Number of Output Labels:** 1 label",
        f"**Training Dataset:** {code(settings['dataset'] or Path(last['data']['source']).name)}",
        f"**Language:** {safe_text(settings['language']) or 'not stated'}",
        f"**License:** {safe_text(settings['license']) or 'not stated'}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _usage(train: pd.DataFrame | None) -> str:
    """Code that runs as it stands, once the path is right: five pairs, then a ranking."""
    pairs = NEUTRAL
    if train is not None and len(train) >= len(NEUTRAL):
        chosen = train[["sentence_0", "sentence_1"]].head(len(NEUTRAL))
        pairs = list(chosen.itertuples(index=False, name=None))
    listed = "\n".join(f"    [{first!r}, {second!r}]," for first, second in pairs)
    candidates = "\n".join(f"        {second!r}," for _, second in pairs)
    return f"""```bash
pip install -U sentence-transformers
```

```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/model")
# Get scores for pairs of texts
pairs = [
{listed}
]
scores = model.predict(pairs)
print(scores.shape)
# ({len(pairs)},)

# Or rank texts by how relevant they are to one
ranks = model.rank(
    {pairs[0][0]!r},
    [
{candidates}
    ],
)
# [{{'corpus_id': ..., 'score': ...}}, {{'corpus_id': ..., 'score': ...}}, ...]
```"""


def _evaluation(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "Not evaluated yet: nothing may be claimed about this model."
    names = [name for name in metrics["rows"][0] if name != "scorer"]
    rows = [
        [safe_text(row["scorer"]), *(format_estimate(row.get(name)) for name in names)]
        for row in metrics["rows"]
    ]
    pairs = f"; `roc_auc` and what stands after it over {metrics['pairs']:,} labelled pairs"
    about = (
        f"{metrics['queries']:,} queries with {metrics['candidates']:,} candidates"
        f"{pairs if metrics['pairs'] else ''}. In brackets: {metrics['interval']} intervals. "
        f"{ties_finding(metrics)}"
    )
    if metrics.get("left_out"):
        about += " " + left_out_finding(metrics["left_out"]) + "."
    return "\n\n".join([ranking_finding(metrics), table(["scorer", *names], rows), about])


def _read(path: Path) -> dict[str, Any] | None:
    return dict(read_json(path)) if path.is_file() else None
