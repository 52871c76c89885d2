"""Class activation maps: a second output that shows where in the face a network found its evidence. Keras only.

Source: Zhou et al. 2016, "Learning Deep Features for Discriminative Localization". For networks that end in global average
pooling and one dense layer such a map is exact and costs one matrix product, no gradients: averaging and weighting commute.
`emotion.explain.activation_map` turns it into a heat map.
"""

import keras
from keras import layers


def with_activation_map(model: keras.Model) -> keras.Model:
    """Returns a model that also says where its evidence lies.

    For finished models: the map's weights are a copy of the dense layer's, so training goes on in `model` alone.

    Args:
        model: grey levels (n, 48, 48, 1) -> probabilities (n, 7), ending in GlobalAveragePooling2D, perhaps Dropout, and Dense
            with softmax.

    Returns:
        The same input -> [probabilities (n, 7), class evidence float32 (n, h, w, 7)]. The evidence's mean over h and w plus the
        dense layer's bias, through softmax, is the probabilities.

    Raises:
        ValueError: the model ends in another way, such as `custom_cnn` with its Flatten.
    """
    tail = [layer for layer in model.layers[-3:] if not isinstance(layer, layers.Dropout)][-2:]
    kinds = [type(layer) for layer in tail]
    if kinds != [layers.GlobalAveragePooling2D, layers.Dense] or tail[1].activation is not keras.activations.softmax:
        last = ", ".join(type(layer).__name__ for layer in model.layers[-3:])
        raise ValueError(
            "for an activation map a model must end in GlobalAveragePooling2D, perhaps Dropout, and Dense with softmax. "
            f"Received: {model.name}, which ends in {last}"
        )
    pooling, dense = tail
    # The dense layer applied at every place before the average is taken; the bias belongs to no place.
    everywhere = layers.Conv2D(dense.units, 1, use_bias=False, dtype="float32", trainable=False, name="class_evidence")
    evidence = everywhere(pooling.input)
    everywhere.kernel.assign(keras.ops.reshape(dense.kernel, everywhere.kernel.shape))
    return keras.Model(model.inputs[0], [model.outputs[0], evidence], name=model.name)
