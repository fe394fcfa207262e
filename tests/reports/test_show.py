"""The one verb of the notebooks: what it shows, and what it saves."""

import re

import pandas as pd
import pytest
from IPython.display import HTML, Image, Markdown
from matplotlib.figure import Figure

from workbench.reports.figures import style


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
    assert html.count("text-align: left") == 1 + html.count("<th ") + html.count("<td ")
