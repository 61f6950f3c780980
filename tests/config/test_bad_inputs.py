"""Bad input gets one line that names what is wrong and says what to do; a bug keeps its traceback.

Values and files of a configuration first, then the tools.
"""

import logging
import runpy
import sys
from argparse import Namespace

import pytest
import torch
import yaml
from conftest import REPOSITORY, run_tool
from detectron2.config import get_cfg
from pppc import add_pppc_config, load_config
from pppc.cli import train as train_command
from pppc.config.checks import WARNINGS, check_config, wrong_values
from pppc.config.defaults import KEYS, by_key, section_of
from pppc.config.device import with_inference_device
from pppc.config.rules import Key, whole
from pppc.errors import InputError
from tiny_run import default_config, demo_config

SOURCE_ONLY = "PPPC.SELF_TRAINING.ENABLED False PPPC.CONTRAST.ENABLED False"


def refusal(*opts: str, config=None) -> str:
    """The one line with which a configuration is refused."""
    with pytest.raises(InputError) as caught:
        load_config(config or demo_config("pppc"), opts)
    message = str(caught.value)
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    ("opts", "advice"),
    [
        ("SOLVER.MAX_ITER 0", "give a whole number, 1 or more"),
        ("SOLVER.MAX_ITER 1e3", "give a whole number, 1 or more"),
        ("SOLVER.MAX_ITER True", "give a whole number, 1 or more"),
        ("SOLVER.CHECKPOINT_PERIOD 0", "give a whole number, 1 or more"),
        ("SOLVER.IMS_PER_BATCH -1", "give a whole number, 1 or more"),
        ("MODEL.PROBABILISTIC_HEAD.DIM 0", "give a whole number, 1 or more"),
        ("MODEL.PROBABILISTIC_HEAD.NUM_CONVS 0", "give a whole number, 1 or more"),
        ("PPPC.AMBIGUITY_CROP.NUM_CANDIDATES 0", "give a whole number, 1 or more"),
        ("TEST.EVAL_PERIOD -1", "give a whole number, 0 or more"),
        ("DATALOADER.NUM_WORKERS two", "give a whole number, 0 or more"),
        ("SOLVER.BASE_LR 0", "give a number above 0"),
        ("SOLVER.BASE_LR nan", "give a number above 0"),
        ("SOLVER.BASE_LR [0.1]", "give a number above 0"),
        ("PPPC.CONTRAST.TEMPERATURE 0", "give a number above 0"),
        ("PPPC.AMBIGUITY_CROP.TEMPERATURE 0", "give a number above 0"),
        ("DATALOADER.RARE_CLASS_SAMPLING.TEMPERATURE -0.01", "give a number above 0"),
        ("PPPC.CONTRAST.LOSS_WEIGHT -1", "give a number, 0 or more"),
        ("PPPC.CONTRAST.RAMP_MULTIPLIER 1", "give a number, 0 or less"),
        ("SOLVER.WEIGHT_DECAY_BIAS -1", "give None, or a number, 0 or more"),
        ("PPPC.TEACHER.MOMENTUM 1.5", "give a number from 0 to below 1"),
        ("PPPC.PROTOTYPES.MOMENTUM 1", "give a number from 0 to below 1"),
        ("MODEL.SEM_SEG_HEAD.DROPOUT 1.0", "give a number from 0 to below 1"),
        ("PPPC.SELF_TRAINING.THRESHOLD 96.8", "give a number from 0 to 1"),
        ("PPPC.STRONG_AUGMENTATION.BLUR_PROBABILITY 2", "give a number from 0 to 1"),
        ("PPPC.AMBIGUITY_CROP.SCALE 0", "give a number above 0, at most 1"),
        ("SOLVER.BETAS (0.9,1.0)", "give two numbers from 0 to below 1, such as (0.9, 0.999)"),
        ("INPUT.CROP.SIZE [48]", "give height and width, two whole numbers"),
        ("INPUT.CROP.SIZE 48", "give height and width, two whole numbers"),
        ("INPUT.CROP.SIZE [48.0,64]", "give height and width, two whole numbers"),
        ("INPUT.MIN_SIZE_TRAIN 720", "such as (720,)"),
        ("MODEL.PIXEL_MEAN [0.5,0.5]", "give three numbers, one for each channel"),
        ("MODEL.PIXEL_STD [0,1,1]", "give three numbers, one for each channel, above 0"),
        ("SOLVER.STEPS [5,3]", "give a list of rising whole numbers"),
        ("PPPC.CLASS_WEIGHTS.FREQUENCIES [0.5,-1]", "numbers, 0 or more, one of each class"),
        ("PPPC.CLASS_BALANCE.PREDICTION -0.5", "give a number, 0 or more"),
        ("DATASETS.HELD_OUT 1", "0, or a whole number from 2 on"),
        ("MODEL.SEM_SEG_HEAD.NUM_CLASSES 300", "give a whole number from 2 to 255"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE 256", "give a whole number from 0 to 255"),
        ("MODEL.TIMM.OUTPUT_STRIDE 4", "give 32, 16 or 8"),
        ("SEED -2", "or -1 to have one drawn"),
        ("OUTPUT_DIR ", "give a name"),
        ("DATASETS.TRAIN gta_train", "give a list of different names"),
        ("DATASETS.TRAIN_WEIGHTS (1,0)", "one of each data set"),
        ("DATASETS.TRAIN_WEIGHTS (1,2)", "give one weight of each data set, or none"),
        ("DATASETS.TEST ('cityscapes_val','cityscapes_val')", "give a list of different names"),
        ("MODEL.DEVICE mps", "give 'cpu', 'cuda' or 'cuda:NUMBER'"),
        ("MODEL.DEVICE gpu", "give 'cpu', 'cuda' or 'cuda:NUMBER'"),
        ("MODEL.RECOMPUTE some", "give one of 'none', 'encoder'"),
        ("INPUT.RANDOM_FLIP both", "give one of 'none', 'horizontal', 'vertical'"),
        ("INPUT.FORMAT L", "give one of 'RGB', 'BGR'"),
        ("MODEL.SEM_SEG_HEAD.NORM SyncBN", "MODEL.SYNC_BATCH_NORM True"),
        ("PPPC.CONTRAST.SCORE dot", "'mutual_likelihood'"),
        ("PPPC.PROTOTYPES.UPDATE_RULE mean", "give one of 'ema', 'posterior', 'batch'"),
        ("PPPC.PROTOTYPES.VARIANCE sum", "give one of 'product', 'count_normalized'"),
        ("PPPC.PROTOTYPES.CONVENTION variance", "give one of 'published', 'log_variance'"),
        ("PPPC.AMBIGUITY_CROP.CRITERION entropy", "give one of 'random', 'class_variance'"),
        ("PPPC.CONTRAST.KL_REDUCTION none", "give one of 'sum', 'mean'"),
        ("SOLVER.OPTIMIZER adamw", "give one of 'AdamW', 'SGD'"),
        ("SOLVER.AMP.TYPE fp16", "give one of 'bfloat16', 'float16'"),
        ("SOLVER.LR_SCHEDULER_NAME poly", "'WarmupPolyLR'"),
        ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE model", "give one of 'value', 'norm', 'full_model'"),
        ("MODEL.SEM_SEG_HEAD.NAME PanopticDeepLabSemSegHead", "give one of"),
        ("MODEL.SEM_SEG_HEAD.NAME PointRendSemSegHead", "'SemSegFPNHead'"),
        ("MODEL.SEM_SEG_HEAD.COMMON_STRIDE 8", "leave it at"),
        ("MODEL.BACKBONE.NAME build_resnet", "'build_resnet_backbone'"),
        ("MODEL.META_ARCHITECTURE SemanticSegmentor", "give one of 'PPPCSegmentor'"),
        # Together
        ("INPUT.CROP.SIZE [640,4000]", "lower INPUT.CROP.SIZE, or raise the other"),
        ("INPUT.MIN_SIZE_TRAIN (2000,)", "INPUT.MAX_SIZE_TRAIN is 320"),
        ("INPUT.MIN_SIZE_TEST 2000", "INPUT.MAX_SIZE_TEST is 320"),
        ("INPUT.MIN_SIZE_TRAIN_SAMPLING range", "a range takes two sizes"),
        ("MODEL.SEM_SEG_HEAD.IGNORE_VALUE 5", "give IGNORE_VALUE 255"),
        ("PPPC.SELF_TRAINING.ENABLED False", "set both True, or both False"),
        (f"TEST.EVALUATE_TEACHER True {SOURCE_ONLY}", "or TEST.EVALUATE_TEACHER False"),
        (f"PPPC.MASKING.LOSS_WEIGHT 1 {SOURCE_ONLY}", "or PPPC.MASKING.LOSS_WEIGHT 0"),
        ("PPPC.PROTOTYPES.CONVENTION published", "give CONVENTION 'log_variance'"),
        ("PPPC.CONTRAST.START_ITER -2", "or -1 for the published one, scaled"),
        ("PPPC.CLASS_WEIGHTS.TRAIN_SPREAD 0.1", "give one frequency of each class"),
        ("PPPC.CLASS_WEIGHTS.TEST_SPREAD 2.0 MODEL.SEM_SEG_HEAD.NUM_CLASSES 3 "
         "PPPC.CLASS_WEIGHTS.FREQUENCIES [0.9,0.09,0.01]", "lower TEST_SPREAD"),
        ("PPPC.CLASS_WEIGHTS.TRAIN_SPREAD 0.05 MODEL.SEM_SEG_HEAD.NUM_CLASSES 3 "
         "PPPC.CLASS_WEIGHTS.FREQUENCIES [0.9,0.1,0]", "or give frequencies above 0"),
        ("PPPC.SELF_TRAINING.STATIC_CLASSES ['raod']", "no class of cityscapes_train_unlabeled: "
         "give road"),
        ("SOLVER.NESTEROV True SOLVER.MOMENTUM 0", "needs a momentum above 0"),
        # Detectron2's keys that do nothing here
        ("INPUT.CROP.ENABLED False", "no effect in this project: leave it at True"),
        ("INPUT.CROP.TYPE relative", "leave it at 'absolute'"),
        ("TEST.AUG.ENABLED True", "leave it at False"),
        ("TEST.PRECISE_BN.ENABLED True", "leave it at False"),
        ("MODEL.SEM_SEG_HEAD.LOSS_TYPE cross_entropy", "leave it at 'hard_pixel_mining'"),
        ("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT 2.0", "leave it at 1.0"),
        ("SOLVER.REFERENCE_WORLD_SIZE 8", "leave it at 0"),
        ("DATALOADER.SAMPLER_TRAIN RepeatFactorTrainingSampler", "leave it at 'TrainingSampler'"),
        ("MODEL.MASK_ON True", "leave it at False"),
        ("MODEL.RESNETS.DEPTH 101", "leave it at 50"),
        # Names and pairs
        ("SOLVER.MAX_ITERS 5", "did you mean SOLVER.MAX_ITER"),
        ("solver.max_iter 5", "did you mean SOLVER.MAX_ITER"),
        ("MAX_ITER 5", "did you mean SOLVER.MAX_ITER"),
        ("SOLVER 5", "is a section: give its keys, such as SOLVER."),
        ("SOLVER.MAX_ITER.X 5", "did you mean SOLVER.MAX_ITER"),
        ("SOLVER.MAX_ITER", "one key has no value"),
        ("SOLVER.MAX_ITER=5", "write SOLVER.MAX_ITER 5"),
        ("--resume SOLVER.MAX_ITER 5", "give it before them"),
        ("OUTPUT_DIR $NO_SUCH_VARIABLE/run", "set this variable"),
        ("MODEL.WEIGHTS ~no_such_user/model.pth", "or write the whole path"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key_and_what_to_give(opts, advice):
    message = refusal(*opts.split(" "))
    assert opts.split(" ")[0].split("=")[0] in message and advice in message


def test_all_wrong_values_are_named_at_once():
    message = refusal("SOLVER.MAX_ITER", "0", "TEST.AUG.FLIP", "False", "SEED", "x")
    assert all(f"{key} is " in message for key in ("SOLVER.MAX_ITER", "TEST.AUG.FLIP", "SEED"))


def test_every_default_follows_its_rule_and_every_key_is_explained():
    cfg = default_config()
    assert not wrong_values(cfg)
    assert not [key.name for key in KEYS.values() if not key.meaning.endswith(".")]


def test_a_part_that_is_not_ours_brings_its_own_keys(caplog):
    opts = "MODEL.RESNETS.DEPTH 18 MODEL.BACKBONE.FREEZE_AT 0 TEST.AUG.ENABLED True".split()
    load_config(demo_config("pppc"), [*opts, "MODEL.BACKBONE.NAME", "build_resnet_backbone"])
    (record,) = caplog.records
    assert record.getMessage() == "TEST.AUG.ENABLED is True, but it has no effect in this project"
    with pytest.raises(InputError, match="MODEL.RESNETS.DEPTH is 18.*leave it at 50"):
        load_config(demo_config("pppc"), opts)


def test_a_key_of_one_s_own_is_declared_like_ours(monkeypatch):
    monkeypatch.setitem(KEYS, "MODEL.MINE.WIDTH", Key("MODEL.MINE.WIDTH", 64, whole(1), "Mine."))
    assert load_config(demo_config("pppc")).MODEL.MINE.WIDTH == 64
    assert load_config(demo_config("pppc"), ["MODEL.MINE.WIDTH", "32"]).MODEL.MINE.WIDTH == 32
    assert "MODEL.MINE.WIDTH is 0: give a whole number" in refusal("MODEL.MINE.WIDTH", "0")


def test_a_value_of_another_type_is_refused_for_every_key():
    cfg = load_config(demo_config("pppc"))
    keys = KEYS.keys() & dict(by_key(cfg)).keys()
    for key in keys:
        node, name = section_of(cfg, key)
        node[name] = b"neither text nor number nor list"
    assert {line.split(" ")[0] for line in wrong_values(cfg)} == keys


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"SOLVER:\n\tMAX_ITER: 5\n", "found character '\\t'"),
        (b"SEED: 1\nSEED: 2\n", "the key SEED stands twice"),
        (b"SOLVER:\n  MAX_ITER: 5\n   BASE_LR: 1\n", "line 3"),
        (b"SOLVER: {MAX_ITER: 5\n", "expected ',' or '}'"),
        (b"- SEED\n- 1\n", "holds a list, not KEY: VALUE"),
        (b"# nothing\n", "holds nothing, not KEY: VALUE"),
        (b"SEED\n", "holds a str, not KEY: VALUE"),
        ("OUTPUT_DIR: caf\u00e9".encode("latin-1"), "unacceptable character"),
        (bytes(range(256)), "unacceptable character"),
        (b"SEED: 1\n---\nSEED: 2\n", "single document"),
        (b"SEED: !!python/object/apply:os.getcwd []\n", "constructor for the tag"),
        (b"_BASE_: nope.yaml\n", "nope.yaml (named by _BASE_ in "),
        (b"_BASE_: .\n", "Is a directory. Give the name of a YAML file"),
        (b"_BASE_: [1]\n", "give a file's name, or a list of them"),
        (b"_BASE_: wrong.yaml\n", "its _BASE_ leads back to it"),
        (b"_BASE_: $NO_SUCH_VARIABLE/a.yaml\n", "set this variable"),
        (b"SOLVER: [1, 2]\n", "SOLVER is a section: give its keys"),
        (b"SOLVER:\n  MAX_ITER: [5]\n", "SOLVER.MAX_ITER is [5]: give a whole number"),
        (b"SEED:\n", "SEED is None: give a whole number"),
        (b"1: 2\n", "there is no key 1"),
        (b"SOLVER:\n  MAXITER: 5\n", "did you mean SOLVER.MAX_ITER"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_named_with_the_reason(content, reason, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_bytes(content)
    message = refusal(config=path)
    assert "wrong.yaml" in message and reason in message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "give --config-file FILE.yaml"),
        (".", ".: Is a directory. Give the name of a YAML file"),
        ("nope.yaml", "nope.yaml: No such file or directory. Give the name of a YAML file"),
        ("$NO_SUCH_VARIABLE/a.yaml", "--config-file is '$NO_SUCH_VARIABLE/a.yaml'"),
    ],
)
def test_a_configuration_that_is_not_there(path, reason):
    with pytest.raises(InputError, match="^[^\n]*$") as caught:
        load_config(path)
    assert reason in str(caught.value)


def test_paths_are_expanded_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PLACE", "there")
    (tmp_path / "there").mkdir()
    (tmp_path / "there/base.yaml").write_text(
        "OUTPUT_DIR: ~/$PLACE/run\nSOLVER:\n  BASE_LR: 6e-5\n"
    )
    (tmp_path / "own.yaml").write_text("_BASE_: ~/${PLACE}/base.yaml\nSEED: 7\n")
    cfg = load_config("~/own.yaml", ["MODEL.WEIGHTS", "$HOME/a.pth"])
    assert cfg.OUTPUT_DIR == f"{tmp_path}/there/run" and cfg.MODEL.WEIGHTS == f"{tmp_path}/a.pth"
    assert cfg.SOLVER.BASE_LR == 6e-5 and cfg.SEED == 7
    # A file that has such a name is taken as it is.
    (tmp_path / "$PLACE.yaml").write_text("SEED: 9\n")
    monkeypatch.chdir(tmp_path)
    assert load_config("$PLACE.yaml").SEED == 9


@pytest.mark.parametrize(
    ("opts", "advice"),
    [
        ("DATASETS.TRAIN ()", "DATASETS.TRAIN is (): name a labeled source data set"),
        ("DATASETS.TARGET ()", "or train on the source alone"),
        ("TEST.CALIBRATION source", "give DATASETS.HELD_OUT 5, or another calibration"),
        ("TEST.CALIBRATION vote TEST.SELECTION.IMAGES 0", "give TEST.SELECTION.IMAGES 16"),
        (
            "MODEL.DEVICE cuda",
            "no CUDA GPU here: choose another one, or train with MODEL.DEVICE cpu",
        ),
        ("MODEL.DEVICE cuda:7", "or train with MODEL.DEVICE cpu"),
    ],
)
def test_what_training_alone_refuses(opts, advice, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cfg = load_config(demo_config("pppc"), opts.split(" "))
    with pytest.raises(InputError) as caught:
        check_config(cfg)
    assert opts.split(" ")[0] in str(caught.value) and advice in str(caught.value)


def test_the_device_of_another_machine_is_replaced_in_inference(monkeypatch, caplog):
    cfg = load_config(demo_config("pppc"), ["MODEL.DEVICE", "cuda:7"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert with_inference_device(cfg).MODEL.DEVICE == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert with_inference_device(cfg).MODEL.DEVICE == "cuda"
    cfg.MODEL.DEVICE = "cuda:1"
    assert with_inference_device(cfg) is cfg
    assert [record.getMessage() for record in caplog.records] == [
        "MODEL.DEVICE is 'cuda:7', but PyTorch finds no CUDA GPU here: using cpu",
        "MODEL.DEVICE is 'cuda:7', but the GPUs here are cuda:0 to cuda:1: using cuda",
    ]
    with pytest.raises(InputError, match="cuda:7.*the GPUs here are cuda:0 to cuda:1"):
        check_config(load_config(demo_config("pppc"), ["MODEL.DEVICE", "cuda:7"]))


@pytest.mark.parametrize(
    ("opts", "doubt"),
    [
        ("PPPC.CONTRAST.START_ITER 700", "the contrast never begins"),
        ("SOLVER.WARMUP_ITERS 701", "the learning rate never reaches SOLVER.BASE_LR"),
        ("INPUT.MIN_SIZE_TRAIN (100,)", "no resized source image fills the crop"),
        ("DATASETS.TARGET ('gta_train',)", "source and target are the same images"),
        ("PPPC.AMBIGUITY_CROP.REUSE_LABELS True", "a random crop is chosen without labels"),
    ],
)
def test_what_is_hardly_meant_is_a_warning(opts, doubt, caplog):
    device = ["MODEL.DEVICE", "cpu"]
    with caplog.at_level(logging.WARNING, logger="pppc"):
        check_config(load_config(demo_config("pppc"), device))
        assert not caplog.records
        check_config(load_config(demo_config("pppc"), [*device, *opts.split(" ")]))
    (record,) = caplog.records
    assert opts.split(" ")[0] in record.getMessage() and doubt in record.getMessage()
    assert len(WARNINGS) == 5  # each has a row here


def test_compiling_needs_a_compiler(monkeypatch):
    cfg = load_config(demo_config("pppc"), ["MODEL.DEVICE", "cpu", "MODEL.COMPILE", "default"])
    monkeypatch.setenv("CXX", sys.executable)
    check_config(cfg)
    monkeypatch.setenv("CXX", "no-compiler")
    with pytest.raises(InputError, match="MODEL.COMPILE.*install g"):
        check_config(cfg)


def test_a_configuration_that_detectron2_made_is_checked_too():
    cfg = get_cfg()
    add_pppc_config(cfg)
    cfg.merge_from_file(str(REPOSITORY / "configs/demo_gta_to_cityscapes_pppc.yaml"))
    cfg.MODEL.DEVICE, cfg.TEST.AUG.ENABLED = "cpu", True
    with pytest.raises(InputError, match="TEST.AUG.ENABLED is True, but it has no effect"):
        check_config(cfg)


def test_the_configuration_that_a_run_wrote_is_taken_again(tmp_path):
    cfg = load_config(demo_config("pppc"))
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load_config(tmp_path / "config.yaml")
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())


def ends_with(monkeypatch, capsys, tool: str, *arguments: object) -> tuple[int, str]:
    """The exit status of a tool that runs in this process, and its errors."""
    path = str(REPOSITORY / "tools" / tool)
    monkeypatch.setattr(sys, "argv", [path, *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name="__main__")
    return end.value.code, capsys.readouterr().err


PPPC = "--config-file configs/demo_gta_to_cityscapes_pppc.yaml"
DACS = "--config-file configs/demo_gta_to_cityscapes_dacs.yaml"


@pytest.mark.parametrize(
    ("command", "named", "advice"),
    [
        ("train_net.py --config-file", "--config-file", "expected one argument"),
        ("train_net.py --config-fiel a.yaml SEED 1", "--config-fiel", "--help shows what there is"),
        (f"train_net.py {PPPC} --num-gpus two", "--num-gpus", "invalid int value: 'two'"),
        (f"train_net.py {PPPC} --num-machines 2", "--num-machines", "--dist-url tcp://HOST:PORT"),
        (f"train_net.py {PPPC} --eval-only DATASETS.TEST () MODEL.WEIGHTS a.pth", "DATASETS.TEST",
         "name labeled data sets"),
        (f"train_net.py {PPPC} --eval-only MODEL.WEIGHTS ", "MODEL.WEIGHTS", "give"),
        (f"train_net.py {PPPC} OUTPUT_DIR FILE", "FILE", "choose another OUTPUT_DIR"),
        ("run_experiment.py", "--exp", "none is given"),
        ("run_experiment.py --exp 4", "--exp", "there is no 4"),
        ("run_experiment.py --exp one", "--exp", "invalid int value"),
        ("run_experiment.py --exp 1 --method dac", "--method", "'dacs'"),
        ("run_experiment.py --exp 1 --recipe best", "--recipe", "'recommended'"),
        ("run_experiment.py --exp 1 --method dacs --recipe published", "--recipe", "leave it out"),
        ("run_experiment.py --exp 1 --seeds 43;44", "--seeds", "such as 43,44"),
        ("run_experiment.py --exp 1 --seeds 43,43", "--seeds", "different whole numbers"),
        ("run_experiment.py --exp 1 SEED 43", "SEED", "give --seeds instead"),
        ("run_experiment.py --exp 1 OUTPUT_DIR a", "OUTPUT_DIR", "give --output instead"),
        ("run_experiment.py --exp 1 SOLVER.MAX_ITER", "SOLVER.MAX_ITER", "one key has no value"),
        ("check_datasets.py gta_trian", "gta_trian", "Did you mean gta_train"),
        ("check_datasets.py --deep", "--deep", "--help shows what there is"),
        ("convert_datasets/gta.py", "ROOT", "are required"),
        ("convert_datasets/gta.py NOWHERE", "NOWHERE", "labels"),
        ("convert_datasets/cityscapes.py NOWHERE", "NOWHERE", "gtFine"),
        ("convert_datasets/gta.py FOLDER --nproc 0", "--nproc", "1 or more"),
        ("convert_datasets/synthia.py $NO_SUCH_VARIABLE/a", "ROOT", "set this variable"),
        (f"export_model.py {PPPC} --output NEW.h5", "NEW.h5", "ends in none of .onnx, .pt"),
        (f"export_model.py {PPPC} --output FILE", "FILE", "choose another folder"),
        (f"export_model.py {PPPC} --output NEW.pt MODEL.WEIGHTS ", "MODEL.WEIGHTS", "give"),
        (f"export_dark_zurich.py {PPPC} --output NEW.tar", "NEW.tar", "ends in none of .zip"),
        (f"export_dark_zurich.py {PPPC} --output NOWHERE/a.zip", "NOWHERE", "make it first"),
        (f"export_dark_zurich.py {PPPC} --output NEW.zip --num-images 0", "--num-images", "1 or more"),
        ("predict.py --model NOWHERE --output NEW", "--input", "are required"),
        ("predict.py --model NOWHERE --output NEW --input NOWHERE.png", "NOWHERE.png", "no such file"),
        ("predict.py --model NOWHERE --output NEW --input FOLDER", "FOLDER", "no image or video"),
        ("predict.py --model NOWHERE --output NEW --input NOWHERE*.jpg", "NOWHERE*.jpg",
         "no image or video"),
        ("predict.py --model NOWHERE --output NEW --input docs/demo.png", "NOWHERE", "no checkpoint"),
        ("predict.py --model NOWHERE --output FOLDER --input docs/demo.png", "FOLDER",
         "choose another --output"),
        ("predict.py --model NOWHERE --output FILE --input docs/demo.png", "FILE",
         "choose another --output"),
        ("predict.py --model NOWHERE --output NEW --input docs/demo.png --shard 3/2", "--shard",
         "1/4 to 4/4"),
        (f"research/contrast_gradients.py {DACS}", "PPPC.CONTRAST.ENABLED", "Give a configuration with it"),
        (f"research/contrast_gradients.py {PPPC} --temperatures 0", "--temperatures", "a number above 0"),
        (f"research/contrast_gradients.py {PPPC} --batches -1", "--batches", "1 or more"),
        (f"research/benchmark.py training {PPPC} --rounds 0", "--rounds", "1 or more"),
        (f"research/benchmark.py training {PPPC} --json FOLDER", "FOLDER", "name of a new file"),
        (f"research/soak.py {PPPC} --output FOLDER", "FOLDER", "choose another --output"),
        (f"research/benchmark.py evaluation {PPPC} DATASETS.TEST ()", "DATASETS.TEST", "labeled data set"),
        ("research/study.py NOWHERE.yaml", "NOWHERE.yaml", "Give the name of a YAML file"),
        ("research/study.py FILE", "FILE", "not KEY: VALUE"),
        ("research/study.py docs/study/demo.yaml --jobs 0", "--jobs", "1 or more"),
        ("make_demo_data.py FOLDER", "FOLDER", "name another folder"),
        ("make_demo_data.py FILE/a", "FILE", "name another place"),
        ("make_demo_data.py NEW --size 320", "--size", "such as 320x160"),
        ("make_demo_data.py NEW --size 7x3", "--size", "each from 16 to 8192"),
        ("make_demo_data.py NEW --gta-train -1", "--gta-train", "0 or more"),
        ("run_demo.py --pictures 0", "--pictures", "1 or more"),
        ("run_demo.py --output NEW SOLVER.MAXITER 5", "SOLVER.MAXITER", "did you mean"),
        (f"research/kill_runs.py {PPPC} --output FOLDER", "FOLDER", "choose another --output"),
    ],
)  # fmt: skip
def test_a_tool_names_what_is_wrong_with_its_command_and_writes_nothing(
    command, named, advice, tmp_path, monkeypatch, capsys
):
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER/mine.txt").write_text("mine")
    (tmp_path / "FILE").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(REPOSITORY)
    tool, *arguments = command.split(" ")
    arguments = [
        str(tmp_path / text) if text.startswith(("FILE", "FOLDER", "NEW", "NOWHERE")) else text
        for text in arguments
    ]
    status, errors = ends_with(monkeypatch, capsys, tool, *arguments)
    (line,) = errors.splitlines()
    assert line.startswith("error: ") and named in line and advice in line
    assert status == 2 and sorted(tmp_path.rglob("*")) == before


def test_the_exit_status_of_a_process(tmp_path):
    run = run_tool("train_net.py", "--config-file", tmp_path / "nope.yaml")
    assert run.returncode == 2 and run.stdout == ""
    assert run.stderr.startswith("error: ") and len(run.stderr.splitlines()) == 1


def test_a_bug_keeps_its_traceback(monkeypatch, tmp_path):
    def broken(*arguments: object) -> None:
        raise ValueError("a fault of the program")

    monkeypatch.setattr("demo_data.datasets.map_in_processes", broken)
    tool = str(REPOSITORY / "tools/make_demo_data.py")
    monkeypatch.setattr(sys, "argv", [tool, str(tmp_path / "data")])
    with pytest.raises(ValueError, match="a fault of the program") as caught:
        runpy.run_path(tool, run_name="__main__")
    assert caught.traceback[-1].name == "broken"


@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (KeyError("a fault of the program"), ["This is a fault of the program:"]),
        (InputError("a.png: no image. Give a PNG"), []),
    ],
)
def test_a_bug_is_in_a_run_s_log_and_wrong_input_is_not(error, logged, monkeypatch, caplog):
    def broken(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(train_command, "train", broken)
    monkeypatch.setattr(train_command, "LogFile", list)  # its loggers propagate nothing
    with pytest.raises(type(error)):
        train_command.run(Namespace(config_file=str(demo_config("pppc")), opts=[], eval_only=False))
    assert [record.getMessage() for record in caplog.records] == logged
    assert all(record.exc_info[1] is error for record in caplog.records)


def test_more_processes_than_gpus(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    status, error = ends_with(monkeypatch, capsys, "train_net.py", *PPPC.split(), "--num-gpus", 3)
    assert status == 2
    assert error == "error: --num-gpus is 3: PyTorch finds 2, give that or less\n"
