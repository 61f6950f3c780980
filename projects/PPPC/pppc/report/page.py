"""The report's page, and its numbers as JSON and CSV beside it."""

import csv
import json
import logging
import math
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..errors import InputError
from ..files import user_path, write_atomically
from .content import gather
from .looks import Picture
from .runs import read_runs

logger = logging.getLogger(__name__)

GENERATOR = '<meta name="generator" content="pppc report">'


def write_report(
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike | None = None,
    images: int = 24,
    embedding: str = "pca",
) -> Path:
    """Write the report of runs; returns the page, beside which lie its numbers as .json and .csv.

    It is about the first run that was adapted. A source-only run among the others, or the one that it began
    with, is what it is compared with.

    Args:
        paths: see :func:`pppc.report.runs.read_runs`.
        output: of the page, NAME.html; None: report.html in the folder of the first path.
        images: of the test set, or of the target, that both models predict; 0: none, and no model is loaded.
        embedding: "pca" or "tsne", see :func:`pppc.report.embeddings.embed`; "none": leave it out.

    Raises:
        InputError: a path is no run, or ``output`` is a file of something else.
    """
    runs = read_runs(paths)
    first = Path(user_path(os.fspath(paths[0]), "the run"))
    page = first / "report.html" if first.is_dir() else runs[0].path / "report.html"
    if output:
        page = Path(user_path(os.fspath(output), "--output"))
    _see_writable(page)
    content = gather(runs, images, embedding)
    environment = Environment(
        loader=PackageLoader("pppc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    text = environment.get_template("report.html").render(vars(content))
    write_atomically(page, text.encode("utf-8", "backslashreplace"))
    numbers = _plain(content.numbers())
    write_atomically(page.with_suffix(".json"), json.dumps(numbers, indent=1).encode())
    write_atomically(page.with_suffix(".csv"), _table(numbers).encode())
    return page


def try_report(paths: Sequence[str | os.PathLike], **how: object) -> None:
    """:func:`write_report` of what is finished, and stays so whatever goes wrong here: that is logged."""
    try:
        logger.info("Report: %s", write_report(paths, **how))
    except InputError as error:
        logger.warning("There is no report: %s", error)
    except Exception:
        logger.exception("There is no report, by a fault of the program:")


def _see_writable(page: Path) -> None:
    if page.suffix != ".html":
        raise InputError(f"{page} is no .html: give --output the name of the page, NAME.html")
    if not page.parent.is_dir():
        raise InputError(f"{page.parent} is no folder: make it first, or choose another --output")
    ours = page.is_file() and GENERATOR in page.read_text(errors="replace")[:2000]
    for path in (page, page.with_suffix(".json"), page.with_suffix(".csv")):
        if path.exists() and not ours:
            raise InputError(f"{path} exists and is of no report: choose another --output")


def _data_uri(picture: Picture) -> str:
    return f"data:{picture.mime};base64,{b64encode(picture.content).decode()}"


def _plain(value: object) -> object:
    """As JSON takes it: a number that is none is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(numbers: Mapping[str, object]) -> str:
    """A row for each number: where it stands in the JSON, a part a column, and its value."""
    rows = [[*place, value] for place, value in _leaves(numbers) if isinstance(value, int | float)]
    width = max((len(row) for row in rows), default=1) - 1
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*(f"part_{i}" for i in range(1, width + 1)), "value"])
    writer.writerows([*row[:-1], *[""] * (width + 1 - len(row)), row[-1]] for row in rows)
    return text.getvalue()


def _leaves(value: object, place: tuple = ()) -> Iterator[tuple[tuple, object]]:
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, one in items:
            yield from _leaves(one, (*place, key))
    else:
        yield place, value
