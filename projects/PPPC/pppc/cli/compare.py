"""Say how far the target of a data file is from its source, before anything is trained on it.

    %(prog)s mine.yaml [--model SOURCE_ONLY_RUN] [--images 100]

No label is read. Of images of both domains it compares sizes and colors, and what an encoder makes of them
(EfficientNet-Lite0 with ImageNet weights, or that of --model): how well a classifier tells source from
target, and how far apart the features are. --model is a source-only model, a run's folder, a checkpoint or
a model's folder: its uncertainty and its classes on the target are shown, too.
"""

from statistics import median

import numpy as np
import torch
from tabulate import tabulate

from ..adaptation import domains
from ..arguments import ToolParser, whole_number
from ..data.catalog import list_records
from ..data.data_file import register_data_file
from ..engine.alarms import class_alarms
from ..errors import InputError, printable
from ..prediction import load

#: Pairs of domains that were measured: what this command said of them, and the gain over source-only, mIoU.
#: docs/domains.md tells of each, and of how little a few pairs show.
KNOWN: tuple[tuple[str, float, float, str], ...] = (
    ("CamVid, day to dusk", 1.0, 1.9, "-0.2 to +3.7"),
    ("DRIVE to CHASE_DB1, retinal photographs", 1.0, 2.6, "0 to +2"),
    ("drawn streets, GTA V's look to Cityscapes'", 1.0, 3.4, "+3.5 to +5.0"),
)


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("data", metavar="FILE.yaml", help="the data file (docs/own_images.md)")
    parser.add_argument("--model", metavar="RUN", help="a source-only model")
    parser.add_argument("--images", type=whole_number(2), default=100, metavar="N",
                        help="of each domain at most (default: %(default)s)")  # fmt: skip
    args = parser.parse_args()
    data = register_data_file(args.data)
    if not data.target:
        raise InputError(f"{args.data} has no target: give target, with images: FOLDER")
    images = {"source": _some(data.source, args.images), "target": _some(data.target, args.images)}
    model = load(args.model) if args.model else None
    if model is None:
        network = domains.imagenet_encoder()
    else:
        network = model.model.teacher if model.model.evaluate_teacher else model.model.student
    source, target = (domains.look_at(files, network, role) for role, files in images.items())
    rows = [("images", len(source.sizes), len(target.sizes))]
    for index, side in ((1, "width"), (0, "height")):
        rows.append(
            (f"{side}, median", *(median(s[index] for s in d.sizes) for d in (source, target)))
        )
    means = [np.mean(domain.colors, axis=0) for domain in (source, target)]
    rows += [(f"{name}, %", *values) for name, *values in zip(domains.COLORS, *means)]
    if model is not None:
        seen = [
            domains.predicted(model, files, f"predicting {role}") for role, files in images.items()
        ]
        rows.append(("entropy, % of the highest", *(100 * one.entropy for one in seen)))
        rows += [
            (f"{name}, % of the pixels", *(100 * one.shares[i] for one in seen))
            for i, name in enumerate(model.names)
        ]
    print(tabulate(rows, headers=["", "source", "target"], floatfmt=".3g"))
    auroc = domains.classifier_auroc(np.array(source.features), np.array(target.features))
    distance = domains.relative_distance(source, target)
    print(
        f"\nA classifier tells the domains apart with AUROC {auroc:.2f} (0.5: not at all, 1: every image).\n"
        f"Their features are {distance:.1f} times as far apart as two halves of the source's (Fréchet)."
    )
    if model is not None:
        odd = class_alarms(
            *(torch.from_numpy(one.shares) for one in reversed(seen)), names=model.names
        )
        for words in odd.values():
            print(printable(f"Other than on the source: {'; '.join(words)}"))
    print("\n" + tabulate([("yours", auroc, distance, ""), *KNOWN], floatfmt=".3g", headers=[
        "pair", "AUROC", "distance", "gain of adapting, mIoU"]))  # fmt: skip
    print("\nWhat that means, and how little is known of it: docs/domains.md.")


def _some(names: tuple[str, ...], number: int) -> list[str]:
    """Images of data sets, evenly spaced."""
    files = [record["file_name"] for name in names for record in list_records(name)]
    return [files[i] for i in np.linspace(0, len(files) - 1, min(number, len(files))).astype(int)]
