"""Data sets that were registered in Detectron2's way."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, run_anew, run_tool
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image
from pppc.data.catalog import model_metadata, own_reader, register_split
from pppc.data.splits import SPLITS, Split
from pppc.data.train_ids import CITYSCAPES_CLASSES, LABEL_SPACES, LabelSpace
from pppc.engine.run_folder import RunFolder
from pppc.errors import InputError
from pppc.evaluation import MeanIoUEvaluator
from pppc.own_code import import_own
from tiny_run import OPTIONS, tiny_config

MINE = """
import glob, os
from detectron2.data import DatasetCatalog, MetadataCatalog
from pppc.data.train_ids import CITYSCAPES_CLASSES

root = os.environ["DETECTRON2_DATASETS"]

def source():
    labels = sorted(glob.glob(root + "/gta/labels/*_labelTrainIds.png"))
    names = [os.path.basename(label).replace("_labelTrainIds", "") for label in labels]
    return [{"file_name": f"{root}/gta/images/{name}", "sem_seg_file_name": label}
            for name, label in zip(names, labels)]

def target():
    return [{"file_name": file} for file in glob.glob(root + "/cityscapes/leftImg8bit/train/*/*.png")]

for name, function in (("my_source", source), ("my_target", target)):
    DatasetCatalog.register(name, function)
    MetadataCatalog.get(name).set(stuff_classes=CITYSCAPES_CLASSES, ignore_label=255)
"""


@pytest.fixture
def registered():
    """Registers a data set in Detectron2's way for the time of a test."""
    names = []

    def register(name: str, records: list[dict], **metadata: object) -> str:
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def label_file(path, *values: int, mode: str = "L") -> list[dict]:
    """The records of one label image of these values, a column each."""
    image = Image.fromarray(np.tile(np.array(values, np.uint8), (2, 1)))
    if mode == "P":
        image.putpalette([c for i in range(256) for c in (i, 255 - i, 40)])
    image.save(path)
    return [{"file_name": str(path), "sem_seg_file_name": str(path)}]


@pytest.mark.parametrize(
    ("values", "mapping", "expected"),
    [
        ([0, 1, 2, 255], None, [0, 1, 2, 255]),
        ([0, 1, 2, 255], {7: 0, 8: 1, 9: 2}, [0, 1, 2, 255]),  # as COCO's stuff is registered
        ([7, 8, 9, 4, 255], {7: 0, 8: 1, 9: 2}, [0, 1, 2, 255, 255]),
        ([0, 1, 3, 2], {1: 0, 2: 1, 3: 2}, [255, 0, 2, 1]),
    ],
)
@pytest.mark.parametrize("mode", ["L", "P"])
def test_labels_hold_contiguous_ids_or_the_data_set_s(
    values, mapping, expected, mode, registered, tmp_path
):
    records = label_file(tmp_path / "a.png", *values, mode=mode)
    classes = {"stuff_classes": ["road", "car", "sky"], "ignore_label": 255}
    ids = {"stuff_dataset_id_to_contiguous_id": mapping} if mapping else {}
    reader = own_reader(registered("own", records, **classes, **ids))
    assert reader.class_names == ("road", "car", "sky")
    np.testing.assert_array_equal(reader.read(records[0]["sem_seg_file_name"])[0], expected)


def test_a_foreign_value_is_named_and_does_not_change_the_reading(registered, tmp_path):
    records = label_file(tmp_path / "a.png", 0, 1, 77)
    mapping = {7: 0, 8: 1, 9: 2}
    name = registered(
        "own", records, stuff_classes=["a", "b", "c"], stuff_dataset_id_to_contiguous_id=mapping
    )
    with pytest.raises(InputError, match=r"a\.png: value 77 is none of"):
        own_reader(name).read(str(tmp_path / "a.png"))


def test_an_ignored_class_is_never_read(registered, tmp_path):
    records = label_file(tmp_path / "a.png", 0, 1, 2)
    name = registered("own", records, stuff_classes=["void", "car", "sky"], ignore_label=0)
    assert own_reader(name).read(str(tmp_path / "a.png"))[0].tolist() == [255, 1, 2]


@pytest.mark.parametrize(
    ("records", "metadata", "message"),
    [
        ([], {"stuff_classes": ["a", "b"]}, "own: its list of images is empty"),
        ([{"file_name": "a.png"}], {}, "nothing names the classes of own: MetadataCatalog.get"),
        ([{}], {"stuff_classes": ["a", "b"]}, "file_name of record 0 is None"),
        ([{"file_name": 1}], {"stuff_classes": ["a", "b"]}, "file_name of record 0 is 1"),
        (
            [{"file_name": "a.png", "sem_seg_file_name": 5}],
            {"stuff_classes": ["a", "b"]},
            "sem_seg_file_name of record 0 is 5",
        ),
        ([{"file_name": "a.png"}], {"stuff_classes": ["a", "a"]}, "own: .*names each class once"),
    ],
)
def test_a_registration_that_lacks_something_is_named(records, metadata, message, registered):
    with pytest.raises(InputError, match=message):
        own_reader(registered("own", records, **metadata))


def test_a_missing_data_set_of_detectron2_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cityscapes_fine_sem_seg_val", "ade20k_sem_seg_val"):
        with pytest.raises(InputError, match=f"{name} cannot be listed"):
            own_reader(name)


def test_registering_again_is_no_error_and_another_thing_is(monkeypatch):
    register_split("gta_train", SPLITS["gta_train"])
    with pytest.raises(InputError, match="another data set is registered as gta_train already"):
        register_split("gta_train", Split("gta", "elsewhere"))
    with pytest.raises(InputError, match="registered as cityscapes_fine_sem_seg_val already"):
        register_split("cityscapes_fine_sem_seg_val", SPLITS["gta_train"])
    LABEL_SPACES["gta"] = LABEL_SPACES["gta"]
    with pytest.raises(InputError, match="another label space is named 'gta' already"):
        LABEL_SPACES["gta"] = LabelSpace({1: 0}, frozenset(), ("a",), ((1, 2, 3),))


def test_an_unlabeled_target_with_names_of_its_own_leaves_the_source_s(
    registered, tmp_path, caplog
):
    name = registered("own", [{"file_name": "a.png"}], stuff_classes=[f"c{i}" for i in range(19)])
    cfg = tiny_config(tmp_path, "DATASETS.TARGET", (name,))
    assert model_metadata(cfg).name == "gta_train"
    assert "own names no class as gta_train does" in caplog.text


def test_detectron2_s_evaluator_and_ours_agree_to_the_digit(registered, tmp_path):
    generator = torch.Generator().manual_seed(0)
    records, outputs = [], []
    for number in range(3):
        file = str(tmp_path / f"{number}.png")
        label = torch.randint(0, 6, (24, 32), generator=generator)
        label[label == 5] = 255  # and class 4 is predicted, but in no label
        label[label == 4] = 3
        Image.fromarray(label.byte().numpy()).save(file)
        records.append({"file_name": file, "sem_seg_file_name": file, "height": 24, "width": 32})
        outputs.append({"sem_seg": torch.randn(5, 24, 32, generator=generator)})
    name = registered("own", records, stuff_classes=list("abcde"), ignore_label=255)
    theirs = SemSegEvaluator(
        name, distributed=False, sem_seg_loading_fn=lambda file, dtype: np.array(Image.open(file), dtype)
    )  # fmt: skip
    ours = MeanIoUEvaluator(own_reader(name))
    results = []
    for evaluator in (theirs, ours):
        evaluator.reset()
        evaluator.process(records, outputs)
        results.append(evaluator.evaluate()["sem_seg"])
    expected, found = results
    common = ["mIoU", "mACC", "pACC", *(f"{kind}-{n}" for kind in ("IoU", "ACC") for n in "abcd")]
    assert {key: found[key] for key in common} == {key: float(expected[key]) for key in common}


def test_own_code_is_imported_in_every_process(demo_datasets, tmp_path):
    """Two processes, source and target of one's own, and two test sets, one of them Detectron2's."""
    (tmp_path / "mine.py").write_text(MINE)
    root = tmp_path / "datasets"
    shutil.copytree(demo_datasets, root)
    for image in (root / "cityscapes/leftImg8bit/val").rglob("*.png"):
        # Detectron2 wants more files.
        start = root / "cityscapes/gtFine/val" / image.parent.name / image.name.split("_left")[0]
        for end in ("instanceIds.png", "labelIds.png"):
            Path(f"{start}_gtFine_{end}").touch()
        Path(f"{start}_gtFine_polygons.json").write_text('{"imgHeight": 64, "imgWidth": 128}')
    run = run_anew(
        "train_net.py", "--import", tmp_path / "mine.py", "--num-gpus", 2, "--config-file",
        REPOSITORY / "configs/demo_gta_to_cityscapes_pppc.yaml", *OPTIONS, "MODEL.DEVICE", "cpu",
        "DATASETS.TRAIN", "('my_source',)", "DATASETS.TARGET", "('my_target',)",
        "DATASETS.TEST", "('cityscapes_fine_sem_seg_val', 'dark_zurich_val_night')",
        "OUTPUT_DIR", tmp_path / "run", "SOLVER.MAX_ITER", 3, "DATALOADER.NUM_WORKERS", 0,
        "PPPC.PROTOTYPES.INCLUDE_TARGET", True, "PPPC.CONTRAST.TARGET_THRESHOLD", 1,
        "PPPC.CONTRAST.START_ITER", 0, DETECTRON2_DATASETS=str(root),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "run/model_best_by_labels.pth").is_file()
    metrics = {k: v for line in RunFolder(tmp_path / "run").metrics() for k, v in line.items()}
    for name in ("cityscapes_fine_sem_seg_val", "dark_zurich_val_night"):
        assert 0 <= metrics[f"{name}/sem_seg/mIoU"] <= 100
    # No pseudo-label is that probable, so that no target pixel is contrasted.
    assert metrics["loss_contrast_target"] == 0 < metrics["loss_contrast_source"]
    check = run_tool("check_datasets.py", "--import", tmp_path / "mine.py", "my_source",
                     DETECTRON2_DATASETS=str(root))  # fmt: skip
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothere", "there is no module nothere. Give a module, or a file's name with .py"),
        ("nothere.py", "no such file"),
        ("argparse.py", "another module is named argparse: rename the file"),
    ],
)
def test_what_cannot_be_imported_is_one_line(name, message, tmp_path, monkeypatch):
    (tmp_path / "argparse.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        import_own([name])


def test_the_classes_of_the_paper_s_pairs_are_detectron2_s():
    names = MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_classes
    assert tuple(names) == CITYSCAPES_CLASSES
