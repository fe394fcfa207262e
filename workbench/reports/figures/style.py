"""The figures: each function draws on the axes it is given, labels them, and returns them."""

import logging
from functools import cache
from importlib import metadata
from pathlib import Path

import matplotlib
from cycler import cycler
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.files import project_path, replacing

BLUE, ORANGE, GREEN, GREY, RED = "#0072B2", "#E69F00", "#009E73", "#8A8F98", "#D55E00"


def packaged_font() -> Path:
    """The Noto Sans SC that the package zhplot ships, for Chinese text; its code is not imported.

    Raises:
        FileNotFoundError: the package is not installed as it should be.
    """
    for file in metadata.files("zhplot") or []:
        if file.name == "NotoSansSC-Regular.ttf":
            return Path(str(file.locate()))
    raise FileNotFoundError("no font with Chinese characters: install the package zhplot")


CYCLE = (BLUE, ORANGE, GREEN, RED, "#CC79A7", "#56B4E9")


CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "PingFang SC",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Micro Hei",
)


@cache
def use_style() -> str:
    """Set our look for all figures, with a font that has Chinese characters; returns its name."""
    # The Chinese font has no bold weight; titles fall back to its regular one without complaint.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    known = {font.name for font in font_manager.fontManager.ttflist}
    name = next((font for font in CHINESE_FONTS if font in known), None) or _packaged_font()
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


def _packaged_font() -> str:
    path = str(packaged_font())
    font_manager.fontManager.addfont(path)
    return font_manager.FontProperties(fname=path).get_name()


def new_axes(ax: Axes | None = None, size: tuple[float, float] = (7.5, 3.4)) -> Axes:
    """`ax` itself, or the axes of a new figure of `size` inches."""
    use_style()
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


def show_figure(ax: Axes, run_dir: str | Path, name: str) -> Path:
    """Save the figure of `ax` as `figures/<name>.png` in the run folder and show it."""
    from IPython.display import Image, display

    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("these axes belong to no figure")
    path = project_path(run_dir) / "figures" / f"{name}.png"
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    display(Image(data=path.read_bytes(), alt=ax.get_title(loc="left") or name, width=720))
    return path


def _colors(count: int) -> list[str]:
    return [CYCLE[place % len(CYCLE)] for place in range(count)]


def plain(text: str, length: int = 24) -> str:
    """A text for a figure: cut to `length` characters, no formula started by a dollar sign."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.replace("$", r"\$")
