#!/usr/bin/env python3
"""Choose the power of PPPC.CLASS_BALANCE on source images that a run did not train on.

    tools/train_net.py --config-file FILE.yaml DATASETS.HELD_OUT 5 OUTPUT_DIR RUN
    tools/choose_class_balance.py --config-file RUN/config.yaml MODEL.WEIGHTS RUN/model_final.pth

The run should be a source-only one: what it says of the held-out images depends on no target. For
each power the table has the mIoU where the predicted probabilities are divided by the source's class
shares to that power. The last lines are the keys with the best one.
"""

import argparse
import itertools

import pppc
import torch
from pppc.arguments import ToolParser
from pppc.checkpoints.trained_model import trained_model
from pppc.data import build_test_loader, label_reader
from pppc.data.catalog import source_records
from pppc.errors import InputError, run_tool
from pppc.evaluation import MeanIoUEvaluator
from pppc.method.class_weights import log_frequencies
from tabulate import tabulate

POWERS = [number / 10 for number in range(11)]


@torch.no_grad()
def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE ...")
    args = parser.parse_args()
    cfg = pppc.load_config(args.config_file, args.opts)
    if not cfg.DATASETS.HELD_OUT:
        raise InputError(
            "DATASETS.HELD_OUT is 0, so the run has seen all source images: train one with "
            "DATASETS.HELD_OUT 5, and give its config.yaml"
        )
    cfg.PPPC.CLASS_BALANCE.PREDICTION = 1.0
    model = trained_model(cfg)
    prior = log_frequencies(model.class_shares).cpu().view(-1, 1, 1)
    held_out = {name: source_records(cfg, name)[1] for name in cfg.DATASETS.TRAIN}
    reader = label_reader(cfg, cfg.DATASETS.TRAIN[0])
    evaluators = {power: MeanIoUEvaluator(reader) for power in POWERS}
    loaders = [build_test_loader(cfg, name, records) for name, records in held_out.items()]
    for inputs in itertools.chain(*loaders):
        scores = model(inputs)[0]["sem_seg"].cpu()
        for power, evaluator in evaluators.items():
            evaluator.process(inputs, [{"sem_seg": scores + (1 - power) * prior}])
    means = {
        power: evaluator.evaluate()["sem_seg"]["mIoU"] for power, evaluator in evaluators.items()
    }
    best = max(means, key=means.get)
    print(tabulate(means.items(), ["power", "mIoU"], tablefmt="pipe", floatfmt=".1f"))
    number = sum(map(len, held_out.values()))
    print(f"{number} held-out images of {', '.join(held_out)}. In training:")
    print(f"    PPPC.CLASS_BALANCE.PSEUDO_LABELS {best}")
    print("or in prediction:")
    print(f"    PPPC.CLASS_BALANCE.PREDICTION {best}")


if __name__ == "__main__":
    run_tool(main)
