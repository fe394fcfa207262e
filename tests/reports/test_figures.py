"""Figures: what they draw, how they are shown and saved, and that Chinese has glyphs."""

import itertools
import re
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from IPython.display import HTML, Image, Markdown
from matplotlib.figure import Figure

from workbench.files import write_json, write_text
from workbench.reports import findings
from workbench.reports.figures import style
from workbench.reports.figures.ranking import label_efficiency
from workbench.reports.figures.style import new_axes, packaged_font, show
from workbench.reports.figures.training import (
    label_balance,
    length_histogram,
    log_values,
    loss_curve,
)
from workbench.run_folder import RunFolder
from workbench.runs.catalog import RunRecord
from workbench.runs.comparison import START, find_runs, label_table
from workbench.training.log import LOG_COLUMNS

matplotlib.use("Agg")
LABELS = {"labels": {"pairs": 4, "positive": 1, "negative": 3}}
LOG = pd.DataFrame(
    {
        "stage": "stage 1",
        "step": [1, 2, 2],
        "steps": 2,
        "epoch": [0.5, 1, 1],
        "loss": [0.5, 0.4, None],
        "dev_loss": [None, None, 0.6],
        "learning_rate": [1e-5, 0, None],
    },
    columns=LOG_COLUMNS,
)


def estimate(mean):
    return {"mean": mean, "low": mean - 0.04, "high": mean + 0.04}


def budget_runs(starts, budgets=(100, 300, 0), seeds=(1, 2), test="t"):
    """A run for each start, `max_pairs` and seed; by start the nDCG@10 of each budget."""
    crossed = itertools.product(starts.items(), enumerate(budgets), seeds)
    return [
        RunRecord(
            "r",
            Path("r"),
            parameters={**dict(zip(START, start, strict=True)), "max_pairs": asked, "seed": seed},
            data={"sides": {"train": {"pairs": (asked or 900) - seed}}},
            scorers={
                "model": {"ndcg@10": estimate(values[place] + seed / 100)},
                "ngram_regression": {"ndcg@10": estimate(0.5 + place / 10 + seed / 100)},
            },
            test=f"{test}{seed}",
        )
        for (start, values), (place, asked), seed in crossed
    ]


STARTS = {
    ("keep", "spectral"): (0.2, 0.2, 0.25),
    ("extend", "spectral"): (0.4, 0.6, 0.75),
    ("words", "dictionary"): (0.5, 0.7, 0.85),
}
TABLE = label_table(budget_runs(STARTS))
DRAW = {
    "label_balance": lambda ax: label_balance(LABELS, ax),
    "length_histogram": lambda ax: length_histogram([3, 4, 90], "tokens", 50, ax),
    "loss_curve": lambda ax: loss_curve({"a": LOG, "b": LOG}, 2, ax),
    "log_values": lambda ax: log_values({"a": LOG}, "learning_rate", "rate", ax),
    "nothing logged yet": lambda ax: loss_curve({"a": LOG.head(0)}, 2, ax),
    "label_efficiency": lambda ax: label_efficiency(TABLE, ax=ax),
}


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_uses_the_axes_given_labels_them_and_has_a_title(name):
    ax = new_axes()
    assert DRAW[name](ax) is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_title(loc="left")
    assert DRAW[name](None) is not ax


def test_stages_are_labelled_where_they_begin_and_not_joined():
    both = pd.concat([LOG, LOG.assign(stage="stage 2", loss=[0.3, 0.2, None])], ignore_index=True)
    ax = loss_curve({"a": both}, 2)
    assert [text.get_text().strip() for text in ax.texts] == ["stage 1", "stage 2"]
    assert [text.get_position()[0] for text in ax.texts] == [0, 2]
    raw = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "."]
    assert raw == [[0.5, 0.4], [0.3, 0.2]]
    assert not loss_curve({"a": LOG}).texts


def test_names_of_stages_do_not_lie_on_the_title(tmp_path):
    ax = loss_curve({"a": pd.concat([LOG, LOG.assign(stage="stage 2")], ignore_index=True)}, 2)
    show(ax, run_dir=tmp_path, name="loss")
    title = next(
        one for one in ax.get_children() if getattr(one, "get_text", str)() == "Loss by step"
    )
    names = [text.get_window_extent().y1 for text in ax.texts]
    assert max(names) <= title.get_window_extent().y0


def test_labels_by_start_by_hand():
    """Means over the seeds, of labels, metric and interval; the regression once, as the last."""
    table = TABLE.set_index(["start", "max_pairs"])
    assert len(table) == 12
    assert table["runs"].unique().tolist() == [2]
    point = table.loc[("words, dictionary", 300)]
    assert point["labels"] == 298.5
    assert [point["mean"], point["low"], point["high"]] == pytest.approx([0.715, 0.675, 0.755])
    assert point["values"] == pytest.approx([0.71, 0.72])
    assert table["mean"]["ngram_regression"].tolist() == pytest.approx([0.515, 0.615, 0.715])
    assert TABLE["start"].tolist()[-3:] == ["ngram_regression"] * 3
    assert label_table(budget_runs(STARTS, budgets=(100, 300))).empty
    others = [*budget_runs(STARTS)]
    others[0].parameters["epochs"] = 2
    assert "keep, epochs 2" in set(label_table(others)["start"])
    for record in others:  # without a measurement there is no point
        record.scorers = {}
    assert label_table(others).empty


def test_labels_by_start_come_from_the_records_of_run_folders(tmp_path):
    for place, asked in enumerate((100, 300, 0)):
        run = RunFolder(tmp_path / f"run-{place}")
        write_text(run.parameters, f"vocabulary: keep\nmax_pairs: {asked}\nseed: 1\n")
        write_json(run.manifest, {"source": "a.csv", "sides": {"train": {"pairs": 90 + place}}})
        scorers = (("model", 0.4), ("bm25", 0.9), ("ngram_regression", 0.6))
        rows = [{"scorer": name, "ndcg@10": estimate(mean)} for name, mean in scorers]
        write_json(run.metrics, {"rows": rows, "queries": 9, "model_minus": {}})
    table = label_table(find_runs("", tmp_path))
    assert table["start"].tolist() == ["keep"] * 3 + ["ngram_regression"] * 3
    assert table["labels"].tolist() == [90, 91, 92] * 2
    assert table["mean"].tolist() == [0.4] * 3 + [0.6] * 3


def test_labels_by_start_are_drawn_with_interval_and_seeds():
    ax = label_efficiency(TABLE)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["keep", "extend, spectral", "words, dictionary", "ngram_regression"]
    assert ax.get_xscale() == "log"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["98", "298", "898"]
    assert sum(len(dots.get_offsets()) for dots in ax.collections if len(dots.get_offsets())) >= 24


@pytest.mark.parametrize(
    ("runs", "words", "absent"),
    [
        (
            budget_runs(STARTS),
            [
                "`keep` is behind with 98, 298, 898 labels",
                "`extend, spectral` is behind with 98 labels",
                "`words, dictionary` is ahead with 298, 898 labels",
            ],
            ["one seed", "same queries"],
        ),
        (
            budget_runs({("extend", "random"): (0.5, 0.6, 0.7)}, seeds=(1,)),
            ["is nowhere clearly ahead or behind", "one seed"],
            [" is ahead", " is behind"],
        ),
        (
            budget_runs(STARTS)[:-1] + budget_runs(STARTS, test="other")[-1:],
            ["do not all rest on the same queries"],
            [],
        ),
        (budget_runs(STARTS, budgets=(100, 0)), ["There is no curve"], ["ahead", "behind"]),
    ],
)
def test_labels_by_start_in_words(runs, words, absent):
    text = findings.label_efficiency(label_table(runs))
    assert [one for one in words if one not in text] == [], text
    assert [one for one in absent if one in text] == [], text


def test_the_figure_is_saved_and_chinese_text_has_glyphs(tmp_path):
    ax = label_efficiency(TABLE)
    ax.set_title("怎么开通花呗")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        show(ax, run_dir=tmp_path, name="texts")
    assert (tmp_path / "figures/texts.png").read_bytes().startswith(b"\x89PNG")
    ax.set_title("\U0001f9ff\U00012000")  # or the test could pass because nobody warns
    with pytest.warns(UserWarning, match="Glyph .* missing"):
        show(ax, run_dir=tmp_path, name="none")


def test_the_font_has_the_characters_of_the_sample(sample):
    from fontTools.ttLib import TTFont

    with TTFont(packaged_font()) as font:
        known = set(font["cmap"].getBestCmap())
    texts = "".join([*sample["sentence_0"], *sample["sentence_1"]])
    assert not {ord(character) for character in texts} - known


@pytest.fixture
def shown(monkeypatch):
    parts = []
    monkeypatch.setattr("IPython.display.display", parts.append)
    return parts


def test_a_figure_is_saved_and_shown_with_its_sentence(shown, tmp_path):
    ax = style.new_axes()
    ax.set_title("Falling")
    style.show(ax, "**It falls.**", run_dir=tmp_path, name="loss")
    image, sentence = shown
    assert isinstance(image, Image)
    assert (image.data, image.alt) == ((tmp_path / "figures/loss.png").read_bytes(), "Falling")
    assert isinstance(sentence, Markdown)
    assert sentence.data == "**It falls.**"


def test_without_a_name_nothing_is_saved(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    figure, table = Figure(), pd.DataFrame({"a": [1]})
    figure.subplots()
    assert style.show(figure, table) is None
    assert isinstance(shown[0], Image)
    assert isinstance(shown[1], HTML)
    style.show(table.head(0))
    assert len(shown) == 2  # an empty table is not shown
    assert list(tmp_path.iterdir()) == []


def test_a_table_has_counts_without_decimals_and_no_text_of_the_data_is_html():
    table = pd.DataFrame(
        {"count": [1560.0, None], "value": [0.123456, 4e-6], "text": ["<td onclick=x>", None]}
    )
    html = style.table_html(table)
    cells = re.findall(r"<td [^>]*>([^<]*)</td>", html)
    assert cells == ["1560", "0.123", "&lt;td onclick=x&gt;", "", "4e-06", ""]
    assert "100000000000000000000.000" in style.table_html(pd.DataFrame({"loss": [1e20, 2.0]}))
    assert html.count("text-align: left") == 1 + html.count("<th ") + html.count("<td ")


def test_every_figure_is_found_whichever_module_is_asked_for_first():
    """Modules of a room import each other by its name, while it is still being filled."""
    for module in ("ranking", "style", "training"):
        code = (
            f"import workbench.reports.figures.{module}, workbench as wb\n"
            "assert {'ladder', 'loss_curve', 'show'} <= {*dir(wb.figures)}, dir(wb.figures)"
        )
        subprocess.run([sys.executable, "-c", code], check=True)
