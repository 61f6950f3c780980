"""What a run says of its target crops."""

import json

import pytest
from pppc.engine import Trainer
from tiny_run import tiny_config

# As many pixels as rare classes have some of in a batch.
LARGER = [
    "INPUT.CROP.SIZE", "[128, 192]", "INPUT.MIN_SIZE_TRAIN", "(160,)", "INPUT.MAX_SIZE_TRAIN", "320",
    "INPUT.TARGET.MIN_SIZE", "160", "INPUT.TARGET.MAX_SIZE", "320", "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "8", "TEST.EVAL_PERIOD", "0", "VIS_PERIOD", "0",
    "DATASETS.TEST", "()",
]  # fmt: skip


@pytest.mark.parametrize("recipe", ["pppc_published", "pppc"])
def test_the_published_crop_weighs_many_classes_and_every_run_says_so(
    datasets_root, tmp_path, recipe
):
    start = 2 if recipe == "pppc" else 0
    options = (*LARGER, "PPPC.SELF_TRAINING.START", start / 8)
    trainer = Trainer(tiny_config(tmp_path, *options, method=recipe))
    trainer.resume_or_load(resume=False)
    trainer.train()
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    last = {key: value for line in lines for key, value in json.loads(line).items()}
    taught = trainer.storage.history("pseudo_label/confident_share").values()
    assert [iteration for _, iteration in taught] == list(range(start, 8))
    scales = [scale for scale, _ in trainer.storage.history("contrast/scale").values()]
    assert [scale > 0 for scale in scales] == [False] * max(start, 1) + [True] * (
        7 - max(start, 1)
    ) + [False]
    if recipe == "pppc":
        assert last["crop/by_chance"] == last["crop/gain"] == 1  # it is random
        assert 0 < last["crop/weights_entropy"] < 1
        return
    # Of a model that says one class alone, as it may after a few steps, boxes are chosen by chance.
    chances, gains = (
        [value for value, _ in trainer.storage.history(f"crop/{name}").values()]
        for name in ("by_chance", "gain")
    )
    assert min(chances) < 1 and max(gains) > 1
    entropies = [value for value, _ in trainer.storage.history("crop/weights_entropy").values()]
    # None before the first prototypes; after them alone, a class of one pixel outweighs all.
    assert len(entropies) == 7 and last["crop/weights_entropy"] == entropies[-1]
    assert all(0.3 < value < 0.95 for value in entropies[1:])
