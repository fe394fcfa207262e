"""What a card says of the training: stages, data, loss, hyperparameters, log, time, versions."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from workbench.card_text import code, details, safe_text, table
from workbench.claims import format_estimate
from workbench.reference import STEPS, step_means

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
        rows.append([
            safe_text(stage["stage"]), code(stage.get("parent", stage["base"]["name"])),
            f"{pairs:,}", "?" if mean is None else f"{mean:.3f}",
            code(str(stage.get("pairs_sha256", stage["data"]["sha256"]))[:12]),
            f"{stage['steps']:,}", moved,
            format_estimate(ranked) if ranked else "not evaluated",
        ])  # fmt: skip
    header = ["stage", "starts from", "pairs", "label mean", "pairs sha256", "steps",
              "logged loss, first → last", "nDCG@10"]  # fmt: skip
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
        rows = [[code(value) for value in row]
                for row in train[list(COLUMNS)].head(samples).itertuples(index=False)]  # fmt: skip
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
        values = (f"{kind}: {round(described[name][kind], 2):g}{unit}"
                  for kind in ("min", "mean", "max"))  # fmt: skip
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
            header = ["Epoch", "Step", *({"loss": "Training Loss", "dev_loss": "Dev Loss",
                                          "dev_ap": "Dev AP"}[n] for n in names)]  # fmt: skip
            lines = [[f"{row['epoch']:.4f}", f"{row['step']:,.0f}",
                      *("-" if pd.isna(row[n]) else f"{row[n]:.4f}" for n in names)]
                     for _, row in log.iterrows()]  # fmt: skip
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
