"""The report's figures, as SVG in the page's own colors, so that they follow its light or dark look."""

import logging
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from html import escape
from io import StringIO

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from ..data.data_file.overview import draw_class_shares
from .embeddings import Points

# Colors that stand for the page's: of text, lines, and series.
INK, RULE = "#010203", "#010204"
SERIES = ("#010205", "#010206", "#010207", "#010208")
VARIABLES = dict(zip((INK, RULE, *SERIES), ("ink", "rule", "accent", "second", "third", "fourth")))
STYLE = {
    "svg.fonttype": "none",  # the page's font, and text that can be read out and searched
    "text.parse_math": False,  # class names may hold a dollar sign
    "axes.unicode_minus": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": matplotlib.cycler(color=SERIES),
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
CELLS = 30  # classes up to which a confusion matrix names its cells


def style():
    """A context in which figures are made."""
    return matplotlib.rc_context(STYLE)


def svg(figure: Figure, title: str) -> Markup:
    """A figure for the page; ``title`` is what it shows, for those who do not see it."""
    text = StringIO()
    with warnings.catch_warnings(), style():
        warnings.simplefilter("ignore")  # glyphs that the font lacks are the browser's
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        matplotlib.rcParams["svg.hashsalt"] = title  # the names within differ from other figures'
        figure.savefig(
            text, format="svg", transparent=True, bbox_inches="tight",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )  # fmt: skip
    found = re.search(r"<svg.*", text.getvalue(), re.DOTALL)[0]
    for color, name in VARIABLES.items():
        found = found.replace(color, f"var(--{name})")
    # Names of parts, unique in the page.
    prefix = f"f{zlib.crc32(title.encode()):x}"
    found = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", found)
    return Markup(found.replace("<svg ", f'<svg role="img" aria-label="{escape(title)}" ', 1))


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
    y_label: str,
    mark: float | None = None,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Lines by name over the iterations; ``mark`` is one to point at."""
    with style():
        figure = Figure(figsize=(6.4, 2.6))
        axes = figure.add_subplot()
        for name, (x, y) in series.items():
            axes.plot(x, y, label=name, marker="o" if len(x) < 30 else "", markersize=3)
        if mark is not None:
            axes.axvline(mark, color=INK, linestyle=":", linewidth=1.2)
        axes.set(xlabel="iteration", ylabel=y_label)
        if limits:
            axes.set_ylim(*limits)
        if len(series) > 1:
            axes.legend(loc="best")
        return svg(figure, title)


def class_shares(shares: Mapping[str, Sequence[float]], classes: Sequence[str]) -> Markup:
    """Each class's share of the pixels, in the source's labels and as predicted."""
    with style():
        figure = draw_class_shares(shares, classes, "share of the pixels, %")
        return svg(figure, "Share of the pixels that each class has")


def confusion(matrix: np.ndarray, classes: Sequence[str], title: str) -> Markup:
    """Of each label's pixels the share that is predicted as each class; rows are labels."""
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    number = len(classes)
    side = min(8.0, 1.6 + 0.3 * number)
    with style(), matplotlib.rc_context({"axes.grid": False}):
        figure = Figure(figsize=(side, side))
        axes = figure.add_subplot()
        for row, column in np.argwhere(share >= 0.005):
            axes.add_patch(
                matplotlib.patches.Rectangle(
                    (column - 0.5, row - 0.5),
                    1,
                    1,
                    color=SERIES[0],
                    alpha=float(share[row, column]),
                    linewidth=0,
                )
            )
            if number <= CELLS:
                axes.text(
                    column,
                    row,
                    f"{100 * share[row, column]:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7,
                )
        axes.set(xlim=(-0.5, number - 0.5), ylim=(number - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted as", ylabel="label")
        size = 8 if number <= CELLS else 5
        axes.set_xticks(range(number), classes, rotation=90, fontsize=size)
        axes.set_yticks(range(number), classes, fontsize=size)
        return svg(figure, title)


def reliability(bins: Mapping[str, Mapping[str, Sequence[float]]]) -> Markup:
    """How often predictions of a confidence are right, and how many there are, by model."""
    with style():
        figure = Figure(figsize=(4.2, 3.6))
        axes, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
        axes.plot([0, 1], [0, 1], color=INK, linestyle=":", linewidth=1)
        for color, (name, found) in zip(SERIES, bins.items()):
            how = {"color": color, "marker": "o", "markersize": 3}
            axes.plot(found["confidence"], found["accuracy"], label=name, **how)
            below.plot(found["confidence"], found["share"], **how)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that is right")
        axes.legend(loc="upper left")
        below.set(xlabel="confidence", ylabel="of all pixels", ylim=(0, None))
        return svg(figure, "Reliability: of the pixels of a confidence, the share that is right")


def risk_coverage(lines: Sequence[tuple[str, str, Sequence[float], Sequence[float]]]) -> Markup:
    """Errors among the pixels that are left when the most uncertain are rejected: model, signal, x and y."""
    models = list(dict.fromkeys(model for model, *_ in lines))
    with style():
        figure = Figure(figsize=(4.2, 3.6))
        axes = figure.add_subplot()
        for model, signal, coverage, risk in lines:
            color = SERIES[models.index(model) % len(SERIES)]
            line = "-" if signal == "confidence" else "--"
            axes.plot(coverage, risk, label=f"{model}, {signal}", color=color, linestyle=line)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.set(
            xlabel="coverage: share of the pixels that is kept", ylabel="risk: errors among them"
        )
        axes.legend(loc="upper left")
        return svg(figure, "Risk and coverage: errors among the pixels that are kept")


def scatter(groups: Sequence[Points], title: str, colors: Sequence[Sequence[int]]) -> Markup:
    """Embeddings: pixels small, the more uncertain the larger; prototypes large and with an edge."""
    of_classes = np.array(colors) / 255
    most = max(float(group.uncertainty.max(initial=0)) for group in groups) or 1.0
    with style(), matplotlib.rc_context({"axes.grid": False}):
        figure = Figure(figsize=(6.4, 4.6))
        axes = figure.add_subplot()
        for group in groups:
            prototypes = group.name == "prototypes"
            axes.scatter(
                *group.places.T,
                s=130 if prototypes else 5 + 50 * group.uncertainty / most,
                c=of_classes[group.classes],
                marker=group.marker,
                edgecolors=INK,
                linewidths=0.9 if prototypes else 0.15,
                alpha=1 if prototypes else 0.8,
            )
            axes.scatter([], [], s=40, c=INK, marker=group.marker, label=group.name)
        axes.set(xticks=[], yticks=[])
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
        return svg(figure, title)
