"""The paper's experiments: their published values, and all of their commands on demo data."""

import json
import os
import zipfile

import cv2
import numpy as np
import pytest
from conftest import REPOSITORY, run_tool
from PIL import Image
from pppc import load_config

PAIRS = {1: "gta_to_cityscapes", 2: "synthia_to_cityscapes", 3: "cityscapes_to_dark_zurich"}
# The released configuration, one value or one of each experiment. ResNet-101 was its only network;
# MiT-B5's own values are those of DAFormer.
PUBLISHED = {
    "SOLVER.MAX_ITER": 40000,
    "SOLVER.IMS_PER_BATCH": 2,
    "SOLVER.TARGET_IMS_PER_BATCH": 2,
    "SEED": 43,
    "PPPC.SELF_TRAINING.THRESHOLD": (0.968, 0.968, 0.95),
    "PPPC.SELF_TRAINING.IGNORE_TOP": (15, 15, 0),
    "PPPC.SELF_TRAINING.IGNORE_BOTTOM": (120, 120, 0),
    "PPPC.TEACHER.MOMENTUM": 0.999,
    "PPPC.TEACHER.BATCH_STATISTICS": True,
    "PPPC.CONTRAST.START_ITER": 3000,
    "PPPC.CONTRAST.RAMP_MULTIPLIER": (-1.0, -1.0, -10.0),
    "PPPC.CONTRAST.TEMPERATURE": 100.0,
    "PPPC.CONTRAST.LOSS_WEIGHT": 1.0,
    "PPPC.CONTRAST.KL_WEIGHT": 1e-6,
    "PPPC.CONTRAST.KL_REDUCTION": "sum",
    "PPPC.CONTRAST.TARGET_THRESHOLD": 0.0,
    "PPPC.AMBIGUITY_CROP.NUM_CANDIDATES": 10,
    "PPPC.AMBIGUITY_CROP.TOP_K": 10,
    "PPPC.AMBIGUITY_CROP.TEMPERATURE": 0.01,
    "PPPC.AMBIGUITY_CROP.CRITERION": "class_variance",
    "PPPC.PROTOTYPES.CONVENTION": "published",
    "PPPC.STRONG_AUGMENTATION.JITTER_STRENGTH": 0.2,
    "PPPC.STRONG_AUGMENTATION.JITTER_PROBABILITY": 0.8,
    "PPPC.STRONG_AUGMENTATION.BLUR_PROBABILITY": 0.5,
    "PPPC.STRONG_AUGMENTATION.DENORMALIZED_SOURCE": False,  # on in the authors' code, a fault
    "PPPC.CLASS_WEIGHTS.TRAIN_SPREAD": (0.0, 0.0, 0.05),
    "PPPC.CLASS_WEIGHTS.TEST_SPREAD": (0.0, 0.0, 0.16),
    "PPPC.CLASS_WEIGHTS.TEST_SUFFIX": ("", "", "_rgb_anon.png"),
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 19,
    "MODEL.SEM_SEG_HEAD.DROPOUT": 0.1,
    "MODEL.PROBABILISTIC_HEAD.DIM": 512,
    "MODEL.PROBABILISTIC_HEAD.NUM_CONVS": 2,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "INPUT.CROP.SIZE": [640, 640],
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 0.75,
    "INPUT.MAX_SIZE_TRAIN": 1280,
    "INPUT.MIN_SIZE_TRAIN": ((720,), (720,), (640,)),
    "INPUT.TARGET.MAX_SIZE": 1280,
    "INPUT.TARGET.MIN_SIZE": (640, 640, 720),
    "INPUT.MAX_SIZE_TEST": 1280,
    "INPUT.MIN_SIZE_TEST": (640, 640, 720),
    "DATALOADER.RARE_CLASS_SAMPLING.TEMPERATURE": 0.01,
    "DATALOADER.RARE_CLASS_SAMPLING.MIN_CROP_RATIO": 0.5,
    "DATALOADER.RARE_CLASS_SAMPLING.MIN_PIXELS": 3000,
    "INPUT.RESIZING": "bilinear",
    "SOLVER.OPTIMIZER": "AdamW",
    "SOLVER.BASE_LR": 6e-5,
    "SOLVER.BETAS": (0.9, 0.999),
    "SOLVER.WEIGHT_DECAY": 0.01,
    "SOLVER.HEAD_LR_FACTOR": 10.0,
    "SOLVER.VARIANCE_LR_FACTOR": 1.0,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupPolyLR",
    "SOLVER.WARMUP_ITERS": 1500,
    "SOLVER.WARMUP_FACTOR": 1e-6,
    "SOLVER.POLY_LR_POWER": 1.0,
    "TEST.EVAL_PERIOD": 2000,
    "TEST.EVALUATE_TEACHER": False,
}
NETWORKS = {
    "r101": {
        "MODEL.WEIGHTS": "https://download.openmmlab.com/pretrain/third_party/resnet101_v1c-e67eebb6.pth",
        "MODEL.TIMM.NAME": "resnet101c",
        "MODEL.TIMM.OUTPUT_STRIDE": 8,
        "MODEL.TIMM.DROP_PATH_RATE": 0.0,
        "MODEL.SEM_SEG_HEAD.NAME": "SeparableDeepLabV3PlusHead",
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 512,
        "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [1, 12, 24, 36],
        "MODEL.PROBABILISTIC_HEAD.IN_FEATURES": ["stage4"],
        "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS": 0,
        "SOLVER.WEIGHT_DECAY_NORM": 0.01,
    },
    "mit_b5": {
        "MODEL.WEIGHTS": "hf://nvidia/mit-b5",
        "MODEL.TIMM.NAME": "mit_b5",
        "MODEL.TIMM.OUTPUT_STRIDE": 32,
        "MODEL.TIMM.DROP_PATH_RATE": 0.1,
        "MODEL.SEM_SEG_HEAD.NAME": "DAFormerHead",
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 256,
        "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": [1, 6, 12, 18],
        "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS": 256,
        "SOLVER.WEIGHT_DECAY_NORM": 0.0,
    },
}


def load(name: str):
    return load_config(REPOSITORY / f"configs/{name}.yaml")


def value(cfg, key: str):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("number", PAIRS)
def test_configurations_hold_the_published_values(number, network):
    cfg = load(f"{PAIRS[number]}_pppc_{network}")
    for key, published in PUBLISHED.items():
        if isinstance(published, tuple) and len(published) == 3:
            published = published[number - 1]
        assert value(cfg, key) == published, key
    for key, published in NETWORKS[network].items():
        assert value(cfg, key) == published, key


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("number", PAIRS)
def test_baselines_lack_the_method_alone(number, network):
    pppc, dacs, source_only = (
        load(f"{PAIRS[number]}_{method}_{network}") for method in ("pppc", "dacs", "source_only")
    )
    assert (dacs.PPPC.SELF_TRAINING.ENABLED, dacs.PPPC.CONTRAST.ENABLED) == (True, False)
    assert not source_only.PPPC.SELF_TRAINING.ENABLED and not source_only.PPPC.CONTRAST.ENABLED
    assert len({cfg.OUTPUT_DIR for cfg in (pppc, dacs, source_only)}) == 3
    for cfg in (pppc, dacs, source_only):
        cfg.PPPC.SELF_TRAINING.ENABLED = cfg.PPPC.CONTRAST.ENABLED = True
        cfg.OUTPUT_DIR = ""
    assert pppc == dacs == source_only


SMALL = [
    "MODEL.WEIGHTS", "",  # there is no network in tests
    # Of a model that has learnt nothing, balanced labels are all of the rarest class, which has no prototype.
    "PPPC.SELF_TRAINING.START", "0.0", "PPPC.CLASS_BALANCE.PSEUDO_LABELS", "0.0",
    "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16", "MODEL.PROBABILISTIC_HEAD.DIM", "16",
    "MODEL.PROBABILISTIC_HEAD.MID_CHANNELS", "16", "INPUT.CROP.SIZE", "[48, 64]",
    "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "128",
    "INPUT.TARGET.MIN_SIZE", "64", "INPUT.TARGET.MAX_SIZE", "128",
    "INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "128",
    "SOLVER.MAX_ITER", "3", "SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "3",
    "TEST.SELECTION.IMAGES", "2", "TEST.REPORT_IMAGES", "0",
    "SOLVER.TARGET_IMS_PER_BATCH", "3", "PPPC.CONTRAST.START_ITER", "0",
    "PPPC.SELF_TRAINING.THRESHOLD", "0.05", "PPPC.SELF_TRAINING.IGNORE_TOP", "1",
    "PPPC.SELF_TRAINING.IGNORE_BOTTOM", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def experiments(demo_datasets, tmp_path_factory):
    """The output folder, and the last metrics of each experiment."""
    output = tmp_path_factory.mktemp("experiments")
    metrics = {}
    for number, network, encoder in ((1, "r101", "test_resnet"), (2, "mit_b5", "mit_b0"),
                                     (3, "mit_b5", "mit_b0")):  # fmt: skip
        run = run_tool(
            "run_experiment.py", "--exp", number, "--model", network, "--output", output,
            *(["--recipe", "recommended"] if number == 2 else []), *SMALL,
            "MODEL.TIMM.NAME", encoder, DETECTRON2_DATASETS=str(demo_datasets),
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
        name = f"{PAIRS[number]}_pppc_{network}" + "_recommended" * (number == 2)
        folder = output / name / "seed_43"
        lines = (folder / "metrics.json").read_text().splitlines()
        metrics[number] = {k: v for line in lines for k, v in json.loads(line).items()}
    return output, metrics


def test_each_experiment_trains_all_losses_and_is_evaluated(experiments):
    _, metrics = experiments
    for number, of_one in metrics.items():
        for loss in ("segmentation_source", "segmentation_mixed", "contrast_source",
                     "contrast_target"):  # fmt: skip
            assert of_one[f"loss_{loss}"] > 0, (number, loss)
        assert 0 <= of_one["sem_seg/mIoU"] <= 100
    assert {number: "sem_seg/mIoU13" in of_one for number, of_one in metrics.items()} == {
        1: False, 2: True, 3: False,
    }  # fmt: skip
    assert 0 <= metrics[2]["sem_seg/mIoU16"] <= 100


def test_the_recommended_recipe_is_laid_over_the_experiment(experiments):
    output, metrics = experiments
    run = load_config(output / "synthia_to_cityscapes_pppc_mit_b5_recommended/seed_43/config.yaml")
    recipe = load_config(REPOSITORY / "configs/methods/recommended.yaml")
    recipe.PPPC.CONTRAST.START_ITER = 0  # among the options, which come after it
    for node in ("CONTRAST", "PROTOTYPES", "AMBIGUITY_CROP"):
        assert run.PPPC[node] == recipe.PPPC[node]
    assert run.MODEL.PROBABILISTIC_HEAD.VARIANCE_OVER_DIM
    assert run.DATASETS.TRAIN == ("synthia_train",)
    assert metrics[2]["crop/by_chance"] == metrics[2]["crop/gain"] == 1  # it is random
    assert 0 < metrics[2]["crop/weights_entropy"] < 1


def test_a_finished_experiment_is_not_repeated(experiments, demo_datasets):
    output, _ = experiments
    weights = output / "gta_to_cityscapes_pppc_r101/seed_43/model_final.pth"
    before = weights.stat().st_mtime_ns
    command = ["run_experiment.py", "--exp", 1, "--model", "r101", "--output", output, *SMALL]
    run = run_tool(*command, "MODEL.TIMM.NAME", "test_resnet")
    assert run.returncode == 0 and "is finished" in run.stdout
    other = run_tool(*command, "MODEL.TIMM.NAME", "test_resnet", "SOLVER.BASE_LR", "1e-3")
    assert other.returncode and "is finished, with options" in other.stderr
    assert weights.stat().st_mtime_ns == before


def test_list_names_every_configuration():
    listed = run_tool("run_experiment.py", "--list").stdout
    assert "published, which these configurations are, if none is given" in listed
    for pair in PAIRS.values():
        names = {path.name for path in (REPOSITORY / "configs").glob(f"{pair}_*_*.yaml")}
        assert len(names) == 9 and all(f"configs/{name}" in listed for name in names)
    assert "configs/gta_to_cityscapes_pppc_vit_b.yaml + configs/methods/dacs.yaml" in listed


def export(experiments, root, archive, num_images, *opts):
    folder = experiments[0] / "cityscapes_to_dark_zurich_pppc_mit_b5/seed_43"
    return run_tool(
        "export_dark_zurich.py", "--config-file", folder / "config.yaml", "--output", archive,
        "--num-images", num_images, "MODEL.WEIGHTS", folder / "model_final.pth", *opts,
        DETECTRON2_DATASETS=str(root),
    )  # fmt: skip


def test_dark_zurich_archive(experiments, demo_datasets, tmp_path):
    archive = tmp_path / "submission.zip"
    run = export(experiments, demo_datasets, archive, 2)
    assert run.returncode == 0, run.stderr[-3000:]
    images = sorted((demo_datasets / "dark_zurich/rgb_anon/test/night").glob("*/*.png"))
    folders = ("labelTrainIds", "confidence", "labelTrainIds_invalid")
    with zipfile.ZipFile(archive) as file:
        assert sorted(file.namelist()) == sorted(f"{f}/{i.name}" for f in folders for i in images)
        for image in images:
            label, confidence, invalid = (
                cv2.imdecode(np.frombuffer(file.read(f"{folder}/{image.name}"), np.uint8), -1)
                for folder in folders
            )
            assert label.shape == confidence.shape == Image.open(image).size[::-1]
            assert label.dtype == np.uint8 and label.max() < 19
            assert confidence.dtype == np.uint16 and confidence.min() >= 65535 // 19
            np.testing.assert_array_equal(label, invalid)
    assert [path.name for path in tmp_path.iterdir()] == ["submission.zip"]

    again = export(experiments, demo_datasets, archive, 2)
    assert again.returncode and "exists" in again.stderr.splitlines()[-1]


def test_incomplete_archive_is_refused(experiments, demo_datasets, tmp_path):
    run = export(experiments, demo_datasets, tmp_path / "submission.zip", 151)
    assert run.returncode and "holds 2 images, the test split has 151" in run.stderr
    assert os.listdir(tmp_path) == []


def test_evaluation_needs_the_test_set_alone(experiments, demo_datasets, tmp_path):
    (tmp_path / "dark_zurich").symlink_to(demo_datasets / "dark_zurich")
    folder = experiments[0] / "cityscapes_to_dark_zurich_pppc_mit_b5/seed_43"
    run = run_tool(
        "train_net.py", "--config-file", folder / "config.yaml", "--eval-only",
        "MODEL.WEIGHTS", folder / "model_final.pth", "OUTPUT_DIR", tmp_path / "evaluation",
        DETECTRON2_DATASETS=str(tmp_path),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    results = json.loads((tmp_path / "evaluation/inference/results.json").read_text())
    assert results["sem_seg"]["mIoU"] == pytest.approx(experiments[1][3]["sem_seg/mIoU"])
