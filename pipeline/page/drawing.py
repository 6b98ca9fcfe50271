"""How figures look, and how they become elements of a page.

Figures are deterministic: no dates, fixed ids, text as outlines. Colours are those of Okabe & Ito (2008), told apart
without colour vision.
"""

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from matplotlib import style
from matplotlib.figure import Figure

INK, MUTED = "#1a1a19", "#74746f"
# colour of the printed figure -> custom property of the page, which has a light and a dark value
PAGE_COLOURS: Mapping[str, str] = {
    INK: "--ink",
    MUTED: "--muted",
    "#d55e00": "--vermilion",
    "#e69f00": "--orange",
    "#009e73": "--green",
    "#0072b2": "--blue",
}
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.0,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.4,
    "legend.frameon": False,
    "legend.fontsize": 7.0,
    "legend.handletextpad": 0.4,
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "path",
    "svg.hashsalt": "nanoed",
    "pdf.fonttype": 42,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@contextmanager
def styled() -> Iterator[None]:
    """The look of all figures while they are drawn or saved."""
    with style.context(["default", _STYLE]):
        yield


def literal(text: object) -> str:
    """A name that others gave, for a label of a figure: what would be mathematics between $ stands there as it is."""
    return str(text).replace("$", r"\$")


def svg(figure: Figure) -> str:
    """The figure on white as an SVG document, the same bytes for the same figure."""
    buffer = io.StringIO()
    with styled():
        nothing = dict.fromkeys(("Date", "Creator"))
        figure.savefig(buffer, format="svg", metadata=nothing, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """The figure as a PDF with its fonts inside, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with styled():
        nothing = dict.fromkeys(("CreationDate", "Creator", "Producer"))
        figure.savefig(buffer, format="pdf", metadata=nothing, bbox_inches="tight", facecolor="none")
    return buffer.getvalue()


def inline_svg(document: str, name: str, description: str) -> str:
    """A document of `svg` as an element for a page: colours and ground are the page's, ids carry the figure's name.

    name : letters, digits and hyphens.  description : read aloud instead of the drawing; plain text.
    """
    element = re.sub(r"<!--.*?-->\s*", "", document[document.index("<svg") :], flags=re.DOTALL)
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'(<g id="patch_1">\s*<path [^>]*?style="fill: )#ffffff', r"\1none", element, count=1)
    for colour, variable in PAGE_COLOURS.items():
        element = element.replace(f": {colour}", f": var({variable})")
    element = re.sub(r'\bid="', f'id="{name}-', element)
    element = re.sub(r'href="#', f'href="#{name}-', element)
    element = re.sub(r"url\(#", f"url(#{name}-", element)
    label = description.translate({ord(c): f"&#{ord(c)};" for c in "&<>\"'"})
    return element.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
