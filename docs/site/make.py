"""Build pages and slides: `python docs/site/make.py OUT [--run RUN] [--solutions]`.

Notebooks 01 to 04 are those of RUN, or of the newest finished run in `runs/`. The fifth is
executed on it, and the lessons as a learner finds them. Nothing is fetched.
"""

import argparse
import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
from nbclient import NotebookClient

import workbench as wb
from workbench.files import project_root, read_json

ROOT = project_root()
LESSONS = ROOT / "notebooks/lessons"
FORMS = re.compile(r"application/vnd\.jupyter\.widget")


def newest_run():
    """The newest finished run; exits with what to do where there is none."""
    done = [
        file.parent
        for file in (ROOT / "runs").glob("*/status.json")
        if read_json(file).get("state") == "done" and (file.parent / "evaluation").is_dir()
    ]
    if not done:
        sys.exit("there is no finished run in runs/: `make run` makes two")
    return max(done, key=lambda run: (run / "status.json").stat().st_mtime)


def still(book):
    """The notebook without widgets, which need scripts from elsewhere; images have a text."""
    book.metadata.pop("widgets", None)
    title = "figure"
    for cell in book.cells:
        if cell.cell_type == "markdown":
            title = next(iter(re.findall(r"^#+ (.*)", cell.source, re.M)), title)
        kept = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if any(FORMS.match(kind) for kind in data):
                text = "This part is interactive: open the notebook in JupyterLab."
                output = nbformat.v4.new_output("display_data", {"text/plain": text})
            if "image/png" in data:
                encoded = data["image/png"].replace("\n", "")
                alt = output.get("metadata", {}).get("image/png", {}).get("alt") or title
                alt = alt.replace('"', "'")
                html = f'<img src="data:image/png;base64,{encoded}" alt="{alt}" width="720">'
                output = nbformat.v4.new_output("display_data", {"text/html": html})
            if output.get("name") != "stderr":
                kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
    return book


def notebooks(run, source):
    """The executed notebooks 01 to 05 of a run."""
    (source / "notebooks").mkdir(parents=True)
    for file in sorted((run / "notebooks").glob("0*.ipynb")):
        nbformat.write(still(nbformat.read(file, 4)), source / "notebooks" / file.name)
    out = source / "notebooks/05_compare_runs.ipynb"
    papermill.execute_notebook(
        str(ROOT / "notebooks/05_compare_runs.ipynb"),
        str(out),
        {"run_dir": str(run)},
        kernel_name="python3",
        progress_bar=False,
        cwd=str(ROOT),
    )
    nbformat.write(still(nbformat.read(out, 4)), out)


def executed(files):
    """The notebooks of these files, executed in one kernel that forgets its names in between."""
    books = [nbformat.read(file, 4) for file in files]
    cells = []
    for book in books:
        cells += [nbformat.v4.new_code_cell("%reset -f"), *book.cells]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    together = nbformat.v4.new_notebook(cells=cells, metadata=books[0].metadata)
    where = {"metadata": {"path": ROOT}}
    NotebookClient(together, kernel_name="python3", resources=where).execute()
    return books


def lessons(source, kinds):
    """The lessons, executed; what is to be written by the learner stays unwritten."""
    for kind in kinds:
        (source / "lessons" / kind).mkdir(parents=True)
        files = sorted((LESSONS / kind).glob("*.ipynb"))
        for file, book in zip(files, executed(files), strict=True):
            nbformat.write(still(book), source / "lessons" / kind / file.name)
    shutil.copy(LESSONS / "glossary.md", source / "lessons")


def slides(folder):
    """The sources of the slides, with the figures that the lessons quote."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs/slides", folder, ignore=shutil.ignore_patterns("__pycache__"))
    expected = read_json(LESSONS / "expected.json")
    for file in folder.glob("*.md"):
        text = re.sub(r"\[\[(\w+)\]\]", lambda m: expected[m[1]], file.read_text(encoding="utf-8"))
        file.write_text(text, encoding="utf-8")


def reference():
    """A page with the docstring of each public name."""
    lines = ["# Reference", "", "The names of `import workbench as wb`.", ""]
    for name in dir(wb):
        thing = getattr(wb, name)
        if inspect.ismodule(thing):
            continue
        kind = "autoclass" if inspect.isclass(thing) else "autofunction"
        lines += [f"## wb.{name}", "", "```{eval-rst}"]
        lines += [f".. {kind}:: {thing.__module__}.{thing.__qualname__}", "```", ""]
    return "\n".join(lines)


def build(out, run, solutions=False):
    """Write the site and the slides into a folder."""
    source = out.parent / f"{out.name}-source"
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(
        ROOT / "docs/site", source, ignore=shutil.ignore_patterns("make.py", "__pycache__")
    )
    notebooks(run, source)
    lessons(source, ["exercises", *(["solutions"] if solutions else [])])
    (source / "reference.md").write_text(reference(), encoding="utf-8")
    for name in ("choosing.md", "measurements.md", "decisions.md", "label_efficiency.png"):
        shutil.copy(ROOT / "docs" / name, source)
    decks = source.with_name(f"{out.name}-slides")
    slides(decks)
    for builder, of, to in (("html", source, out), ("revealjs", decks, out / "slides")):
        command = [sys.executable, "-m", "sphinx", "-q", "-b", builder, str(of), str(to)]
        subprocess.run(
            [*command, "-d", str(out.parent / f"{out.name}-doctrees-{builder}")], check=True
        )


def main():
    """Build as the command line says."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("out", type=Path)
    asked.add_argument("--run", type=Path, help="the run to show; the newest finished one")
    asked.add_argument("--solutions", action="store_true", help="for the instructor: answers too")
    given = asked.parse_args()
    build(given.out.resolve(), (given.run or newest_run()).resolve(), given.solutions)
    print(f"pages: {given.out}/index.html")


if __name__ == "__main__":
    main()
