"""How often a training step waits for its device, counted on the CPU."""

import pytest
import timm
import torch
from detectron2.modeling import build_model
from pppc.engine.adaptation_loop import AdaptationLoop
from pppc.pixel_batch import PixelBatch
from tiny_run import SMALL, default_config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

# What asks a GPU for a number, or for as many values as it will find.
WAITING = {
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "bincount", "_unique2", "unique_dim",
    "unique_consecutive",
}  # fmt: skip


def tensors_in(*values: object) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(values)
    return [value for value in leaves if isinstance(value, torch.Tensor)]


class Waits(TorchDispatchMode):
    """Notes each operation that would wait for a GPU, as if all tensors were on one.

    Not those of ``on_cpu``, what a generator on the CPU has drawn, and what comes of these alone.
    """

    def __init__(self, *on_cpu: torch.Tensor):
        super().__init__()
        self.found: list[str] = []
        self.on_cpu = WeakIdKeyDictionary({tensor: True for tensor in on_cpu})

    def note(self, name: str, tensor: torch.Tensor) -> None:
        if tensor not in self.on_cpu:
            self.found.append(name)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        given = tensors_in(args, kwargs)
        indices = (
            args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        )
        is_mask = any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)
        if name in WAITING or is_mask:
            self.note(name, args[0])
        result = function(*args, **kwargs)
        if "generator" in kwargs or (
            given and name != "_to_copy" and all(tensor in self.on_cpu for tensor in given)
        ):
            self.on_cpu.update({tensor: True for tensor in tensors_in(result)})
        return result


@pytest.mark.parametrize(("others_parts", "labels_on_cpu"), [(False, True), (True, False)])
def test_a_step_waits_for_its_device_twice(monkeypatch, tmp_path, others_parts, labels_on_cpu):
    """Once to choose the crop, once to read the losses; labels that are on the device are counted there.

    With other methods' parts and few pixels of each class, too.
    """
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "encoder.pth")
    cfg = default_config(
        *SMALL, "PPPC.SELF_TRAINING.THRESHOLD", 0.06, "PPPC.SELF_TRAINING.STATIC_CLASSES", ("road",),
        "PPPC.CONTRAST.MAX_PIXELS_PER_CLASS", 4 * others_parts, "INPUT.CROP.SIZE", (32, 48),
        "DATASETS.TRAIN", ("gta_train",), "SEED", 0, "MODEL.WEIGHTS", str(tmp_path / "encoder.pth"),
        "PPPC.MASKING.LOSS_WEIGHT", 1.0 * others_parts,
        "PPPC.FEATURE_DISTANCE.LOSS_WEIGHT", 0.005 * others_parts,
        "PPPC.IMAGENET_PROTOTYPES.USE", "always" if others_parts else "never",
    )  # fmt: skip
    segmentor = build_model(cfg).train()
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (2, 3, 48, 64), generator=generator, dtype=torch.uint8)
    label = torch.randint(19, (2, 32, 48), generator=generator, dtype=torch.uint8)
    pairs = [(PixelBatch(image[..., :32, :48], label), PixelBatch(image))] * 3
    # AdamW's counters of steps, which it reads, stay on the CPU.
    optimizer = torch.optim.SGD(segmentor.student.parameters(), lr=0.01)
    loop = AdaptationLoop.from_config(cfg, segmentor, pairs, optimizer)
    waits = Waits(image, label) if labels_on_cpu else Waits(image)
    to_list, to_cpu = torch.Tensor.tolist, torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "tolist", lambda t: (waits.note("tolist", t), to_list(t))[1])
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: (waits.note("cpu", t), to_cpu(t))[1])
    loop.register_hooks(loop.hooks())
    with waits:
        loop.train(4000, 4003)
    counting = [] if labels_on_cpu else ["bincount", "nonzero"]
    assert waits.found == [*counting, "tolist", "tolist"] * 3
