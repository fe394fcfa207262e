"""The model card of a run, written from the run's own records: nothing in it is typed by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.claims import format_estimate, left_out_finding, ranking_finding, ties_finding
from workbench.files import project_path, read_json, write_text
from workbench.remarks import vocabulary_finding

USAGE = """```python
from sentence_transformers import CrossEncoder

model = CrossEncoder("path/to/model")
scores = model.predict([["查询", "候选"]])
```"""


def write_card(run_dir: str | Path) -> Path:
    """Write `model/README.md` of a run from its lineage, inspection and evaluation.

    Sections whose record does not exist yet say so; call it again after evaluating.

    Raises:
        FileNotFoundError: the run has no model.
    """
    folder = project_path(run_dir)
    stages = read_json(folder / "model" / "lineage.json")["stages"]
    inspection, metrics = folder / "inspection.json", folder / "evaluation" / "metrics.json"
    sections = [
        _front_matter(stages),
        f"# {folder.name}: cross-encoder fine-tuned from {stages[0]['base']['name']}",
        "Scores a pair of texts for relevance; the higher, the more relevant.",
        "## Use\n\n" + USAGE,
        "## Evaluation\n\n" + _evaluation(metrics),
        "## What the model can read\n\n" + _vocabulary(inspection),
        "## Training\n\n" + "\n\n".join(_stage(stage) for stage in stages),
    ]
    path = folder / "model" / "README.md"
    write_text(path, "\n\n".join(sections) + "\n")
    return path


def _front_matter(stages: list[dict[str, Any]]) -> str:
    from huggingface_hub import ModelCardData

    base = stages[0]["base"]
    data = ModelCardData(
        base_model=base["name"] if base["kind"] == "hub" else None,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["sentence-transformers", "cross-encoder", "reranker"],
    )
    return f"---\n{data.to_yaml()}\n---"


def _evaluation(path: Path) -> str:
    if not path.is_file():
        return "Not evaluated yet: nothing may be claimed about this model."
    metrics = read_json(path)
    names = [name for name in metrics["rows"][0] if name != "scorer"]
    lines = ["| scorer | " + " | ".join(names) + " |", "|" + " --- |" * (len(names) + 1)]
    for row in metrics["rows"]:
        values = (format_estimate(row.get(name)) for name in names)
        lines.append(f"| {row['scorer']} | " + " | ".join(values) + " |")
    about = (
        f"{metrics['queries']:,} queries with {metrics['candidates']:,} candidates; `roc_auc` "
        f"and what stands after it over {metrics['pairs']:,} labelled pairs. In brackets: "
        f"{metrics['interval']} intervals. {ties_finding(metrics)}"
    )
    if metrics.get("left_out"):
        about += " " + left_out_finding(metrics["left_out"]) + "."
    return "\n\n".join([ranking_finding(metrics), "\n".join(lines), about])


def _vocabulary(path: Path) -> str:
    return vocabulary_finding(read_json(path)) if path.is_file() else "Not inspected yet."


def _stage(stage: Mapping[str, Any]) -> str:
    sides, base = stage["data"]["sides"], stage["base"]
    rows = {
        "base model": f"`{base['name']}` {base['revision']} (weights sha256 {base['sha256']})",
        "data": f"`{Path(stage['data']['source']).name}` (sha256 {stage['data']['sha256']})",
        "training pairs": f"{sides['train']['pairs']:,}, label mean "
        f"{sides['train']['label_mean']:.3f}",
        "loss": stage["loss"],
        **stage["recipe"],
        "precision used": f"{stage['precision']} on {stage['device']}",
        "steps": f"{stage['steps']:,}",
        "mean training loss": f"{stage['train_loss']:.4f}",
        "time": f"{stage['seconds']:.0f} s, {stage['pairs_per_second']:.0f} pairs/s",
    }
    if base["asked"] != base["name"]:
        rows["stands in for"] = f"`{base['asked']}`, which could not be reached"
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]
    return f"### {stage['stage']}\n\n" + "\n".join(lines)
