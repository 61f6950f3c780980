"""What the trainer and its loop promise beside the step itself."""

import itertools
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.engine import hooks
from PIL import Image
from pppc.checkpoints.trained_model import trained_model
from pppc.data import build_train_loader, class_frequencies
from pppc.data.catalog import dataset_records
from pppc.engine import AdaptationLoop, Trainer
from pppc.engine.hooks import StepGenerator
from pppc.engine.trainer import freeze_unused
from pppc.errors import InputError
from tiny_run import tiny_config


def test_a_loss_that_is_not_finite_names_its_files_and_leaves_the_weights(tmp_path, datasets_root):
    cfg = tiny_config(tmp_path, "SOLVER.BASE_LR", 1e30, "SOLVER.WARMUP_ITERS", 0, "VIS_PERIOD", 0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    with pytest.raises(InputError, match="loss_.* is nan.*lower SOLVER.BASE_LR") as error:
        trainer.train()
    message = str(error.value)
    assert "gta/images/" in message and "cityscapes/leftImg8bit/" in message
    assert trainer.iter < 4 and not list(tmp_path.glob("model_final.pth"))


def test_stages_that_no_head_takes_are_frozen(datasets_root, tmp_path):
    cfg = tiny_config(
        tmp_path, "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['stage1', 'stage2']", method="dacs"
    )
    model = Trainer.build_model(cfg)
    unused = freeze_unused(model, (48, 64))
    assert unused
    for name, parameter in model.student.named_parameters():
        in_use = not name.startswith(("backbone.model.layer3.", "backbone.model.layer4."))
        assert parameter.requires_grad == in_use == (name not in unused), name
    assert all(parameter.grad is None for parameter in model.student.parameters())
    assert freeze_unused(Trainer.build_model(tiny_config(tmp_path)), (48, 64)) == []


def test_a_batch_too_small_for_the_decoder_is_an_error_before_training(datasets_root, tmp_path):
    cfg = tiny_config(
        tmp_path, "MODEL.SEM_SEG_HEAD.NAME", "SeparableDeepLabV3PlusHead", "SOLVER.IMS_PER_BATCH", 1,
        "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['stage1', 'stage4']",
    )  # fmt: skip
    with pytest.raises(InputError, match="SOLVER.IMS_PER_BATCH is 1"):
        Trainer(cfg)


def generator_of(monkeypatch, seed: int, iteration: int, rank: int) -> torch.Generator:
    hook = StepGenerator(seed)
    hook.trainer = SimpleNamespace(iter=iteration)
    monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: rank)
    hook.before_step()
    return hook.generator


def test_each_step_of_each_process_has_random_numbers_of_its_own(monkeypatch):
    draws = set()
    for place in itertools.product((0, 1, 43, 2**40), (0, 1, 39_999), (0, 1, 7)):
        generator = generator_of(monkeypatch, *place)
        draws.add(torch.randint(2**62, (), generator=generator).item())
        draws.add(torch.randint(2**62, ()).item())  # of dropout
    assert len(draws) == 2 * 4 * 3 * 3
    state = generator_of(monkeypatch, 43, 7, 0).get_state()
    assert torch.equal(state, generator_of(monkeypatch, 43, 7, 0).get_state())


def test_a_bare_loop_with_its_hooks_equals_the_trainer(datasets_root, tmp_path):
    """Of the trainer's hooks the loop needs none beside its own and the learning rate."""
    cfg = tiny_config(tmp_path, "SOLVER.MAX_ITER", 3, "DATASETS.TEST", "()", "VIS_PERIOD", 0)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    cfg.defrost()
    cfg.PPPC.CLASS_WEIGHTS.FREQUENCIES = class_frequencies(cfg)  # which the trainer counts itself
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    loader = build_train_loader(cfg, cfg.SEED)
    loop = AdaptationLoop.from_config(cfg, model, loader, optimizer)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    loop.register_hooks([*loop.hooks(), hooks.LRScheduler(optimizer, scheduler)])
    loop.train(0, 3)
    ours, theirs = model.state_dict(), trainer._trainer.segmentor.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_16_bits_have_the_range_of_training_in_tests_predictions_and_after_a_resume(
    datasets_root, tmp_path, monkeypatch, caplog
):
    shutil.copytree(datasets_root, tmp_path / "data")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))

    def make_16_bits(part, factor):
        for file in (tmp_path / "data/cityscapes/leftImg8bit" / part).glob("*/*.png"):
            with Image.open(file) as image:
                gray = np.asarray(image.convert("L")).astype(np.uint16)
            Image.fromarray(gray * factor).save(file)

    make_16_bits("train", 12)
    make_16_bits("val", 6)  # half as bright
    opts = ["SOLVER.MAX_ITER", 1, "SOLVER.CHECKPOINT_PERIOD", 1, "TEST.EVAL_PERIOD", 0]
    cfg = tiny_config(tmp_path / "run", *opts)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    low, high = kept = trainer.data_loader.intensities
    assert 0 <= low < 600 and 2000 < high <= 12 * 255
    trainer.train()
    cfg = tiny_config(
        tmp_path / "run", *opts, "MODEL.WEIGHTS", str(tmp_path / "run/model_final.pth")
    )
    model = trained_model(cfg)
    assert tuple(model.intensities.tolist()) == kept
    seen = []

    def loader(cfg, name):
        seen.extend(record["intensities"] for record in dataset_records(cfg, name))
        raise InputError("seen")

    monkeypatch.setattr(Trainer, "build_test_loader", loader)
    with pytest.raises(InputError, match="seen"):
        Trainer.test(cfg, model)
    assert set(seen) == {kept}
    for file in (tmp_path / "data/cityscapes/leftImg8bit/train").glob("*/*.png"):
        with Image.open(file) as image:
            brighter = np.asarray(image).astype(np.uint16) * 2
        Image.fromarray(brighter).save(file)
    trainer = Trainer(tiny_config(tmp_path / "run", *opts, "SOLVER.MAX_ITER", 2))
    assert trainer.data_loader.intensities != kept
    trainer.resume_or_load(True)
    assert trainer.data_loader.intensities == kept and "become 0 to 255 as before" in caplog.text
