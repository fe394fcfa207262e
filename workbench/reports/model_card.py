"""The model card of a run, written from the run's own records: nothing in it is typed by hand."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from workbench.files import read_json, refuse_links, write_json, write_text
from workbench.models import find_model, load_tokenizer
from workbench.ranking.metrics import METRICS
from workbench.ranking.uncertainty import REHEARSAL_GROUPS, claim, format_estimate
from workbench.reports.findings import Record, data, names, ranking, training
from workbench.run_folder import RunFolder, WholeLineage, read_record
from workbench.training.log import STEPS, TrainingLog, step_means
from workbench.vocabulary.coverage import readability, vocabulary_verdict
from workbench.vocabulary.repair import training_texts
from workbench.vocabulary.tokens import count_tokens

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
- **Language:** {{ language or "not stated" }}
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

{{ activation }}

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
{% if last.loss_options %}
  {{ last.loss_options | code }}
{% else %}
  `activation_fn` Identity and without `pos_weight`
{% endif %}
{% if kept %}
* {{ kept }}
{% endif %}

### Training Hyperparameters

#### Non-Default Hyperparameters
{{ values(non_default) or "None." }}

Settings other than the trainer's (`precision` became {{ last.precision }} on {{ last.device }}):

{{ values(recipe) }}

#### All Hyperparameters
`lineage.json` in this folder has all of them; those not named above have the library's default.

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

[Sentence-BERT](https://arxiv.org/abs/1908.10084) (Reimers and Gurevych, 2019) is the paper of the
library.
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
    within = r"(?<=[a-zA-Z0-9])&#(95|58);(?=[a-zA-Z0-9])"  # a word _ and : are plain
    safe = re.sub(within, lambda found: chr(int(found[1])), safe)
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
    run = RunFolder(run_dir)
    if not run.lineage.is_file():
        raise FileNotFoundError(f"{run_dir} has no model yet: run notebook 02_fine_tune first")
    if unknown := settings.keys() - SETTINGS.keys():
        raise TypeError(f"write_card: there is no setting {', '.join(sorted(unknown))}")
    refuse_links(run.path)
    remembered = _read(run.card_settings)
    chosen = SETTINGS | {n: remembered[n] for n in SETTINGS if n in remembered} | settings
    write_json(run.card_settings, chosen)
    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, finalize=_printed
    )
    environment.filters["code"] = code
    text = environment.from_string(TEMPLATE).render(_facts(run, chosen))
    write_text(run.card, re.sub(r"\n{3,}", "\n\n", text))
    return run.card


def _read(path: Path) -> dict[str, Any]:
    return dict(read_record(path))


def _facts(run: RunFolder, settings: dict[str, Any]) -> dict[str, Any]:
    """What the template prints, and the functions that it calls."""
    stages = read_json(run.lineage, WholeLineage)["stages"]
    for stage in stages:  # older lineages have no log
        stage.setdefault("log", TrainingLog(run.path, stage["stage"]).rows())
    last, base = stages[-1], stages[0]["base"]
    inspection, metrics = (_read(file) for file in (run.inspection, run.metrics))
    rows = pd.DataFrame(columns=COLUMNS)
    if run.split("train").is_file():
        rows = pd.read_parquet(run.split("train"), columns=COLUMNS)
    language = settings["language"] or script_language(rows["sentence_0"].head(1000))
    held = rows if settings["card_samples"] else rows.head(0)
    shown = held[COLUMNS[:2]].head(5).to_numpy().tolist() if len(held) > 4 else NEUTRAL_PAIRS
    described = last.get("statistics") or {}
    cpu = [stage.get("processor_seconds") or 0 for stage in stages]
    return {
        "head": _head(run.path.name, stages, metrics, settings | {"language": language}),
        "name": run.path.name,
        "language": language,
        "activation": Markdown(_activation(run.model)),
        "kept": Markdown(training.kept(last)),
        "non_default": _non_default(last),
        "settings": settings,
        "stages": stages,
        "last": last,
        "base": base,
        "revision": Markdown(f", revision {code(base['revision'])}" if base["revision"] else ""),
        "source": Path(last["data"]["source"]).name,
        "columns": COLUMNS,
        "pairs": Markdown("\n    ".join(f"{list(pair)!r}," for pair in shown)),
        "samples": [[code(v) for v in row] for row in held.head(settings["card_samples"]).values],
        "statistics": [
            [kind, *(f"{values[kind]:.4g}" for values in described.values())]
            for kind in ("min", "mean", "max")
        ],
        "metrics": metrics,
        "use": Markdown(_intended_use(metrics)),
        "recipe": {n: v for n, v in last["recipe"].items() if n not in last["hyperparameters"]},
        "seconds": round(sum(stage["seconds"] for stage in stages)),
        "cpu_seconds": round(sum(cpu)) if all(cpu) else None,
        **_cautions(stages, run, inspection, metrics),
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
            {"type": metric, "value": round(value["mean"], 4), "name": metric}
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


def recommendations(run_dir: str | Path) -> list[str]:
    """What to do next with the model of a run, by its records, in sentences of Markdown."""
    run = RunFolder(run_dir)
    stages, metrics = _read(run.lineage).get("stages", []), _read(run.metrics)
    return _advice(stages, metrics, _vocabulary(run, stages)[1]) if stages or metrics else []


def _advice(stages: Sequence[Record], metrics: Record, colour: str) -> list[str]:
    said = ["Measure on your own queries before relying on it."]
    if not metrics:
        said.insert(0, "Evaluate before use: `04_evaluate_ranking`.")
    else:
        found = claim(metrics)
        better = names(found.ahead or [""])
        advice = {
            "nothing": "Compare it with baselines: `04_evaluate_ranking`.",
            "few": "Measure on more queries: more pairs, a larger `test_share`, or `candidates`.",
            "worse": f"Do not use it in place of {better}. Read the queries that it ranks worst, "
            "then change one thing and compare.",
            "tied": "Look for a fault: a model that gives most candidates one score ranks nothing.",
            "coarse": "Evaluate again with more `resamples`.",
            "unclear": "Measure on more queries, or train on more pairs, before you prefer it.",
            "better": "Train with other seeds (`workbench sweep`): one training may be luck.",
        }
        said.insert(0, advice[found.state])
    if colour != "green":
        base = "hoose a base made for the language of the texts"
        said.insert(
            0,
            f"C{base}: the repaired vocabulary still lacks much."
            if repaired(stages)
            else "Give the base a vocabulary that covers the data (`vocabulary: extend`) and train "
            f"again, or c{base}.",
        )
    return said


def repaired(stages: Sequence[Record]) -> str:
    """How the vocabulary was repaired in a model's training, `extend` or `unused`; or empty."""
    done = (stage.get("vocabulary", {}).get("vocabulary", "keep") for stage in stages)
    return next((how for how in done if how != "keep"), "")


def _vocabulary(run: RunFolder, stages: Sequence[Record]) -> tuple[str, str]:
    """How much of the texts the model can read with its own tokenizer, and the verdict's colour."""
    texts, inspection = run.split("train"), _read(run.inspection)
    if (run.model / "tokenizer.json").is_file() and texts.is_file():
        pairs, tokenizer = pd.read_parquet(texts), load_tokenizer(find_model(str(run.model)))
        found = readability(count_tokens(tokenizer, training_texts(pairs)), pairs)
        colour = vocabulary_verdict({"keep": found})["colour"]
        return (
            f"**{found['unk_share']:.1%} of the tokens of the training pairs are unknown to the "
            f"model's vocabulary**, and {found['lost_share']:.1%} of the distinct texts look the "
            f"same as another because of it. {data.READABLE[colour]}",
            colour,
        )
    if inspection and not repaired(stages):
        return data.vocabulary(inspection), inspection["verdict"]["colour"]
    return "The vocabulary was not inspected yet.", "green"


def _cautions(
    stages: Sequence[Record], run: RunFolder, inspection: Record, metrics: Record
) -> dict[str, Markdown]:
    """What was neither trained nor measured, and known weaknesses."""
    stage = stages[-1]
    described, mean = stage.get("statistics"), stage["data"]["sides"]["train"]["label_mean"]
    texts = [described[name] for name in COLUMNS[:2]] if described else []
    doubtful = sum((metrics.get("suspect_negatives") or {}).values())
    seen, groups = metrics.get("seen", 0), metrics.get("query_groups", metrics.get("queries", 0))
    readable, colour = _vocabulary(run, stages)
    return {
        "misuse": _bullets(
            bool(texts)
            and f"Texts unlike those it was trained on, which have {min(t['min'] for t in texts)} "
            f"to {max(t['max'] for t in texts)} characters; pairs of more than "
            f"{stage['recipe']['max_length']} tokens are cut.",
            "Texts in languages or on subjects that the training pairs do not cover.",
            f"Probabilities taken at their word. {ranking.calibration(metrics)}",
            "Decisions about people: a score says how similar two texts were to this model.",
        ),
        "limits": _bullets(
            readable,
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
        "recommendations": _bullets(*_advice(stages, metrics, colour)),
    }


def script_language(texts: Iterable[str]) -> str:
    """`zh`, `ja` or `ko`, where the characters of the texts are those of one; otherwise empty."""
    letters = [letter for text in texts for letter in text[:200] if letter.isalpha()]
    scripts = [unicodedata.name(letter, "?").split()[0] for letter in letters]
    share = {name: count / len(letters) for name, count in Counter(scripts).items()}
    if share.get("HIRAGANA", 0) + share.get("KATAKANA", 0) > 0.1:
        return "ja"
    found = (code for name, code in (("HANGUL", "ko"), ("CJK", "zh")) if share.get(name, 0) > 0.5)
    return next(found, "")


def _activation(model: Path) -> str:
    """What `predict` gives, by the activation in a model's config, and how to get the other."""
    saved, old = _read(model / "config_sentence_transformers.json"), _read(model / "config.json")
    asked = saved.get("activation_fn") or (old.get("sentence_transformers") or {}).get(
        "activation_fn", old.get("sbert_ce_default_activation_function")
    )
    name = (asked or "Sigmoid").rpartition(".")[2]  # the library's own choice for one label
    gives, other = (
        ("probabilities, from 0 to 1", "logits")
        if name == "Sigmoid"
        else ("logits, numbers of any size", "probabilities, from 0 to 1")
        if name == "Identity"
        else (f"the `{name}` of a logit", "logits")
    )
    wanted = "Sigmoid" if other != "logits" else "Identity"
    return (
        f"`predict` and `rank` give {gives}: the model's activation is `{name}`. For {other}, give "
        f"them `activation_fn=torch.nn.{wanted}()`. The order of the candidates is the same."
    )


def _non_default(stage: Record) -> Record:
    """The trainer's hyperparameters that are not the library's default, with when it evaluated."""
    given = stage["hyperparameters"]
    looked = ("eval_strategy", "eval_steps") if given.get("eval_strategy", "no") != "no" else ()
    return {name: given[name] for name in (*stage["non_default"], *looked) if name in given}


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
