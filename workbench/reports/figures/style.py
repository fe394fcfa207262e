"""The look of all figures, and the one verb that shows what a notebook has found."""

import io
import logging
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import pandas as pd
from cycler import cycler
from markupsafe import Markup
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.files import replacing
from workbench.run_folder import RunFolder

BLUE, ORANGE, GREEN, GREY, RED = "#0072B2", "#E69F00", "#009E73", "#8A8F98", "#D55E00"
CYCLE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")
VERDICTS = {"green": GREEN, "amber": ORANGE, "red": RED}
MAX_TITLE = 8.5  # characters of a title per inch of the figure's width


def show(*parts: Any, run_dir: str | Path = "", name: str = "") -> None:
    """Show figures, tables and sentences (a text is Markdown) one below the other.

    With a name the figure is saved as well, as `figures/<name>.png` of the run `run_dir`.

    Example:
        >>> show("**Half of the pairs are positive.**")  # doctest: +SKIP
    """
    from IPython.display import HTML, Image, Markdown, display

    for part in parts:
        if isinstance(part, str):
            display(Markdown(part))
        elif isinstance(part, Axes | Figure) and (figure := part.get_figure(root=True)):
            title = " ".join(ax.get_title(loc="left") for ax in figure.axes) or name
            data = _png(figure)
            if name:
                with replacing(RunFolder(run_dir).figure(name)) as temporary:
                    temporary.write_bytes(data)
            display(Image(data=data, alt=title, width=720))
        elif isinstance(part, pd.DataFrame):
            if not part.empty:  # the sentence says that there is nothing
                display(HTML(table_html(part)))
        else:
            display(part)


def verdict_card(verdict: Mapping[str, str]) -> str:
    """The verdict on a vocabulary as a coloured box, in HTML."""
    return Markup(
        '<div class="verdict {0}" style="border-left:6px solid {1};padding:.6rem 1rem;'
        'margin:.6rem 0"><b>Vocabulary: {0}.</b> {2} <b>{3}</b></div>'
    ).format(verdict["colour"], VERDICTS[verdict["colour"]], verdict["why"], verdict["action"])


def table_html(table: pd.DataFrame) -> str:
    """A table as HTML, all texts escaped: left-aligned, counts without decimals, values with three.

    Long words break, so that no table is wider than its page; an absent value is an empty cell.
    """

    def number(value: float) -> str:
        return f"{value:.3f}" if abs(value) >= 0.001 or not value else f"{value:.2g}"

    def shown(column: pd.Series) -> pd.Series:
        whole = pd.api.types.is_float_dtype(column) and (column.dropna() % 1 == 0).all()
        small = whole and column.abs().max() < 2**53
        return (column.astype("Int64") if small else column).astype(object)

    cells = table.apply(shown).where(table.notna(), "")
    html = cells.to_html(border=0, justify="left", float_format=number)
    look = 'style="text-align: left; overflow-wrap: anywhere"'
    return html.replace("<td>", f"<td {look}>").replace("<th>", f"<th {look}>")


def new_axes(ax: Axes | None = None, size: tuple[float, float] = (7.5, 3.4)) -> Axes:
    """`ax` itself, or the axes of a new figure of `size` inches."""
    use_style()
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


@cache
def use_style() -> str:
    """Set our look for all figures, with a font that has Chinese characters; returns its name."""
    # The Chinese font has no bold weight; titles fall back to its regular one without complaint.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    font_manager.fontManager.addfont(packaged_font())
    name = font_manager.FontProperties(fname=packaged_font()).get_name()
    matplotlib.rcParams.update(
        {
            "font.family": ["DejaVu Sans", name],
            "axes.unicode_minus": False,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#E5E7EB",
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.prop_cycle": cycler(color=CYCLE),
            "figure.dpi": 110,
            "legend.frameon": False,
        }
    )
    return name


def packaged_font() -> Path:
    """The Noto Sans SC that the package zhplot ships, for Chinese text; its code is not imported.

    Raises:
        FileNotFoundError: the package is not installed as it should be.
    """
    for file in metadata.files("zhplot") or []:
        if file.name == "NotoSansSC-Regular.ttf":
            return Path(str(file.locate()))
    raise FileNotFoundError("no font with Chinese characters: reinstall the package zhplot")


def _png(figure: Figure) -> bytes:
    for ax in figure.axes:  # a long title goes on in a second line, before the right edge
        lines = wrap(ax.get_title(loc="left"), int(MAX_TITLE * figure.get_figwidth()))
        if len(lines) > 1:  # a new title loses the distance that it was given
            ax.set_title("\n".join(lines))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()
