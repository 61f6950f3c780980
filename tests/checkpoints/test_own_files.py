"""Files of this project's models, also as other programs save them, and on several processes."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.modeling import build_model
from pppc.checkpoints.checkpointer import StrictCheckpointer
from pppc.errors import InputError
from tiny_run import tiny_config
from torch.nn.parallel import DistributedDataParallel


@pytest.fixture(scope="module")
def trained():
    """A configuration, and a model of it with weights of its own."""
    cfg = tiny_config("unused")
    torch.manual_seed(7)
    return cfg, build_model(cfg)


def loaded(cfg, path, **options) -> torch.nn.Module:
    torch.manual_seed(8)
    model = build_model(cfg)
    StrictCheckpointer(model, cfg=cfg, **options).load(str(path))
    return model


def assert_equal(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("prefix", ["", "model.", "net.segmentor.", "_forward_module.model."])
def test_a_model_is_taken_whole_whatever_stands_before_its_names(prefix, trained, tmp_path, caplog):
    """As Lightning saves it, for one."""
    cfg, model = trained
    state = {prefix + key: value for key, value in model.state_dict().items()}
    if prefix:
        state |= {"criterion.weight": torch.ones(19), "val_iou.confmat": torch.ones(19, 19)}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.4"}, tmp_path / "last.ckpt")
    assert_equal(loaded(cfg, tmp_path / "last.ckpt").state_dict(), model.state_dict())
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == bool(prefix)
    left = f"2 of its {len(state)} tensors are not used: criterion.weight, val_iou.confmat"
    assert all(left in warning for warning in warnings)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_student_alone_has_its_decoder(prefix, trained, tmp_path):
    cfg, model = trained
    state = {prefix + key: value for key, value in model.student.state_dict().items()}
    torch.save(state, tmp_path / "student.pth")
    ours = loaded(cfg, tmp_path / "student.pth").student
    assert_equal(ours.state_dict(), model.student.state_dict())


def test_of_two_segmentors_the_trained_one_is_taken(trained, tmp_path, caplog):
    cfg, model = trained
    state = {f"ema.{key}": value + 1 for key, value in model.state_dict().items()}
    state |= {f"net.{key}": value for key, value in model.state_dict().items()}
    torch.save(state, tmp_path / "both.pth")
    assert_equal(loaded(cfg, tmp_path / "both.pth").state_dict(), model.state_dict())
    assert f"{len(state) // 2} of its {len(state)} tensors are not used: ema." in caplog.text


@pytest.mark.parametrize("name", ["a?b.pth", "a#b%20c&d=e.pth"])
def test_a_file_s_name_is_taken_as_it_is(name, trained, tmp_path):
    cfg, model = trained
    torch.save({"model": model.state_dict()}, tmp_path / name)
    assert_equal(loaded(cfg, tmp_path / name, trained=True).state_dict(), model.state_dict())


def process(rank: int, folder: str, cfg) -> None:
    torch.set_num_threads(1)  # threads do not survive a fork
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.manual_seed(rank)
    model = DistributedDataParallel(build_model(cfg), broadcast_buffers=False)
    checkpointer = StrictCheckpointer(model, cfg=cfg)
    checkpointer.load(f"{folder}/same.pth")
    torch.save(model.module.state_dict(), f"{folder}/loaded_{rank}.pth")
    try:
        checkpointer.load(f"{folder}/{rank}/weights.pth")
    except InputError as error:
        torch.save(str(error), f"{folder}/said_{rank}.pth")
    dist.destroy_process_group()


def test_all_processes_have_the_same_weights_or_none_trains(trained, tmp_path):
    """Of an encoder's file, so that the rest are the random numbers of one process."""
    cfg, model = trained
    encoder = model.student.backbone.model.state_dict()
    both = {f"encoder_{name}.{k}": v for name in "kq" for k, v in encoder.items()}
    torch.save(both, tmp_path / "same.pth")
    for rank in range(2):
        (tmp_path / str(rank)).mkdir()
        torch.save({k: v + rank for k, v in encoder.items()}, tmp_path / f"{rank}/weights.pth")
    mp.start_processes(process, (str(tmp_path), cfg), nprocs=2, start_method="fork")
    one, other = (torch.load(tmp_path / f"loaded_{rank}.pth") for rank in range(2))
    assert_equal(one, other)
    said = [torch.load(tmp_path / f"said_{rank}.pth") for rank in range(2)]
    assert all("weights.pth gave process 1 other weights than process 0" in line for line in said)
