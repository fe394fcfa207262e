"""Exercise and solution notebooks, and the glossary's page, made from one source of each lesson.

A source is a Python file in jupytext's percent format. The tags of its cells decide what becomes of
them: of a `solution` cell the exercise keeps what stands above the line `# solution`; `check` and
`predict` cells stay as they are; `lang-en` and `lang-zh` cells go into the notebooks of that
language, and a `lang-zh` cell names, as `of`, the digest of the English cell it translates.

In prose `[[name]]` stands for the figure of that name in `expected.json`, `[[quiz]]` for the
lesson's quiz. The first use of a term of the glossary becomes a link that explains it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import yaml

from workbench.files import read_json, write_text
from workbench.lessons.recording import lessons_folder

LANGUAGES = ("en", "zh")
PROTECTED = re.compile(
    r"(^#[^\n]*$|```.*?```|`[^`]*`|\$[^$]*\$|\[[^\]]*\]\([^)]*\)|<[^>]+>)", re.M | re.S
)
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
HEADINGS = {"en": ("Right.", "No."), "zh": ("对。", "不对。")}


class LessonError(ValueError):
    """A source of a lesson cannot be built; the message names file and cell."""


def build_lessons(write: bool = True) -> dict[Path, str]:
    """The content of every generated file, written in place unless `write` is false.

    Raises:
        LessonError: a source names a figure that is not in `expected.json`, or a cell is not right.
    """
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


def read_cells(source: Path) -> list[Any]:
    """The cells of a source, as nbformat has them."""
    import jupytext

    return list(jupytext.read(source, fmt="py:percent").cells)


def languages(source: Path) -> list[str]:
    """The languages that a source has prose in."""
    found = {tag for cell in read_cells(source) for tag in cell.metadata.get("tags", [])}
    return [language for language in LANGUAGES if language == "en" or f"lang-{language}" in found]


def digest(english: str) -> str:
    """What a translated cell records of the English text it translates."""
    return hashlib.sha256(" ".join(english.split()).encode()).hexdigest()[:8]


def drifted(source: Path) -> list[str]:
    """For each translated cell whose English text has changed since, what its `of` should be."""
    wrong, english = [], ""
    for number, cell in enumerate(read_cells(source)):
        tags = cell.metadata.get("tags", [])
        if "lang-en" in tags:
            english = cell.source
        elif "lang-zh" in tags and str(cell.metadata.get("of")) != digest(english):
            wrong.append(f'{source.name}, cell {number}: of="{digest(english)}"')
    return wrong


def glossary() -> list[dict[str, str]]:
    """Terms with `en`, `zh`, their explanations `means` and `means_zh`, and a `pattern`."""
    return list(yaml.safe_load((lessons_folder() / "glossary.yaml").read_text(encoding="utf-8")))


def glossary_page() -> str:
    """The glossary as a Markdown page, terms in alphabetical order."""
    head = (
        "# Glossary\n\nThe words of the lessons, in English and Chinese. The Chinese text has not "
        "yet been reviewed by a native teacher.\n"
    )
    terms = sorted(glossary(), key=lambda term: term["en"].casefold())
    entries = (
        f"\n## {t['en']} · {t['zh']}\n\n{t['means'].strip()}\n\n{t['means_zh'].strip()}\n"
        for t in terms
    )
    return head + "".join(entries)


def _notebook(source: Path, language: str, solution: bool) -> str:
    """One notebook as text: no output, and ids by place, as nbstripout leaves it."""
    terms, cells = glossary(), list[dict[str, Any]]()
    for number, cell in enumerate(read_cells(source)):
        tags = cell.metadata.get("tags", [])
        if any(tag == f"lang-{other}" for tag in tags for other in LANGUAGES if other != language):
            continue
        text = cell.source.strip("\n")
        own: dict[str, Any] = {"id": str(len(cells))}
        if cell.cell_type == "markdown":
            text = _fill(text, source, number, language)
            text = _link(text, terms, language)
        elif "solution" in tags and not solution:
            text = _stub(text, source, number)
        own |= {"cell_type": cell.cell_type, "metadata": {"tags": tags} if tags else {}}
        if cell.cell_type == "code":
            own |= {"execution_count": None, "outputs": []}
        cells.append(own | {"source": text.splitlines(keepends=True)})
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    book = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(book, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _stub(code: str, source: Path, number: int) -> str:
    """A cell as the learner finds it: the lines from `# solution` on are gone."""
    kept, mark, _ = code.partition("# solution")
    if not mark:
        raise LessonError(f"{source.name}, cell {number}: tagged `solution`, without that line")
    return f"{kept}raise NotImplementedError  # your code, in place of this line"


def _fill(text: str, source: Path, number: int, language: str) -> str:
    expected = read_json(lessons_folder() / "expected.json")

    def value(match: re.Match[str]) -> str:
        if match[1] == "quiz":
            return quiz(source.stem, language)
        if match[1] not in expected:
            raise LessonError(f"{source.name}, cell {number}: expected.json has no {match[1]!r}")
        return str(expected[match[1]])

    return re.sub(r"\[\[(\w+)\]\]", value, text)


def quiz(lesson: str, language: str = "en") -> str:
    """The quiz of a lesson: each choice opens to say whether it is right, and why."""
    file = lessons_folder() / f"quiz/{lesson}.yaml"
    questions = yaml.safe_load(file.read_text(encoding="utf-8"))
    ending = "" if language == "en" else f"_{language}"
    lines = []
    for place, question in enumerate(questions, 1):
        lines.append(f"**{place}. {question[f'text{ending}']}**\n")
        for choice in question["choices"]:
            verdict = HEADINGS[language][0 if choice.get("right") else 1]
            because = f"{verdict} {choice[f'because{ending}']}"
            summary = f"<summary>{choice[f'text{ending}']}</summary>"
            lines.append(f"<details>{summary}\n\n{because}\n\n</details>\n")
    return "\n".join(lines)


def _link(text: str, terms: list[dict[str, str]], language: str) -> str:
    """The text with the first use of each term, in the whole lesson, made a link.

    Terms that were linked are taken off the list.
    """
    meaning = "means" if language == "en" else "means_zh"
    for term in sorted(terms, key=lambda term: -len(term["en"])):
        pattern = re.compile(term["pattern"] if language == "en" else re.escape(term["zh"]))
        parts = PROTECTED.split(text)
        for place, part in enumerate(parts):
            found = pattern.search(part) if place % 2 == 0 else None
            if found:
                title = " ".join(term[meaning].split()).replace('"', "'")
                link = f'[{found[0]}](../glossary.md "{title}")'
                parts[place] = part[: found.start()] + link + part[found.end() :]
                text = "".join(parts)
                terms.remove(term)
                break
    return text
