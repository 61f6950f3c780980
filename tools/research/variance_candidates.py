#!/usr/bin/env python3
"""To what the embedding's variance could be fitted so that it tells errors (docs/study.md).

    tools/research/variance_candidates.py output/study/camvid/recommended-1 [MORE RUNS]

Of trained runs with the contrast and with held-out source images (DATASETS.HELD_OUT). Their networks stay as
they are. On the features that the variance's branch takes, heads of one hidden layer are fitted, each
to something that is wrong now and then:

    distance                of a source pixel's mean to its prototype, by a Gaussian's likelihood
    margin                  of a source pixel's score with its prototype above the best other one
    true-class probability  of a source pixel (ConfidNet, arXiv 1910.04851); these three strongly augmented
    attenuation             deviation of the class scores, on held-out source images (arXiv 1703.04977)
    error                   of held-out source images
    disagreement            of the teacher and the strongly augmented student, on target images
    target labels           errors of the other half of the test images: what such a head can reach at most

Printed is the AUROC of "this position is wrong" on the test set, in percent, for each run: of the head alone,
of one with the branch's two BatchNorms, and of the first with the softmax's entropy, by a logistic
regression fitted to held-out source images, other ones than "attenuation" and "error" are fitted to.
Positions are those of the embedding.
"""

import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import pppc
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from pppc.arguments import ToolParser, whole_number
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.data import label_reader
from pppc.data.catalog import dataset_records, source_records, with_intensities
from pppc.data.mapper import TestMapper
from pppc.engine import Trainer
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.errors import InputError, run_tool
from pppc.method.gaussian import SCORES
from pppc.method.labeled_pixels import resize_labels
from pppc.modeling.decode_heads import resize
from pppc.modeling.meta_arch import PPPCSegmentor
from pppc.modeling.network import SegmentationNetwork
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tabulate import tabulate
from torch import Tensor, nn

POSITIONS = 256  # of each image
HIDDEN, BATCH = 64, 1024

# Of P positions: "features" (P, F), "scores" (P, C), "mean" and "log_var" (P, D), "label" (P,), and what is
# derived of them.
Positions = dict[str, Tensor]


@torch.no_grad()
def look(network: SegmentationNetwork, image: Tensor, label: Tensor | None = None) -> Positions:
    """What a network says of images ``(N, 3, H, W)``, at all positions of the embedding."""
    seen: list[dict[str, Tensor]] = []
    embedding = network.probabilistic_head
    hook = embedding.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    output = network(image, embedding=True)
    hook.remove()
    stages = [resize(seen[0][name], output.mean) for name in embedding.in_features]
    maps = {
        "features": torch.cat(stages, 1),
        "scores": resize(output.logits, output.mean),
        "mean": output.mean,
        "log_var": output.log_var,
    }
    found = {name: values.movedim(1, -1).flatten(0, 2).float() for name, values in maps.items()}
    if label is not None:
        found["label"] = resize_labels(label, output.mean.shape[-2:]).flatten()
    return found


def derived(segmentor: PPPCSegmentor, found: Positions) -> Positions:
    """Positions of classes that have a prototype, with all that heads are fitted to or compared with."""
    prototypes = segmentor.prototypes
    labeled = torch.isin(found["label"], prototypes.seen.nonzero())
    found = {name: values[labeled] for name, values in found.items()}
    own = found["label"][:, None]
    probability = found["scores"].softmax(1)
    scores = SCORES[segmentor.contrast.score](
        found["mean"], found["log_var"], prototypes.mean, prototypes.log_var
    ).masked_fill(~prototypes.seen, -torch.inf)
    of_own = scores.gather(1, own)[:, 0]
    found["margin"] = of_own - scores.scatter(1, own, -torch.inf).amax(1)
    found["distance"] = (found["mean"] - prototypes.mean[found["label"]]).square().sum(1)
    found["probability"] = probability.gather(1, own)[:, 0]
    found["wrong"] = (found["scores"].argmax(1) != found["label"]).float()
    found["entropy"] = -probability.xlogy(probability).sum(1)
    found["log-variance"] = found["log_var"].mean(1)
    return found


def together(parts: list[Positions]) -> Positions:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def drawn(found: Positions, number: int) -> Positions:
    """So many of them, or all."""
    chosen = torch.randperm(len(found["features"]))[:number]
    return {name: values[chosen] for name, values in found.items()}


@torch.no_grad()
def of_labeled_images(
    cfg: CfgNode, segmentor: PPPCSegmentor, name: str, records: Sequence[dict]
) -> list[Positions]:
    """Of each image of a data set."""
    mapper, reader, found = TestMapper(cfg), label_reader(cfg, name), []
    for record in records:
        sample = mapper(record)
        label = torch.from_numpy(reader.label_of(sample)).long()[None].to(segmentor.device)
        image = sample["image"][None].to(segmentor.device).float()
        found.append(derived(segmentor, look(segmentor.student, image, label)))
    return found


@torch.no_grad()
def of_training(loop: AdaptationLoop, batches: int) -> tuple[Positions, Positions]:
    """Of strongly augmented source images, and of target images with the "disagreement" of their labels."""
    segmentor, of_source, of_target = loop.segmentor, [], []
    stream = iter(loop.data_loader)
    for loop.iter in range(batches):
        source, target = (batch.to(segmentor.device) for batch in next(stream))
        loop.before_step()
        strong = loop.dacs_mixing.strong
        found = derived(segmentor, look(segmentor.student, strong(source).image, source.label))
        of_source.append(drawn(found, POSITIONS * len(source)))
        target = loop.crop_target(target)
        found = look(segmentor.student, target.image)
        student = look(segmentor.student, strong(target).image)["scores"].argmax(1)
        teacher = look(segmentor.teacher, target.image)["scores"].argmax(1)
        found["disagreement"] = (teacher != student).float()
        of_target.append(drawn(found, POSITIONS * len(target)))
    return together(of_source), together(of_target)


def head(channels: int, batch_norm: bool) -> nn.Sequential:
    """Features ``(P, F)`` to ``(P, 1)``, with the normalizations of the variance's branch or without."""
    last = [nn.BatchNorm1d(1, affine=False), Scale()] if batch_norm else []
    hidden = [nn.BatchNorm1d(HIDDEN)] if batch_norm else []
    return nn.Sequential(
        nn.Linear(channels, HIDDEN), *hidden, nn.ReLU(), nn.Linear(HIDDEN, 1), *last
    )


class Scale(nn.Module):
    """The branch's one factor and one constant."""

    def __init__(self):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(1)), nn.Parameter(torch.zeros(1))

    def forward(self, values: Tensor) -> Tensor:
        return self.gamma * values + self.beta


def likelihood(output: Tensor, of: Positions) -> Tensor:
    return 0.5 * (of["distance"] * torch.exp(-output) + output).mean()


def attenuation(output: Tensor, of: Positions) -> Tensor:
    """Of scores with Gaussian noise of the predicted deviation, ten draws (Kendall and Gal, section 3.3)."""
    scores, deviation = of["scores"], torch.exp(0.5 * output)[:, None]
    draws = [scores + deviation * torch.randn_like(scores) for _ in range(10)]
    own = of["label"][:, None]
    right = torch.stack([draw.log_softmax(1).gather(1, own)[:, 0] for draw in draws])
    return -(right.logsumexp(0) - np.log(len(draws))).mean()


def to(name: str, sign: float = 1.0) -> Callable[[Tensor, Positions], Tensor]:
    """Cross-entropy to a share; a head that is high where it is low has ``sign`` -1."""
    return lambda output, of: F.binary_cross_entropy_with_logits(sign * output, of[name])


def margin(output: Tensor, of: Positions) -> Tensor:
    scale = of["margin"].abs().median()
    return F.smooth_l1_loss(-output, of["margin"] / scale)


# What each is fitted to: positions of which images, and a loss of the head's output, which is to be
# high where the model errs.
CANDIDATES: dict[str, tuple[str, Callable[[Tensor, Positions], Tensor]]] = {
    "distance": ("source", likelihood),
    "margin": ("source", margin),
    "true-class probability": ("source", to("probability", -1.0)),
    "attenuation": ("held out", attenuation),
    "error": ("held out", to("wrong")),
    "disagreement": ("target", to("disagreement")),
}
CEILING = "target labels"


def fit(
    of: Positions, loss: Callable, steps: int, batch_norm: bool = False
) -> Callable[[Positions], np.ndarray]:
    """A head fitted to positions in so many steps; what it says of others."""
    torch.manual_seed(0)
    mean, std = of["features"].mean(0), of["features"].std(0) + 1e-6
    network = head(of["features"].shape[1], batch_norm).to(mean.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    for _ in range(steps):
        chosen = torch.randint(len(of["features"]), (BATCH,), device=mean.device)
        part = {name: values[chosen] for name, values in of.items()}
        value = loss(network((part["features"] - mean) / std)[:, 0], part)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    network.eval()

    @torch.no_grad()
    def say(other: Positions) -> np.ndarray:
        return network((other["features"] - mean) / std)[:, 0].cpu().numpy()

    return say


def auroc(values: np.ndarray, of: Positions) -> float:
    return 100 * roc_auc_score(of["wrong"].cpu().numpy(), values)


def with_entropy(values: list[np.ndarray], of: Positions) -> np.ndarray:
    return np.stack([of["entropy"].cpu().numpy(), *values], 1)


def trained_loop(cfg: CfgNode, storage: EventStorage) -> AdaptationLoop:
    """The loop of a configuration, with the model of MODEL.WEIGHTS, student and teacher."""
    loop = Trainer(cfg)._trainer
    loop.storage = storage
    loop.segmentor.eval()
    StrictCheckpointer(loop.segmentor, trained=True).load(cfg.MODEL.WEIGHTS)
    loop.register_hooks(loop.hooks())
    return loop


def measure(run: str, batches: int, steps: int) -> dict[str, list[float]]:
    """Of each candidate the AUROC alone, with BatchNorm, and with the softmax's entropy."""
    cfg = pppc.load_config(f"{run}/config.yaml", ["MODEL.WEIGHTS", f"{run}/model_final.pth"])
    if not (cfg.PPPC.CONTRAST.ENABLED and cfg.DATASETS.HELD_OUT):
        raise InputError(f"{run} has no contrast or no held-out source images (DATASETS.HELD_OUT)")
    with tempfile.TemporaryDirectory() as folder, EventStorage() as storage:
        cfg.OUTPUT_DIR = folder
        loop = trained_loop(cfg, storage)
        segmentor = loop.segmentor
        source, target = of_training(loop, batches)

    def drawn_of(cfg: CfgNode, name: str, records: Sequence[dict]) -> list[Positions]:
        return [drawn(part, POSITIONS) for part in of_labeled_images(cfg, segmentor, name, records)]

    held_out, test = [], []
    for name in cfg.DATASETS.TRAIN:
        held_out += drawn_of(cfg, name, source_records(cfg, name)[1])
    cfg = with_intensities(cfg, segmentor)
    for name in cfg.DATASETS.TEST:
        test += drawn_of(cfg, name, dataset_records(cfg, name))
    if min(len(held_out), len(test)) < 2:
        raise InputError(
            f"{run} has {len(held_out)} held-out source and {len(test)} test images (DATASETS.TEST): two of "
            "each are needed"
        )
    # The second half fits the combinations.
    fitted_to = {"source": source, "target": target, "held out": together(held_out[::2])}
    # Neighboring images may be of one sequence.
    middle = len(test) // 2
    rest, halves = together(held_out[1::2]), (together(test[:middle]), together(test[middle:]))
    everything = together(list(halves))
    found = {
        "softmax's entropy": [auroc(everything["entropy"].cpu().numpy(), everything)],
        "log-variance as trained": [auroc(everything["log-variance"].cpu().numpy(), everything)],
    }
    said: list[tuple[np.ndarray, np.ndarray]] = []

    def combined(parts: list[tuple[np.ndarray, np.ndarray]]) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(with_entropy([part[0] for part in parts], rest), rest["wrong"].cpu().numpy())
        given = with_entropy([part[1] for part in parts], everything)
        return auroc(model.decision_function(given), everything)

    for name, (images, loss) in CANDIDATES.items():
        say = fit(fitted_to[images], loss, steps)
        said.append((say(rest), say(everything)))
        normalized = fit(fitted_to[images], loss, steps, batch_norm=True)
        found[name] = [
            auroc(said[-1][1], everything),
            auroc(normalized(everything), everything),
            combined(said[-1:]),
        ]
    found["all of them"] = [np.nan, np.nan, combined(said)]
    crosswise = [
        np.concatenate(
            [fit(halves[1 - half], to("wrong"), steps, batch_norm)(halves[half]) for half in (0, 1)]
        )
        for batch_norm in (False, True)
    ]
    found[CEILING] = [auroc(values, everything) for values in crosswise]
    return found


def main() -> None:
    parser = ToolParser(__doc__)
    parser.add_argument("runs", nargs="+", help="folders of runs")
    parser.add_argument("--batches", type=whole_number(1), default=100, help="of training images")
    parser.add_argument("--steps", type=whole_number(1), default=1000, help="of each fit")
    args = parser.parse_args()
    found = [measure(run, args.batches, args.steps) for run in args.runs]
    table = []
    for name in found[0]:
        columns = zip(*(of_run[name] for of_run in found))
        cells = (" / ".join(f"{value:.1f}" for value in cell) for cell in columns)
        table.append([name, *("" if "nan" in cell else cell for cell in cells)])
    headers = ["fitted to", "AUROC", "with BatchNorm", "with the softmax's entropy"]
    print(tabulate(table, headers, tablefmt="pipe", disable_numparse=True))


if __name__ == "__main__":
    run_tool(main)
