"""The model card of a run, written from the run's own records: nothing in it is typed by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.card_limits import (
    limits_section,
    misuse_section,
    recommendations_section,
    use_section,
)
from workbench.card_text import code, safe_text, table
from workbench.card_training import (
    Stages,
    cost_section,
    dataset_section,
    hyperparameters_section,
    lineage_section,
    logs_section,
    stage_pairs_count,
    versions_section,
)
from workbench.claims import format_estimate, left_out_finding, ranking_finding, ties_finding
from workbench.files import project_path, read_json, refuse_links, write_json, write_text
from workbench.logs import TrainingLog

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
            EvalResult(task_type="text-ranking", task_name="Text Ranking", dataset_type="unknown",
                       dataset_name=test, metric_type=name, metric_name=name,
                       metric_value=round(value["mean"], 6))
            for name, value in row.items()
            if name != "scorer" and value and value["mean"] is not None
        ]  # fmt: skip
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
    rows = [[safe_text(row["scorer"]), *(format_estimate(row.get(name)) for name in names)]
            for row in metrics["rows"]]  # fmt: skip
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
