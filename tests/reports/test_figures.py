import warnings

import matplotlib
import pytest

from workbench.reports.figures.data import (
    frequent_texts,
    label_balance,
    length_histogram,
    text_reuse,
)
from workbench.reports.figures.style import new_axes, packaged_font, save_figure
from workbench.reports.figures.training import against_the_card, log_values, loss_curve

matplotlib.use("Agg")


@pytest.fixture
def inspection():
    return {
        "labels": {"pairs": 4, "positive": 1, "negative": 3},
        "reuse": {
            "texts_by_uses": {"1": 3, "30": 1},
            "reused_share": 0.25,
            "most_used": [{"text": "怎么$x$开通花呗", "uses": 30}, {"text": "b", "uses": 1}],
        },
    }


@pytest.fixture
def log():
    import pandas as pd

    columns = {
        "stage": "stage 1",
        "step": [1, 2, 2],
        "steps": 2,
        "epoch": [0.5, 1, 1],
        "loss": [0.5, 0.4, None],
        "dev_loss": [None, None, 0.6],
        "learning_rate": [1e-5, 0, None],
    }
    return pd.DataFrame(columns)


def draw(name, inspection, log):
    return {
        "label_balance": lambda ax: label_balance(inspection, ax),
        "length_histogram": lambda ax: length_histogram([3, 4, 90], "tokens", 50, ax),
        "text_reuse": lambda ax: text_reuse(inspection, ax),
        "frequent_texts": lambda ax: frequent_texts(inspection, ax),
        "loss_curve": lambda ax: loss_curve({"a": log, "b": log}, 2, ax),
        "against_the_card": lambda ax: against_the_card(log, ax),
        "log_values": lambda ax: log_values({"a": log}, "learning_rate", "rate", ax),
    }[name]


NAMES = [
    "label_balance",
    "length_histogram",
    "text_reuse",
    "frequent_texts",
    "loss_curve",
    "against_the_card",
    "log_values",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_uses_the_axes_given_labels_them_and_has_a_title(name, inspection, log):
    ax = new_axes()
    assert draw(name, inspection, log)(ax) is ax
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_title(loc="left")
    assert draw(name, inspection, log)(None) is not ax


def test_stages_are_labelled_where_they_begin_and_not_joined(log):
    import pandas as pd

    both = pd.concat([log, log.assign(stage="stage 2", loss=[0.3, 0.2, None])], ignore_index=True)
    ax = loss_curve({"a": both}, 2)
    assert [text.get_text().strip() for text in ax.texts] == ["stage 1", "stage 2"]
    assert [text.xy[0] for text in ax.texts] == [0, 2]
    raw = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "."]
    assert raw == [[0.5, 0.4], [0.3, 0.2]]
    assert not loss_curve({"a": log}).texts
    assert "this run has none" in against_the_card(log).get_title(loc="left")


def test_the_figure_is_saved_and_chinese_text_has_glyphs(tmp_path, inspection):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        path = save_figure(frequent_texts(inspection), tmp_path, "texts")
    assert path == tmp_path / "figures/texts.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_missing_glyph_would_be_noticed(tmp_path):
    """Without this the test above could pass because nobody warns."""
    ax = new_axes()
    ax.set_title("\U0001f9ff\U00012000")
    with pytest.warns(UserWarning, match="Glyph .* missing"):
        save_figure(ax, tmp_path, "none")


def test_the_font_has_the_characters_of_the_sample(sample):
    from fontTools.ttLib import TTFont

    with TTFont(packaged_font()) as font:
        known = set(font["cmap"].getBestCmap())
    texts = "".join([*sample["sentence_0"], *sample["sentence_1"]])
    assert not {ord(character) for character in texts} - known
