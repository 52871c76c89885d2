"""A network that looks at each face and at its mirror image, and answers with the mean of both. Keras only.

An expression and its mirror image are the same expression; where the network's two answers differ, it is their noise that the
mean takes away. Training already flips at random, so both views are familiar. It costs a second look.
"""

import keras
import numpy as np
from keras import layers, ops


def with_mirror(model: keras.Model, *, portable: bool = True) -> keras.Model:
    """Returns a model that averages the logits over a face and its mirror image.

    For finished models: the last layer's weights are copied, so training goes on in `model` alone.

    Args:
        model: grey levels (n, 48, 48, 1) -> probabilities (n, 7) from a dense softmax layer named "probabilities", or
            [probabilities, evidence (n, h, w, 7)] as `emotion.activation.with_activation_map` makes it.
        portable: mirror by layers that also an .h5 file can hold; else by one operation, which int8 arithmetic leaves exact.

    Returns:
        The same input -> the same outputs. The evidence of the mirror image is mirrored back before it is averaged, so that it
        still adds up to the probabilities.
    """
    network = _with_logits(model)
    inputs = keras.Input(model.input_shape[1:], name="grey")
    turned = _mirror_by_layers(inputs) if portable else ops.flip(inputs, axis=2)
    seen, mirrored = network(inputs), network(turned)
    many = isinstance(seen, list | tuple)
    logits = layers.Average(dtype="float32")([seen[0], mirrored[0]] if many else [seen, mirrored])
    outputs = layers.Activation("softmax", dtype="float32", name="probabilities")(logits)
    if many:
        outputs = [outputs, (seen[1] + ops.flip(mirrored[1], axis=2)) / 2]
    return keras.Model(inputs, outputs, name=f"{model.name}_mirrored")


def _with_logits(model: keras.Model) -> keras.Model:
    """The same network without its softmax, and with its evidence, if it gives any."""
    dense = model.get_layer("probabilities")
    linear = layers.Dense(dense.units, dtype="float32", name="logits")
    logits = linear(dense.input)
    linear.set_weights(dense.get_weights())
    return keras.Model(model.inputs[0], [logits, *model.outputs[1:]] if len(model.outputs) > 1 else logits, name=model.name)


def _mirror_by_layers(pictures):
    _, height, width, _ = pictures.shape
    rows = layers.Reshape((height, width))(pictures)
    swap = layers.Dense(width, use_bias=False, trainable=False, dtype="float32", name="mirror")
    mirrored = swap(rows)
    swap.set_weights([np.eye(width, dtype=np.float32)[::-1]])
    return layers.Reshape((height, width, 1))(mirrored)
