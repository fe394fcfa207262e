"""The model card of a run, written from the run's own records: nothing in it is typed by hand."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import EvalResult, ModelCardData

from workbench import files
from workbench.data.pairs import read_split
from workbench.data.readers import COLUMNS
from workbench.data.texts import distinct_texts
from workbench.files import DamagedError, RequestError, display_path, percent, write_json
from workbench.models import find_model, load_tokenizer
from workbench.ranking.metrics import METRICS
from workbench.ranking.uncertainty import REHEARSAL_GROUPS, format_estimate, group_count
from workbench.reports.findings import Record, data, model_row, ranking, training
from workbench.run_folder import RunFolder, WholeLineage, read_record
from workbench.training.log import STEPS, step_means
from workbench.vocabulary.coverage import readability, vocabulary_verdict
from workbench.vocabulary.dictionary import ATTRIBUTION
from workbench.vocabulary.tokens import count_tokens

SETTINGS = {"card_samples": 3, "language": "", "license": "", "dataset": ""}
MAX_LOG_ROWS = 60  # of a stage; a longer log is printed as means of 500 steps, if there are any
MAX_CHARACTERS = 200  # of a text on the card
MEANING = re.compile(  # in Markdown or HTML; within a word _ and : have none
    r"(?<![a-zA-Z0-9])[_:]|[_:](?![a-zA-Z0-9])|[!-$&-*;<>@[-^`{-~]"
)
LOCAL_PATH = re.compile(
    r"""(?<![\w:/.<+])/(?:[^\s`|<>()"'/]+/)+[^\s`|<>()"',;]*|\b[A-Z]:\\[^\s`|<>"]+"""
)


class Markdown(str):
    """Text that is Markdown already; the template escapes all other text."""


def safe_text(text: object, length: int = MAX_CHARACTERS) -> str:
    """A text that cannot leave its cell, cut to `length` characters.

    What has a meaning in Markdown or HTML becomes a numeric entity, a line break `<br>`, and what
    cannot be shown (control characters, bidi controls, lone surrogates) U+FFFD.
    """
    given = str(text)
    cut = given if len(given) <= length else given[: length - 1] + "…"
    lines = "\n".join(cut.replace("\t", " ").splitlines())
    hidden = {ord(one) for one in lines if unicodedata.category(one)[0] == "C"} - {ord("\n")}
    shown = lines.translate(dict.fromkeys(hidden, "\ufffd"))
    safe = MEANING.sub(lambda found: f"&#{ord(found[0])};", shown)
    return safe.replace("www.", "www&#46;").replace("\n", "<br>")  # or it would become a link


def code(text: object) -> Markdown:
    """`safe_text` in code font."""
    return Markdown(f"<code>{safe_text(text)}</code>")


def table(header: Sequence[str], rows: Iterable[Iterable[object]]) -> Markdown:
    """A Markdown table; cells that are not `Markdown` are escaped."""
    lines = [header, [Markdown("---")] * len(header), *rows]
    return Markdown("\n".join(f"| {' | '.join(map(_printed, line))} |" for line in lines))


def _printed(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return value if isinstance(value, Markdown) else safe_text(value)


def _values(values: Record) -> Markdown:
    return Markdown("\n".join(f"- `{n}`: {safe_text(value, 500)}" for n, value in values.items()))


def write_card(run_dir: str | Path, **settings: Any) -> Path:
    """Write `model/README.md` of a run from its lineage, inspection, evaluation and data.

    Sections whose record does not exist yet say so; call it again after evaluating.

    Args:
        run_dir: a run that has a model.
        settings: `card_samples` (training pairs to print; 0 holds them back), `language`,
            `license` and `dataset` (a name on the Hub) for the card's head. A setting that is not
            given keeps its last value (`card.json` of the run), at first that of `SETTINGS`.

    Raises:
        RequestError: the run has no model, or a link in it leads elsewhere.
        DamagedError: the run's records do not hold what the card says.
        TypeError: there is no such setting.

    Example:
        >>> write_card("runs/mine", language="zh", license="apache-2.0")  # doctest: +SKIP
    """
    run = RunFolder(run_dir)
    if not run.lineage.is_file():
        raise RequestError(f"{run_dir} has no model yet: run notebook 02_fine_tune first")
    if unknown := settings.keys() - SETTINGS.keys():
        raise TypeError(f"write_card: there is no setting {', '.join(sorted(unknown))}")
    files.refuse_links(run.path)
    chosen = SETTINGS | dict(read_record(run.card_settings)) | settings
    write_json(run.card_settings, chosen)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("workbench.reports"),
        trim_blocks=True,
        keep_trailing_newline=True,
        finalize=_printed,
    )
    environment.filters |= {"code": code, "markdown": Markdown, "base": lambda at: Path(at).name}
    environment.filters |= {"estimate": lambda of: Markdown(format_estimate(of))}
    environment.globals |= {"data": data, "ranking": ranking, "training": training}
    environment.globals |= {"values": _values, "log": _log, "table": table}
    try:
        text = environment.get_template("card.md").render(_facts(run, chosen))
    except (LookupError, TypeError, AttributeError, jinja2.UndefinedError) as error:
        what = f"lineage, inspection or evaluation lacks something ({error!r})"
        raise DamagedError(f"{display_path(run.path)}: {what}; run its notebook again") from error
    files.write_text(run.card, re.sub(r"\n{3,}", "\n\n", text))
    return run.card


def _facts(run: RunFolder, settings: dict[str, Any]) -> dict[str, Any]:
    """What the template prints."""
    stages = public_stages(files.read_json(run.lineage, WholeLineage)["stages"])
    metrics, rows = read_record(run.metrics), pd.DataFrame(columns=COLUMNS)
    if run.split("train").is_file():
        rows = read_split(run.path, "train")[COLUMNS]
    language = settings["language"] or script_language(rows["sentence_0"].head(1000))
    settings = settings | {"language": language}
    samples = rows.head(settings["card_samples"]).to_numpy().tolist()
    last, cpu = stages[-1], [stage.get("processor_seconds") or 0 for stage in stages]
    used = last["hyperparameters"]
    readable, colour = vocabulary(run, stages)
    return {
        "head": _head(run.path.name, stages, metrics, settings),
        "name": run.path.name,
        "settings": settings,
        "stages": stages,
        "length": model_length(run, last),
        "columns": COLUMNS,
        "samples": [map(code, row) for row in samples],
        "inspection": read_record(run.inspection),
        "readable": readable,
        "metrics": metrics,
        "results": [name for name in METRICS if metrics and name in metrics["rows"][0]],
        "groups": group_count(metrics) if metrics else 0,
        "few_groups": REHEARSAL_GROUPS,
        "advice": recommendations(stages, metrics, colour),
        "repair": repair_record(stages),
        "attribution": ATTRIBUTION,
        "non_default": {name: used[name] for name in last["non_default"] if name in used},
        "recipe": {n: v for n, v in last["recipe"].items() if n not in used},
        "seconds": round(sum(stage["seconds"] for stage in stages)),
        "cpu": round(sum(cpu)) if all(cpu) else "unknown",
    }


def public_stages(stages: Sequence[Record]) -> list[Any]:
    """Stages as others may read them: each path is its last name, a base in a folder says so."""
    bases = [stage.get("base", {}) for stage in stages]
    local = {base.get("name") for base in bases if base.get("kind") in ("folder", "run")}

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shown(one) for name, one in value.items()}
        if isinstance(value, list):
            return [*map(shown, value)]
        if not isinstance(value, str):
            return value
        if value in local:  # its name could be taken for one on the Hub
            return f"{Path(value).name} (a local folder)"
        if os.path.isabs(os.path.expanduser(value)):
            return Path(value).name
        return LOCAL_PATH.sub(lambda path: Path(path[0]).name, value)

    return [shown(stage) for stage in stages]


def model_length(run: RunFolder, stage: Record) -> int:
    """Tokens at which the saved model cuts a pair, which may be fewer than were asked for."""
    saved = read_record(run.model / "tokenizer_config.json")
    return int(saved.get("model_max_length") or stage["recipe"]["max_length"])


def repair_record(stages: Sequence[Record]) -> Record:
    """What a model's lineage records of the repair of its vocabulary; empty if it was kept."""
    found = (stage.get("vocabulary", {}) for stage in stages)
    return next((one for one in found if one.get("vocabulary", "keep") != "keep"), {})


def _head(name: str, stages: Sequence[Record], metrics: Record, settings: Record) -> Markdown:
    """The YAML that the Hub reads."""
    base, test = stages[0]["base"], metrics.get("recipe", {}).get("source", "candidate lists")
    tags = ["sentence-transformers", "cross-encoder", "reranker", "generated_from_trainer"]
    tags += [f"dataset_size:{stage['pairs']}" for stage in stages]
    tags += [f"loss:{stage['loss']}" for stage in stages]
    results = [
        EvalResult(
            task_type="text-ranking",
            task_name="Text Ranking",
            dataset_type="unknown",
            dataset_name=Path(test).name,
            metric_type=metric,
            metric_name=metric,
            metric_value=round(value["mean"], 4),
        )
        for metric, value in model_row(metrics).items()
        if metric != "scorer" and value["mean"] is not None
    ]
    head = ModelCardData(
        base_model=base["name"] if base["kind"] == "hub" else None,
        datasets=[settings["dataset"]] if settings["dataset"] else None,
        language=settings["language"] or None,
        library_name="sentence-transformers",
        license=settings["license"] or None,
        pipeline_tag="text-ranking",
        tags=tags,
        model_name=name,
        eval_results=results or None,
    )
    return Markdown(head.to_yaml())


def recommendations(stages: Sequence[Record], metrics: Record, colour: str) -> list[str]:
    """What to do next with a model, in sentences of Markdown; `colour` is of its vocabulary."""
    base = "choose a base made for the language of the texts"
    repair = (
        "Give the base a vocabulary that covers the data (`vocabulary: words` with a dictionary, "
        f"or `extend`) and train again, or {base}."
    )
    if repair_record(stages):
        repair = f"The repaired vocabulary still lacks much: {base}."
    return [
        *([] if colour == "green" else [repair]),
        ranking.claimed(metrics)[2] if metrics else "Evaluate it: `04_evaluate_ranking`.",
        "Measure on your own queries before relying on it.",
    ]


def vocabulary(run: RunFolder, stages: Sequence[Record]) -> tuple[str, str]:
    """How much of the texts the model can read with its own tokenizer, and the verdict's colour."""
    texts, inspection = run.split("train"), read_record(run.inspection)
    if (run.model / "tokenizer.json").is_file() and texts.is_file():
        pairs, tokenizer = read_split(run.path, "train"), load_tokenizer(find_model(str(run.model)))
        found = readability(count_tokens(tokenizer, distinct_texts(pairs)), pairs)
        colour = vocabulary_verdict({"keep": found})["colour"]
        return (
            f"**{percent(found['unk_share'])} of the tokens of the training pairs are unknown to "
            f"the model's vocabulary**, and {percent(found['lost_share'])} of the distinct texts "
            f"look the same as another because of it. {data.READABLE[colour]}",
            colour,
        )
    if inspection and not repair_record(stages):
        return data.vocabulary(inspection), inspection["verdict"]["colour"]
    return "The vocabulary was not inspected yet.", "green"


def script_language(texts: Iterable[str]) -> str:
    """`zh`, `ja` or `ko`, where the characters of the texts are those of one; otherwise empty."""
    letters = [letter for text in texts for letter in text[:200] if letter.isalpha()]
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)
    if scripts["HIRAGANA"] + scripts["KATAKANA"] > 0.1 * len(letters):
        return "ja"
    codes = {"HANGUL": "ko", "CJK": "zh"}
    return next((codes[name] for name in codes if scripts[name] > 0.5 * len(letters)), "")


def _log(stage: Record) -> Markdown:
    """The log of a stage; of a long one the means of 500 steps, if it has as many."""
    titles = {"epoch": "Epoch", "step": "Step", "loss": "Training Loss"}
    titles |= {"dev_loss": "Dev Loss", "dev_ap": "Dev AP"}
    log = pd.DataFrame(stage.get("log"), columns=[*titles]).assign(stage="")
    if log.empty:
        return Markdown("")
    if len(log) > MAX_LOG_ROWS and log["step"].max() >= STEPS:
        log, titles["loss"] = step_means(log), f"Training Loss (mean of {STEPS} steps)"
    log = log.groupby("step").first().dropna(axis="columns", how="all").reset_index()
    shown = log[[name for name in titles if name in log]].astype({"step": object})
    for name in shown.columns.drop("step"):
        shown[name] = shown[name].map("{:.4f}".format).replace("nan", "-")
    return table([titles[name] for name in shown], shown.to_numpy().tolist())
