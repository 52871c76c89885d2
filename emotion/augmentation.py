"""Random changes of training pictures, as one Keras layer that works under every backend.

One layer instead of a chain of Keras' own: flip, rotation, zoom and shift become a single resampling (a chain blurs a 48x48 face
once per layer), and its random state is one variable, which a checkpoint can carry.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops


@dataclass(frozen=True)
class Augmentation:
    """How strongly training pictures are changed; the zero of each field leaves that change out.

    Attributes:
        flip: whether half of the pictures are mirrored left to right.
        rotation: largest turn to either side, degrees.
        zoom: largest relative change of size, 0..1.
        shift: largest shift in x and in y, share of the side, 0..1.
        brightness: largest grey-level offset, share of 255.
        contrast: largest relative change of the spread around the picture's mean, 0..1.
        erase: probability that a rectangle (side 10-40 % of the picture's) is replaced by one random grey level.
    """

    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    erase: float = 0.0

    def __post_init__(self):
        for name in ("zoom", "shift", "brightness", "contrast", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in 0..1. Received: {getattr(self, name)}")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation must lie in 0..180 degrees. Received: {self.rotation}")


NONE = Augmentation()
STANDARD = Augmentation(flip=True, rotation=15, zoom=0.15, shift=0.1, brightness=0.1, contrast=0.2)


@keras.saving.register_keras_serializable(package="emotion")
class RandomAugment(keras.layers.Layer):
    """Applies an `Augmentation` in training and passes pictures through otherwise.

    Input and output: float32 (n, h, w, 1), grey levels 0..255. Pixels that a move brings in repeat the edge.
    """

    def __init__(self, augmentation: Augmentation | dict = NONE, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.augmentation = Augmentation(**augmentation) if isinstance(augmentation, dict) else augmentation
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        if not training or self.augmentation == NONE:
            return images
        images = self._move(images)
        images = self._relight(images)
        return self._erase(images) if self.augmentation.erase else images

    def _uniform(self, count, low, high):
        return keras.random.uniform((count, 1), low, high, seed=self.seed_generator)

    def _move(self, images):
        """One affine resampling; its matrix maps output points to input points, about the centre."""
        a = self.augmentation
        count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        if not (a.flip or a.rotation or a.zoom or a.shift):
            return images
        angle = self._uniform(count, -a.rotation, a.rotation) * (np.pi / 180)
        scale = 1 + self._uniform(count, -a.zoom, a.zoom)
        dx = self._uniform(count, -a.shift, a.shift) * width
        dy = self._uniform(count, -a.shift, a.shift) * height
        mirror = ops.where(self._uniform(count, 0.0, 1.0) < (0.5 if a.flip else 0.0), -1.0, 1.0)
        cos, sin = ops.cos(angle) * scale, ops.sin(angle) * scale
        cx, cy = (width - 1) / 2, (height - 1) / 2
        zeros = ops.zeros_like(cos)
        ax, bx = cos * mirror, sin * mirror
        matrix = ops.concatenate(
            [ax, -sin, cx - ax * cx + sin * cy + dx, bx, cos, cy - bx * cx - cos * cy + dy, zeros, zeros], axis=1
        )
        return ops.image.affine_transform(images, matrix, "bilinear", fill_mode="nearest", data_format="channels_last")

    def _relight(self, images):
        a = self.augmentation
        if not (a.brightness or a.contrast):
            return images
        shape = (ops.shape(images)[0], 1, 1, 1)
        mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
        gain = keras.random.uniform(shape, 1 - a.contrast, 1 + a.contrast, seed=self.seed_generator)
        offset = keras.random.uniform(shape, -255 * a.brightness, 255 * a.brightness, seed=self.seed_generator)
        return ops.clip((images - mean) * gain + mean + offset, 0.0, 255.0)

    def _erase(self, images):
        """Covers a rectangle in some of the pictures (Zhong et al. 2020, "Random Erasing Data Augmentation")."""
        count, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        covered = []
        for side in (height, width):
            length = self._uniform(count, 0.1, 0.4) * side
            start = self._uniform(count, 0.0, 1.0) * (side - length)
            steps = ops.reshape(ops.arange(side, dtype="float32"), (1, side))
            covered.append(ops.logical_and(steps >= start, steps < start + length))
        mask = ops.logical_and(ops.expand_dims(covered[0], 2), ops.expand_dims(covered[1], 1))
        chosen = ops.reshape(self._uniform(count, 0.0, 1.0) < self.augmentation.erase, (count, 1, 1))
        grey = ops.reshape(self._uniform(count, 0.0, 255.0), (count, 1, 1, 1))
        return ops.where(ops.expand_dims(ops.logical_and(mask, chosen), 3), grey, images)

    def get_config(self):
        return {**super().get_config(), "augmentation": vars(self.augmentation), "seed": self.seed}
