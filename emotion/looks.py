"""A network that looks at each face more than once, changed in ways that leave its expression, and answers with the mean.

An expression and its mirror image are the same expression, and so is a face that is a little nearer or further off. Where the
network's answers to them differ, it is their noise that the mean takes away. Training changes faces at random in the same ways,
so all views are familiar. Each look costs the time of one. Keras only.
Source: Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 4.1 (ten crops).
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops


@dataclass(frozen=True)
class Look:
    """One way to see a face.

    Attributes:
        mirror: left and right exchanged.
        size: of the face against what it was; above 1 cuts the border off, below 1 repeats the picture's edge.
    """

    mirror: bool = False
    size: float = 1.0


LOOKS = {
    1: (Look(),),
    2: (Look(), Look(mirror=True)),
    4: (Look(), Look(mirror=True), Look(size=0.92), Look(mirror=True, size=1.1)),
}
"""How many looks -> which. The sizes were chosen on PublicTest among shifts, turns and sizes tried with one network."""


def with_looks(model: keras.Model, count: int, *, portable: bool = True) -> keras.Model:
    """Returns a model that averages the logits over several looks at each face.

    For finished models: the last layer's weights are copied, so training goes on in `model` alone.

    Args:
        model: grey levels (n, 48, 48, 1) -> probabilities (n, 7) from a dense softmax layer named "probabilities", or
            [probabilities, evidence (n, h, w, 7)] as `emotion.activation.with_activation_map` makes it.
        count: how many looks, a key of `LOOKS`.
        portable: change pictures by layers that also an .h5 file can hold; else by operations that int8 arithmetic leaves exact.

    Returns:
        The same input -> the same outputs; for one look, the model itself. The evidence of a mirror image is mirrored back before
        it is averaged, so that it still adds up to the probabilities; that a face was a tenth larger is less than a place of the
        map and is left as it is.

    Raises:
        ValueError: an unknown count.
    """
    if count not in LOOKS:
        raise ValueError(f"looks must be one of {', '.join(map(str, LOOKS))}. Received: {count!r}")
    if count == 1:
        return model
    network = _with_logits(model)
    inputs = keras.Input(model.input_shape[1:], name="grey")
    seen = [network(_seen(inputs, look, portable)) for look in LOOKS[count]]
    many = isinstance(seen[0], list | tuple)
    logits = layers.Average(dtype="float32")([answer[0] if many else answer for answer in seen])
    outputs = layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    if many:
        evidence = [ops.flip(e, axis=2) if look.mirror else e for look, (_, e) in zip(LOOKS[count], seen, strict=True)]
        outputs = [outputs, sum(evidence) / count]
    return keras.Model(inputs, outputs, name=f"{model.name}_{count}_looks")


def _with_logits(model: keras.Model) -> keras.Model:
    """The same network without its softmax, and with its evidence, if it gives any."""
    dense = model.get_layer("probabilities")
    linear = layers.Dense(dense.units, dtype="float32", name="logits")
    logits = linear(dense.input)
    linear.set_weights(dense.get_weights())
    return keras.Model(model.inputs[0], [logits, *model.outputs[1:]] if len(model.outputs) > 1 else logits, name=model.name)


def _seen(pictures, look: Look, portable: bool):
    """A picture as a look sees it: first its columns are resampled, then its rows."""
    _, height, width, _ = pictures.shape
    across, down = _places(width, look.size, look.mirror), _places(height, look.size)
    if not portable:
        pictures = ops.flip(pictures, axis=2) if look == Look(mirror=True) else _resampled(pictures, across, axis=2)
        return _resampled(pictures, down, axis=1)
    if look == Look():
        return pictures
    x = _resampled_by_layers(layers.Reshape((height, width))(pictures), across)
    if look.size != 1:
        x = layers.Permute((2, 1))(_resampled_by_layers(layers.Permute((2, 1))(x), down))
    return layers.Reshape((height, width, 1))(x)


def _places(side: int, size: float, mirror: bool = False) -> np.ndarray:
    """Where each new line of pixels lies among the old ones, about the centre; beyond the edge it is the edge."""
    centre = (side - 1) / 2
    places = np.clip(centre + (np.arange(side) - centre) / size, 0, side - 1)
    return places[::-1] if mirror else places


def _resampled(pictures, places: np.ndarray, axis: int):
    """Linear interpolation along one axis."""
    if np.array_equal(places, np.arange(len(places))):
        return pictures
    low = np.floor(places).astype(int)
    share = (places - low).astype(np.float32)
    lower, upper = (ops.take(pictures, np.minimum(low + step, len(places) - 1), axis=axis) for step in (0, 1))
    share = share.reshape([-1 if a == axis else 1 for a in range(4)])
    return lower * (1 - share) + upper * share


def _resampled_by_layers(rows, places: np.ndarray):
    """Linear interpolation along the last axis, as a dense layer."""
    side, low = len(places), np.floor(places).astype(int)
    matrix = np.zeros((side, side), np.float32)
    matrix[low, np.arange(side)] += 1 - (places - low)
    matrix[np.minimum(low + 1, side - 1), np.arange(side)] += places - low
    dense = layers.Dense(side, use_bias=False, trainable=False, dtype="float32")
    resampled = dense(rows)
    dense.set_weights([matrix])
    return resampled
