"""Write one page on runs: did it work, which checkpoint to take, and where not to trust it.

    %(prog)s RUN [RUN ...] [--images N] [--embedding tsne] [--output PAGE.html]

A RUN is a run's folder, one of its checkpoints, or what `pppc adapt` wrote. The page is about the first one
that was adapted, beside a source-only run: one of those given, or the one that it began with or names as
TEST.SELECTION.SOURCE_MODEL. With labels (DATASETS.TEST) it tells what adapting gained; without, what speaks
against it. Runs of several seeds are summed up.

The page is report.html in the first RUN, needs no network, and has its numbers beside it as report.json and
report.csv. A training writes it at its end, by TEST.REPORT_IMAGES.
"""

from collections.abc import Sequence

from ..arguments import ToolParser, whole_number
from ..errors import printable
from ..report import write_report
from ..report.embeddings import METHODS


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a checkpoint")
    parser.add_argument(
        "--images", type=whole_number(0), default=24,
        help="that the models predict, of the test set or of the target; 0: no model is loaded "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--embedding", choices=(*METHODS, "none"), default="pca",
        help="how pixels' embeddings and prototypes are drawn, by scikit-learn; tsne takes longer "
        "(default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--output", metavar="PAGE.html", help="default: report.html in the first RUN"
    )
    args = parser.parse_args(arguments)
    page = write_report(args.runs, args.output, args.images, args.embedding)
    print(printable(f"Report: {page}"))
