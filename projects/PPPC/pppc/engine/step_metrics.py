"""What a training step found, into the storage that Detectron2's writers read."""

import math
from collections.abc import Mapping

import torch
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor

from ..errors import InputError
from ..processes import sum_over_processes


def write_metrics(
    losses: Mapping[str, Tensor],
    scalars: Mapping[str, Tensor],
    data_time: float,
    files: tuple[str, ...],
) -> None:
    """Put the processes' means into the storage: all at once, since each reading waits for a device.

    Args:
        losses: by their names, of which the sum is "total_loss".
        scalars: what else there is.
        data_time: seconds that this process has waited for its batch.
        files: of the batch, for the error.

    Raises:
        InputError: training has failed on a batch of ``files``, of any process.
    """
    found = {**losses, **scalars}
    values = torch.stack([value.float() for value in found.values()])
    finite = values[: len(losses)].isfinite().all()
    values = torch.cat([values, values.new_full((1,), data_time), finite[None]])
    *means, data_time, finite = (sum_over_processes(values) / comm.get_world_size()).tolist()
    if finite < 1:
        _refuse(losses, files)
    storage = get_event_storage()
    for name, value in zip(found, means):
        if not math.isnan(value):
            storage.put_scalar(name, value, smoothing_hint=not name.startswith("crop/"))
    storage.put_scalar("data_time", data_time)
    storage.put_scalar("total_loss", sum(means[: len(losses)]))


def _refuse(losses: Mapping[str, Tensor], files: tuple[str, ...]) -> None:
    """End training in all processes alike, which all call this."""
    wrong = [f"{name} is {value.item()}" for name, value in losses.items() if not value.isfinite()]
    for found, images in comm.all_gather((wrong, files if wrong else ())):
        if found:
            raise InputError(
                f"iteration {get_event_storage().iter}: {', '.join(found)}, with the images "
                f"{', '.join(images)}. Look at them, and lower SOLVER.BASE_LR or, in float16, train in "
                "bfloat16 (SOLVER.AMP.TYPE). Checkpoints are not affected"
            )
