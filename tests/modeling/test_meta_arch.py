"""The meta-architecture: losses, modes and predictions; its optimizer and its checkpoints."""

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import InputError
from pppc.method.class_weights import log_frequency_class_weights
from pppc.method.labeled_pixels import resize_labels
from pppc.modeling.meta_arch import PPPCSegmentor, pixel_cross_entropy
from pppc.pixel_batch import PixelBatch
from timm.layers import DropPath
from tiny_run import SMALL, default_config
from torch import nn
from torch.utils.data._utils.pin_memory import pin_memory

GOLDEN = REPOSITORY / "tests/golden"


def configuration(*opts: object) -> CfgNode:
    return default_config(*SMALL, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, *opts)


SOURCE_ONLY = ("PPPC.SELF_TRAINING.ENABLED", False, "PPPC.CONTRAST.ENABLED", False)


@pytest.fixture
def model() -> PPPCSegmentor:
    torch.manual_seed(0)
    return build_model(configuration())


def test_cross_entropy_is_the_published_mean_over_all_pixels():
    golden = {name: torch.from_numpy(array) for name, array in
              np.load(GOLDEN / "cross_entropy.npz").items()}  # fmt: skip
    logits, label = golden["logits"], golden["label"].long()
    weight, class_weights = golden["pixel_weight"], golden["class_weight"]
    for expected, arguments in {
        "ce": (None, 255),
        "ce_pixel_weight": (weight, 255),
        "ce_class_weight": (None, 255, class_weights),
        "ce_both": (weight, 255, class_weights),
    }.items():
        loss = pixel_cross_entropy(logits, label, *arguments)
        torch.testing.assert_close(loss, golden[expected], rtol=1e-4, atol=1e-6)


def test_losses_of_each_kind_of_pass(model):
    batch = PixelBatch(255 * torch.rand(2, 3, 64, 64), torch.randint(5, (2, 64, 64)))
    model.train()
    assert model(batch).keys() == {"loss_segmentation"}
    with torch.no_grad():
        embedding = model.teacher(batch.image, logits=False, embedding=True)
    model.prototypes.update(embedding.mean, embedding.log_var, batch.label)
    losses = model(batch, segmentation=False, contrast_scale=1.0)
    assert losses.keys() == {"loss_contrast", "loss_kl"} and losses["loss_contrast"] > 0
    without = model(batch, segmentation=False, contrast_scale=0.0)
    assert without["loss_contrast"] == 0 and without["loss_kl"] == 0


def test_unlabeled_batch_gives_zero_not_nan(model):
    batch = PixelBatch(255 * torch.rand(2, 3, 64, 64), torch.full((2, 64, 64), 255))
    losses = model.train()(batch, contrast_scale=1.0)
    assert all(loss == 0 for loss in losses.values())


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_teacher_s_noise_is_off_and_its_batch_norm_follows_its_key(batch_statistics):
    model = build_model(configuration("PPPC.TEACHER.BATCH_STATISTICS", batch_statistics))
    model.train()
    noise = (nn.modules.dropout._DropoutNd, DropPath)
    modules = list(model.teacher.modules())
    assert [m for m in modules if isinstance(m, noise)]
    assert not any(m.training for m in modules if isinstance(m, noise))
    norms = [m for m in modules if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.training == batch_statistics for m in norms)
    assert any(m.training for m in model.student.modules() if isinstance(m, noise))
    model.eval()
    assert not any(m.training for m in model.modules())


FREQUENCIES = [0.5, 0.3, 0.1, 0.07, 0.03]
CLASS_WEIGHTS = ("PPPC.CLASS_WEIGHTS.FREQUENCIES", FREQUENCIES)


def test_test_weights_multiply_the_predicted_probabilities(model):
    suffix = ("PPPC.CLASS_WEIGHTS.TEST_SUFFIX", "_night.png")
    spread = ("PPPC.CLASS_WEIGHTS.TEST_SPREAD", 0.16)
    weighted = build_model(configuration(*CLASS_WEIGHTS, *spread, *suffix))
    weighted.load_state_dict(model.state_dict())  # weights are not in it
    inputs = [{"image": torch.randint(256, (3, 64, 96)), "height": 16, "width": 24}]
    before, after = (m.eval()(inputs)[0]["sem_seg"].softmax(0) for m in (model, weighted))
    expected = before * log_frequency_class_weights(torch.tensor(FREQUENCIES), 0.16)[:, None, None]
    torch.testing.assert_close(after, expected / expected.sum(0))
    for name, probabilities in (("a_night.png", after), ("a_day.png", before)):
        named = weighted([inputs[0] | {"file_name": name}])[0]["sem_seg"].softmax(0)
        torch.testing.assert_close(named, probabilities)


def test_train_weights_are_in_the_cross_entropy_alone(model):
    weighted = build_model(configuration(*CLASS_WEIGHTS, "PPPC.CLASS_WEIGHTS.TRAIN_SPREAD", 0.5))
    weighted.load_state_dict(model.state_dict())
    image = 255 * torch.rand(1, 3, 64, 64)
    weights = log_frequency_class_weights(torch.tensor(FREQUENCIES), 0.5)
    for train_id in (0, 4):
        batch = PixelBatch(image, torch.full((1, 64, 64), train_id))
        losses = []
        for network in (model, weighted):
            torch.manual_seed(0)
            losses.append(network.train()(batch)["loss_segmentation"].item())
        assert losses[1] / losses[0] == pytest.approx(weights[train_id].item())
    inputs = [{"image": image[0]}]
    torch.testing.assert_close(model.eval()(inputs)[0], weighted.eval()(inputs)[0])


@pytest.mark.parametrize("counted", [1.0, 1e6])
def test_class_balance_divides_what_is_predicted_and_multiplies_what_is_trained(model, counted):
    shares = torch.tensor([0.5, 0.3, 0.2, 0.0, 0.0])  # the last two are never shown: left alone
    factors = torch.tensor([0.5, 0.3, 0.2, 1.0, 1.0])[:, None, None] ** 0.4
    balanced = build_model(configuration(
        "PPPC.CLASS_WEIGHTS.FREQUENCIES", (counted * shares).tolist(),
        "PPPC.CLASS_BALANCE.PREDICTION", 0.4, "PPPC.CLASS_BALANCE.TRAINING", 0.4,
    ))  # fmt: skip
    balanced.load_state_dict(model.state_dict() | {"class_shares": balanced.class_shares})
    inputs = [{"image": torch.randint(256, (3, 64, 96))}]
    plain, divided = (m.eval()(inputs)[0]["sem_seg"].softmax(0) for m in (model, balanced))
    torch.testing.assert_close(divided, plain / factors / (plain / factors).sum(0))

    label = torch.randint(5, (1, 64, 96))
    image = inputs[0]["image"][None].float()
    logits = balanced.student(image, embedding=False).logits
    logits = nn.functional.interpolate(logits, label.shape[1:], mode="bilinear")
    multiplied = logits.softmax(1) * factors
    own = multiplied.gather(1, label[:, None])[:, 0] / multiplied.sum(1)
    balanced.training = True  # itself alone: its networks stay in evaluation mode
    loss = balanced(PixelBatch(image, label))["loss_segmentation"]
    torch.testing.assert_close(loss, -own.log().mean())


def test_uncertainty_is_the_entropy_of_the_scores_with_the_prototypes_seen():
    model = build_model(configuration("TEST.UNCERTAINTY", True, "PPPC.CONTRAST.TEMPERATURE", 0.1))
    model.eval()
    image = 255 * torch.rand(2, 3, 64, 64)
    output = model.student(image, logits=False, embedding=True)
    size = tuple(output.mean.shape[-2:])
    unknown = model.uncertainty(output, size)
    torch.testing.assert_close(unknown["uncertainty"], torch.full((2, *size), np.log(5)).float())

    prototypes = model.prototypes
    prototypes.mean.normal_()
    prototypes.num_updates[:3] += 1
    maps = model.uncertainty(output, size)
    for i, y, x in ((0, 0, 0), (1, size[0] - 1, 1)):
        variance = output.log_var[i, :, y, x].exp() + prototypes.log_var[:3].exp()
        means = torch.nn.functional.normalize(prototypes.mean[:3], dim=1)
        squares = (output.mean[i, :, y, x] - means) ** 2
        score = -0.5 * (squares / variance + variance.log()).mean(1)
        entropy = torch.distributions.Categorical(logits=score / 0.1).entropy()
        torch.testing.assert_close(maps["uncertainty"][i, y, x], entropy)
        torch.testing.assert_close(maps["log_variance"][i, y, x], output.log_var[i, :, y, x].mean())


def test_points_instead_of_gaussians_have_plain_means_for_prototypes_and_no_variance():
    model = build_model(
        configuration("MODEL.PROBABILISTIC_HEAD.LEARN_VARIANCE", False, "PPPC.CONTRAST.SCORE",
                      "cosine", "PPPC.PROTOTYPES.VARIANCE", "count_normalized",
                      "PPPC.PROTOTYPES.CONVENTION", "log_variance")
    ).train()  # fmt: skip
    batch = PixelBatch(255 * torch.rand(2, 3, 64, 64), torch.randint(5, (2, 64, 64)))
    with torch.no_grad():
        mean, log_var = model.teacher(batch.image, logits=False, embedding=True)[1:3]
    model.prototypes.update(mean, log_var, batch.label)
    label = resize_labels(batch.label, mean.shape[-2:])
    expected = torch.stack([mean.movedim(1, -1)[label == c].mean(dim=0) for c in range(5)])
    torch.testing.assert_close(model.prototypes.mean, expected)
    torch.testing.assert_close(model.prototypes.log_var, torch.zeros(5, 8), atol=1e-5, rtol=0)

    losses = model(batch, contrast_scale=1.0)
    losses["loss_contrast"].backward()
    assert all(p.grad is not None for p in model.student.probabilistic_head.parameters())
    assert losses["loss_contrast"] > 0


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2"]), "SEM_SEG_HEAD.IN_FEATURES: .*stage1"),
        (("MODEL.PROBABILISTIC_HEAD.IN_FEATURES", ["res2"]), "PROBABILISTIC_HEAD.IN_FEATURES: "),
        (("MODEL.SEM_SEG_HEAD.NORM", "GN"), "NORM is 'GN'.*16 channels.*'BN'"),
    ],
)
def test_a_decoder_that_does_not_fit_the_encoder_is_an_error(opts, message):
    with pytest.raises(InputError, match=message):
        build_model(configuration(*opts))


def test_a_save_that_fails_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    checkpointer = StrictCheckpointer(build_model(configuration(*SOURCE_ONLY)), str(tmp_path))
    checkpointer.save("model_best")
    before = (tmp_path / "model_best.pth").read_bytes()

    def full_disk(_, file):
        file.write(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("fvcore.common.checkpoint.torch.save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        checkpointer.save("model_best")
    assert (tmp_path / "model_best.pth").read_bytes() == before
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_best.pth")


@pytest.mark.parametrize(
    ("key", "missing"), [("TEST.EVALUATE_TEACHER", "teacher"), ("TEST.UNCERTAINTY", "embedding")]
)
def test_predicting_with_what_the_checkpoint_lacks_is_refused(key, missing, tmp_path):
    StrictCheckpointer(build_model(configuration(*SOURCE_ONLY)), str(tmp_path)).save("source_only")
    model = build_model(configuration(key, True))
    with pytest.raises(ValueError, match=rf"source_only\.pth holds no {missing}: set {key} False"):
        StrictCheckpointer(model, trained=True).load(str(tmp_path / "source_only.pth"))


def test_loaders_pin_every_tensor_of_a_batch(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    pinned = pin_memory(PixelBatch(torch.zeros(1, 3, 2, 2), weight=torch.ones(1, 2, 2)))
    assert pinned.image.unique() == 1 and pinned.weight.unique() == 2 and pinned.label is None
