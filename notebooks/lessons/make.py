"""Exercise and solution notebooks, and the glossary's page, made from one source of each lesson.

    python notebooks/lessons/make.py build
    python notebooks/lessons/make.py record RUN CHARACTERS

The second writes `recorded/` anew from a run of each of the two recipes.

A source is a Python file in jupytext's percent format. Of a cell with the tag `solution` the
exercise keeps what is above the line `# solution`; `lang-en` and `lang-zh` cells go into the
notebooks of that language, and a `lang-zh` cell names, as `of`, the digest of the English cell.

In prose and quizzes `[[name]]` becomes the figure of that name in `expected.json`, `[[quiz]]` the
lesson's quiz. The first use of a term of the glossary becomes a link that explains it.
"""

import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import click
import pandas as pd
import yaml

import workbench as wb
from workbench.data.texts import text_pairs
from workbench.files import (
    RequestError,
    display_path,
    project_root,
    read_json,
    sha256,
    write_json,
    write_text,
)
from workbench.lessons import recording
from workbench.lessons.recording import lessons_folder
from workbench.ranking.evaluation import score_lists
from workbench.run_folder import RunFolder
from workbench.runs.parameters import read_settings

LANGUAGES = {"en": ("Right.", "No."), "zh": ("对。", "不对。")}  # and what a quiz says
PROTECTED = re.compile(
    r"(^#[^\n]*$|```.*?```|`[^`]*`|\$\$.*?\$\$|\$[^$]*\$|\[[^\]]*\]\([^)]*\)|<[^>]+>)", re.M | re.S
)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
NOTEBOOK = {"metadata": {"kernelspec": KERNEL}, "nbformat": 4, "nbformat_minor": 5}


def build_lessons(write: bool = True) -> dict[Path, str]:
    """The content of every generated file, written in place unless `write` is false."""
    folder = lessons_folder()
    files = {folder / "glossary.md": glossary_page()}
    for source in sorted((folder / "source").glob("*.py")):
        for language in languages(source):
            name = source.stem + ("" if language == "en" else f".{language}") + ".ipynb"
            for kind in ("exercises", "solutions"):
                files[folder / kind / name] = _notebook(source, language, kind == "solutions")
    for path, text in files.items() if write else ():
        write_text(path, text)
    return files


@cache
def read_cells(source: Path) -> list[Any]:
    """The cells of a source, as nbformat has them."""
    import jupytext

    return list(jupytext.read(source, fmt="py:percent").cells)


def languages(source: Path) -> list[str]:
    """The languages that a source has prose in."""
    found = {tag for cell in read_cells(source) for tag in cell.metadata.get("tags", [])}
    return [language for language in LANGUAGES if language == "en" or f"lang-{language}" in found]


def glossary() -> list[dict[str, str]]:
    """Terms with `en`, `zh`, their explanations `means` and `means_zh`, and a `pattern`."""
    return list(yaml.safe_load((lessons_folder() / "glossary.yaml").read_text(encoding="utf-8")))


def glossary_page() -> str:
    """The glossary as a Markdown page, terms in alphabetical order."""
    page = (
        "# Glossary\n\nThe words of the lessons, in English and Chinese. The Chinese text has not "
        "yet been reviewed by a native teacher.\n"
    )
    for term in sorted(glossary(), key=lambda term: term["en"].casefold()):
        page += f"\n## {term['en']} · {term['zh']}\n"
        page += f"\n{term['means'].strip()}\n\n{term['means_zh'].strip()}\n"
    return page


def quiz(lesson: str, language: str = "en") -> str:
    """The quiz of a lesson: each choice opens to say whether it is right, and why."""
    file, end = lessons_folder() / f"quiz/{lesson}.yaml", "" if language == "en" else "_zh"
    lines = []
    for place, question in enumerate(yaml.safe_load(file.read_text(encoding="utf-8")), 1):
        lines.append(f"**{place}. {question[f'text{end}']}**\n")
        for choice in question["choices"]:
            because = f"{LANGUAGES[language][not choice.get('right')]} {choice[f'because{end}']}"
            summary = f"<summary>{choice[f'text{end}']}</summary>"
            lines.append(f"<details>{summary}\n\n{because}\n\n</details>\n")
    return "\n".join(lines)


def _notebook(source: Path, language: str, solution: bool) -> str:
    """One notebook as text: no output, and ids by place, as nbstripout leaves it."""
    terms, cells = glossary(), list[dict[str, Any]]()
    known = read_json(lessons_folder() / "expected.json")
    for number, cell in enumerate(read_cells(source)):
        tags, text = cell.metadata.get("tags", []), cell.source.strip("\n")
        if any(f"lang-{other}" in tags for other in LANGUAGES if other != language):
            continue
        if "[[quiz]]" in text:
            text = text.replace("[[quiz]]", quiz(source.stem, language))
        if missing := [n for n in re.findall(r"\[\[(\w+)\]\]", text) if n not in known]:
            problem = f"expected.json has no {missing[0]!r}"
            raise RequestError(f"{source.name}, cell {number}: {problem}")
        own: dict[str, Any] = {"cell_type": cell.cell_type, "id": str(len(cells))}
        own["metadata"] = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            own |= {"execution_count": None, "outputs": []}
            if "solution" in tags and not solution:
                kept = text.partition("# solution")[0]
                text = f"{kept}raise NotImplementedError  # your code, in place of this line"
        else:
            text = re.sub(r"\[\[(\w+)\]\]", lambda name: str(known[name[1]]), text)
            text = _link(text, terms, language)
        cells.append(own | {"source": text.splitlines(keepends=True)})
    book = {"cells": cells, **NOTEBOOK}
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _link(text: str, terms: list[dict[str, str]], language: str) -> str:
    """The text with the first use of each term made a link; `terms` loses those that were used."""
    meaning = "means" if language == "en" else "means_zh"
    for term in sorted(terms, key=lambda term: -len(term["en"])):
        pattern = re.compile(term["pattern"] if language == "en" else re.escape(term["zh"]))
        parts = PROTECTED.split(text)
        for place in range(0, len(parts), 2):
            if found := pattern.search(parts[place]):
                title = " ".join(term[meaning].split()).replace('"', "'")
                heading = f"{term['en']} · {term['zh']}".lower().replace(" ", "-")
                slug = re.sub(r"[^\w-]", "", heading)  # as MyST and GitHub do
                link = f'[{found[0]}](../glossary.md#{slug} "{title}")'
                parts[place] = pattern.sub(lambda _, link=link: link, parts[place], count=1)
                terms.remove(term)
                break
        text = "".join(parts)
    return text


def record(run_dir: str | Path, characters_dir: str | Path) -> Path:
    """The folder of a recording, made from runs of the two recipes.

    Raises:
        RequestError: a run was not made from sample and recipe as they are now.
    """
    sample, folder = project_root() / recording.SAMPLE, recording.recording()
    runs, recipes = (run_dir, characters_dir), recording.recipes()
    manifest = wb.read_manifest(run_dir)
    made_from = {name: manifest[name] for name in recording.MADE_FROM} | {"recipes": recipes}
    rows, pairs = recording.held_out(made_from), pd.read_csv(sample)
    dev, test = (text_pairs(pairs.iloc[of]) for of in rows.values())
    for run, (name, recipe) in zip(runs, recipes.items(), strict=True):
        same = wb.read_manifest(run)["sha256"] == sha256(sample)
        same = same and text_pairs(wb.read_split(run, "test")) == test
        if not (same and recipe.items() <= read_settings(RunFolder(run).parameters).items()):
            reason = f"was not made from {recording.SAMPLE} and {name}.yaml as they are now"
            raise RequestError(f"{run} {reason}: make it again")
    lists = wb.read_test(RunFolder(run_dir).candidates).lists
    scores: dict[str, Any] = {"made_from": made_from, "rows": rows}
    scorers = [wb.scoring.ModelScorer.load(wb.find_model(str(run))) for run in runs]
    found = {name: scorers[0].score(of) for name, of in (("dev", dev), ("test", test))}
    scores |= {name: of.astype(float).round(5).tolist() for name, of in found.items()}
    for name, scorer in zip(("lists", "repaired"), scorers, strict=True):
        scores[name] = [of.astype(float).round(5).tolist() for of in score_lists(scorer, lists)]
    shutil.copy(RunFolder(run_dir).candidates, folder / "lists.jsonl")
    shutil.copy(RunFolder(run_dir).training_log, folder / "training_log.jsonl")
    write_json(folder / "scores.json", scores)
    return folder


@click.group()
def cli() -> None:
    """Make the files of the course."""


@cli.command()
def build() -> None:
    """Write exercises, solutions and glossary from their sources."""
    print(f"wrote {len(build_lessons())} files")


@cli.command("record")
@click.argument("run")
@click.argument("characters")
def record_command(run: str, characters: str) -> None:
    """Record two runs for the lessons, of quickstart.yaml and quickstart_characters.yaml."""
    print(f"recorded in {display_path(record(run, characters))}; now `make lessons`")


if __name__ == "__main__":
    cli()
