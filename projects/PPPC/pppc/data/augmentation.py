"""Resizing, crops and flips, as Detectron2's augmentations."""

from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from detectron2.data import transforms as T

from .labels import pixel_histogram


@contextmanager
def numpy_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which Detectron2's augmentations draw from, and restore it."""
    state = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(state)


class _BilinearResize(T.ResizeTransform):
    """Each pixel of an image between its four nearest of before, whatever the scale."""

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        if interp is not None:  # of labels
            return super().apply_image(img, interp)
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)


class _BilinearResizeShortestEdge(T.ResizeShortestEdge):
    def get_transform(self, image: np.ndarray) -> T.Transform:
        resize = super().get_transform(image)
        if isinstance(resize, T.ResizeTransform):
            return _BilinearResize(resize.h, resize.w, resize.new_h, resize.new_w)
        return resize


class CropOfSeveralClasses(T.RandomCrop_CategoryAreaConstraint):
    """Detectron2's, with the same draws; its count of each class took longer than all the rest."""

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray) -> T.Transform:
        """The first of ten crops in which no class fills too much, or the tenth."""
        for _ in range(10):
            crop = self.crop_aug.get_transform(sem_seg)
            pixels = pixel_histogram(crop.apply_segmentation(sem_seg))
            pixels[self.ignored_category] = 0
            most = self.single_category_max_area
            if most >= 1 or pixels.max() < most * pixels.sum():
                break
        return crop


# By the values of INPUT.RESIZING: to a shortest side, and to a size.
RESIZING = {"antialiased": T.ResizeShortestEdge, "bilinear": _BilinearResizeShortestEdge}
RESIZING_TO = {"antialiased": T.ResizeTransform, "bilinear": _BilinearResize}


def random_flip(direction: str) -> T.AugmentationList:
    """Flips half of the images "horizontal" or "vertical", or "none"."""
    if direction == "none":
        return T.AugmentationList([])
    vertical = direction == "vertical"
    return T.AugmentationList([T.RandomFlip(horizontal=not vertical, vertical=vertical)])
