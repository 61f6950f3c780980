"""Dark Zurich's pairs: the day image of each night image, cut alike, helps to label it."""

import cv2
import pytest
import torch
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.utils.events import EventStorage
from PIL import Image
from pppc import load_config
from pppc.data.mapper import TargetMapper
from pppc.engine import Trainer
from pppc.method.teacher import fuse_day_night, upsampled_probabilities
from pppc.pixel_batch import PixelBatch
from tiny_run import SMALL

PAIRS = "dark_zurich_train_night_day_unlabeled"


def configuration(*opts):
    return load_config(
        REPOSITORY / "configs/cityscapes_to_dark_zurich_pppc_mit_b5.yaml",
        [*SMALL, "INPUT.CROP.SIZE", [48, 64], "INPUT.MIN_SIZE_TRAIN", (64,), "INPUT.MAX_SIZE_TRAIN", 128,
         "INPUT.TARGET.MIN_SIZE", 56, "INPUT.TARGET.MAX_SIZE", 128, *opts],
    )  # fmt: skip


def test_every_night_image_has_the_day_image_that_its_csv_row_names(datasets_root):
    records = DatasetCatalog.get(PAIRS)
    rows = next(datasets_root.glob("dark_zurich/corresp/train/night/*.csv")).read_text().split()
    assert len(records) == len(rows) == 3
    for record, row in zip(records, sorted(rows)):
        night, day = row.split(",")
        assert record["file_name"].endswith(f"rgb_anon/{night}_rgb_anon.png")
        assert record["day_file_name"].endswith(f"rgb_anon/{day}_rgb_anon.png")


def test_day_image_is_resized_and_flipped_like_its_night_image(datasets_root):
    record = DatasetCatalog.get(PAIRS)[0]
    mapper = TargetMapper(configuration())
    by_day = {**record, "file_name": record["day_file_name"]}
    flips = set()
    for seed in range(8):
        sample = mapper(record, None, seed)
        torch.testing.assert_close(sample["day_image"], mapper(by_day, None, seed)["image"])
        night = detection_utils.read_image(record["file_name"], "RGB")
        height, width = sample["image"].shape[1:]
        resized = cv2.resize(night, (width, height), interpolation=cv2.INTER_LINEAR)
        flips.add(bool((sample["image"].numpy() != resized.transpose(2, 0, 1)).any()))
    assert (height, width) == (56, 112) and flips == {False, True}


def test_day_image_of_another_size_is_named(datasets_root, tmp_path):
    record = dict(DatasetCatalog.get(PAIRS)[0])
    Image.open(record["day_file_name"]).resize((100, 60)).save(tmp_path / "day.png")
    record["day_file_name"] = str(tmp_path / "day.png")
    with pytest.raises(ValueError, match=r"day\.png has another size"):
        TargetMapper(configuration())(record, None, 0)


def test_the_step_fuses_and_crops_pairs(datasets_root, tmp_path):
    torch.manual_seed(0)
    trainer = Trainer(configuration("OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", (), "SEED", 1))
    loop = trainer._trainer
    _, target = next(iter(trainer.data_loader))
    assert target.day_image.shape == target.image.shape == (2, 3, 56, 112)

    # Rows and columns as colors show where a crop was cut.
    rows, columns = torch.meshgrid(torch.arange(56.0), torch.arange(112.0), indexing="ij")
    marked = torch.stack([rows, columns, torch.zeros_like(rows)]).expand(2, -1, -1, -1)
    pair = PixelBatch(marked, day_image=marked + torch.tensor([0.0, 0.0, 9.0]).view(3, 1, 1))
    loop.random.generator = torch.Generator().manual_seed(3)
    with EventStorage():
        cut = loop.crop_target(pair)
    assert cut.image.shape == (2, 3, 48, 64)
    torch.testing.assert_close(cut.day_image[:, :2], cut.image[:, :2])
    assert (cut.day_image[:, 2] == 9).all() and (cut.image[:, 2] == 0).all()

    segmentor = loop.segmentor.eval()  # so that no batch statistics change between the passes
    probability = {
        name: upsampled_probabilities(segmentor.teacher(image, embedding=False).logits, (56, 112))
        for name, image in (("day", target.day_image), ("night", target.image))
    }
    static = [0, 1, 2, 3, 4, 8, 9, 10]
    fused = fuse_day_night(
        **probability, static_classes=static, class_weights=segmentor.class_weights
    )
    probabilities = loop.pseudo_labeler.probabilities(
        loop.teacher_scores, target.image, target.day_image
    )
    torch.testing.assert_close(probabilities, fused)
    labeled, _ = loop.pseudo_labeler(loop.teacher_scores, target.image, target.day_image)
    torch.testing.assert_close(labeled.confidence, fused.max(1).values)
    alone, _ = loop.pseudo_labeler(loop.teacher_scores, target.image)
    assert not torch.equal(alone.confidence, labeled.confidence)
