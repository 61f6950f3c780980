"""A run that calibrates its models without target labels, and what uses them."""

import numpy as np
import pppc
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.checkpoints.trained_model import trained_model
from pppc.data import label_reader
from pppc.engine import Trainer
from pppc.engine.calibration import calibrate, calibrate_trained
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError
from pppc.evaluation.drawn_pixels import PixelDraw, _Place
from pppc.evaluation.selection import vote
from pppc.model_folder import save_model_folder
from pppc.modeling.error_probability import ErrorProbability
from tiny_run import run_folder, tiny_config

SHARES = torch.zeros(19)


@pytest.fixture(scope="module")
def run(demo_datasets, tmp_path_factory):
    """A run of two iterations that was calibrated on held-out source images, and its last metrics."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    opts = ["SOLVER.MAX_ITER", 2, "VIS_PERIOD", 0, "DATASETS.HELD_OUT", 2]
    opts += ["TEST.UNCERTAINTY", True, "TEST.CALIBRATION", "source"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(demo_datasets))
        trainer = Trainer(tiny_config(folder, *opts))
        trainer.train()
    return folder, RunFolder(folder).metrics()[-1], trainer.cfg


def test_a_checkpoint_predicts_the_probability_of_error_that_its_run_has_fitted(
    run, datasets_root, tmp_path
):
    folder, measured, cfg = run
    assert (
        0 <= measured["uncertainty/ECE-calibrated"] <= 100
        and "uncertainty/AUROC-calibrated" in measured
    )
    file = DatasetCatalog.get("cityscapes_val")[0]["file_name"]
    model = pppc.load(folder)
    output = model(file)
    found = model.predict(file)
    assert model.uncertainty_is == "probability of error"
    assert found.uncertainty.min() >= 0 and found.uncertainty.max() <= 1
    np.testing.assert_array_equal(found.uncertainty, output["error_probability"])
    plain = pppc.load(folder, ["TEST.CALIBRATION", "none"])
    before = plain(file)
    assert plain.uncertainty_is == "entropy of prototypes"
    # The scores are divided by the temperature, so that the confidence is calibrated.
    temperature = model.model.error_probability.temperature
    torch.testing.assert_close(output["sem_seg"] * temperature, before["sem_seg"])
    expected = (before["sem_seg"] / temperature).softmax(0).amax(0)
    np.testing.assert_allclose(found.confidence, expected, rtol=1e-5)
    # In the model's folder, too.
    moved = pppc.load(save_model_folder(model, tmp_path / "model"))
    np.testing.assert_array_equal(moved.predict(file).uncertainty, found.uncertainty)
    # Another training that starts from it has another model.
    other = build_model(cfg)
    StrictCheckpointer(other, cfg=cfg).load(str(folder / "model_final.pth"), checkpointables=[])
    assert not other.error_probability.fitted


def test_it_is_fitted_to_drawn_pixels_of_held_out_images_or_of_the_vote(
    run, datasets_root, tmp_path
):
    folder, _, cfg = run
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = str(folder / "model_final.pth")
    model = trained_model(cfg)
    model.calibrated = False
    draw = PixelDraw(cfg, model, SHARES)
    found = draw.outputs(model, of_source=True)
    # By hand: what is predicted and labeled at the places of a held-out image.
    sample = draw.mapper(draw.source[0])
    model.output_uncertainty = True
    (output,) = model([sample])
    label = label_reader(cfg, "gta_train").label_of(sample)
    place = _Place.of(sample["file_name"])
    number = len(place.down)
    assert torch.equal(found["sem_seg"][:number].T, place.of_map(output["sem_seg"]))
    assert torch.equal(found["uncertainty"][:number], place.of_map(output["uncertainty"]))
    assert found["label"][:number].tolist() == place.of_map(label).tolist()
    names = {record["file_name"] for record in draw.source}
    assert {name[-5:] for name in names} == {"2.png", "4.png", "6.png"}  # each second one
    expected = ErrorProbability()
    labels = found.pop("label")
    kept = labels < 19
    expected.fit({name: values[kept] for name, values in found.items()}, labels[kept])
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(value, model.error_probability.state_dict()[name])

    # The vote of the run beside the model's and its teacher's classes.
    cfg.TEST.CALIBRATION = "vote"
    calibrate_trained(cfg, model)
    target = draw.outputs(model, of_source=False)
    with np.load(folder / "selection.npz") as recorded:
        former = torch.from_numpy(recorded["classes"])
    labels = vote(torch.cat([former, target.pop("classes")]), 19).flatten().long()
    expected.fit(target, labels)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(value, model.error_probability.state_dict()[name])


def test_a_model_without_prototypes_is_calibrated_too_and_without_votes_the_message_says_so(
    datasets_root, tmp_path
):
    opts = ["DATASETS.HELD_OUT", 2, "TEST.CALIBRATION", "vote"]
    model = pppc.load(run_folder(tmp_path, *opts, method="source_only"))
    assert not model.has_uncertainty
    with pytest.raises(InputError, match=r"selection\.npz can't be read .*TEST.CALIBRATION source"):
        calibrate_trained(model.cfg, model.model)
    draw = PixelDraw(model.cfg, model.model, SHARES)
    draw.held_out = False
    with pytest.raises(
        InputError, match="trained on all source images: train one with DATASETS.HELD"
    ):
        calibrate(model.model, draw, "source")
    draw.held_out = True
    calibrate(model.model, draw, "source")
    found = model.predict(np.zeros((40, 60, 3), np.uint8))
    assert found.uncertainty.min() > 0 and model.uncertainty_is == "probability of error"
