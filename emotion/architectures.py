"""Networks: each builder returns an uncompiled `keras.Model`, grey levels 0..255 (n, 48, 48, 1) -> probabilities (n, 7).

Scaling lives inside the model, so that training and serving cannot disagree. The last layer computes in float32 under any
precision policy.
"""

import inspect
import math

import keras
from keras import layers

from emotion.labels import EMOTIONS
from emotion.transfer import INPUT_SHAPE, face_resnet, load_body, mobilenet, mobilenet_v2, resnet50, vgg16, vgg16_norm


def custom_cnn(
    filters: tuple[int, ...] = (32, 64, 128), dense: int = 256, dropout: float = 0.5, batch_norm: bool = False
) -> keras.Model:
    """The small network that one writes first: a block of Conv 3x3 + MaxPool 2x2 per entry of `filters`, then a dense layer.

    Args:
        filters: channels of each block.
        dense: units of the hidden dense layer.
        dropout: share of hidden units dropped in training, 0..1.
        batch_norm: whether each convolution and the hidden dense layer are followed by batch normalisation.
    """
    inputs = keras.Input(INPUT_SHAPE, name="grey")
    x = layers.Rescaling(1 / 255)(inputs)
    for count in filters:
        x = layers.Conv2D(count, 3, padding="same", use_bias=not batch_norm)(x)
        if batch_norm:
            x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(dense, use_bias=not batch_norm)(x)
    if batch_norm:
        x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(dropout)(x)
    return keras.Model(inputs, _probabilities(x), name="custom_cnn")


def se_resnet(
    widths: tuple[int, ...] = (32, 64, 128, 256),
    blocks: tuple[int, ...] = (2, 2, 2, 2),
    first_stride: int = 1,
    squeeze: int = 8,
    dropout: float = 0.3,
    drop_path: float = 0.0,
    classes: int = len(EMOTIONS),
    weights: str | None = None,
) -> keras.Model:
    """A pre-activation residual network with squeeze-and-excitation for 48x48 pictures, about 3 M parameters as it stands.

    Global average pooling and one dense layer end it, so that its class activation map costs one more matrix product.
    Sources: He et al. 2016 ("Identity Mappings in Deep Residual Networks"), Hu et al. 2018 ("Squeeze-and-Excitation Networks").

    Args:
        widths: channels of each stage; every stage after the first halves the resolution.
        blocks: residual blocks of each stage.
        first_stride: 1 keeps 48x48 in the first stage, 2 starts at 24x24 and is about three times as fast.
        squeeze: channel reduction inside squeeze-and-excitation; 0 leaves it out.
        dropout: before the dense layer.
        drop_path: share of residual branches dropped in the last block, rising linearly from 0 in the first
            (Huang et al. 2016, "Deep Networks with Stochastic Depth").
        classes: number of answers.
        weights: path of body weights that `emotion.pretraining` made for the same widths and blocks, or None.
    """
    inputs = keras.Input(INPUT_SHAPE, name="grey")
    x = layers.Rescaling(1 / 64, offset=-2)(inputs)
    x = layers.Conv2D(widths[0], 3, strides=first_stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
    total, index = sum(blocks), 0
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for block in range(count):
            rate = drop_path * index / max(total - 1, 1)
            x = _residual_block(x, width, 2 if stage and not block else 1, squeeze, rate)
            index += 1
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(name="activation_map")(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return _with_body(keras.Model(inputs, _probabilities(x, classes), name="se_resnet"), weights)


def _residual_block(x, width: int, stride: int, squeeze: int, drop_path: float):
    y = layers.ReLU()(layers.BatchNormalization()(x))
    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = layers.AveragePooling2D(stride)(y) if stride != 1 else y
        shortcut = layers.Conv2D(width, 1, use_bias=False, kernel_initializer="he_normal")(shortcut)
    y = layers.Conv2D(width, 3, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal")(y)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    y = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(y)
    if squeeze:
        s = layers.GlobalAveragePooling2D(keepdims=True)(y)
        s = layers.Conv2D(max(width // squeeze, 4), 1, activation="relu", kernel_initializer="he_normal")(s)
        s = layers.Conv2D(width, 1, activation="sigmoid")(s)
        y = layers.Multiply()([y, s])
    if drop_path:
        y = layers.Dropout(drop_path, noise_shape=(None, 1, 1, 1))(y)
    return layers.Add()([shortcut, y])


def vgg(
    widths: tuple[int, ...] = (64, 128, 256, 512),
    convolutions: tuple[int, ...] = (2, 2, 2, 2),
    dropout: float = 0.4,
    classes: int = len(EMOTIONS),
    weights: str | None = None,
) -> keras.Model:
    """A plain stack in the manner of VGG for 48x48 pictures: stages of Conv 3x3 + batch normalisation, halved in between.

    It ends in global average pooling and one dense layer, as `se_resnet` does.
    Sources: Simonyan and Zisserman 2015 ("Very Deep Convolutional Networks"), Ioffe and Szegedy 2015 (batch normalisation).

    Args:
        widths: channels of each stage.
        convolutions: layers of each stage.
        dropout: before the dense layer.
        classes: number of answers.
        weights: path of body weights that `emotion.pretraining` made for the same widths and convolutions, or None.
    """
    inputs = keras.Input(INPUT_SHAPE, name="grey")
    x = layers.Rescaling(1 / 64, offset=-2)(inputs)
    for stage, (width, count) in enumerate(zip(widths, convolutions, strict=True)):
        if stage:
            x = layers.MaxPooling2D(2)(x)
        for layer in range(count):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
            x = layers.BatchNormalization()(x)
            last = stage == len(widths) - 1 and layer == count - 1
            x = layers.ReLU(name="activation_map" if last else None)(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x)
    return _with_body(keras.Model(inputs, _probabilities(x, classes), name="vgg"), weights)


def committee(members: list[dict]) -> keras.Model:
    """Several networks as one, whose logits are the mean of theirs; `emotion.committee` gives it the weights of trained ones.

    Each member ends in global average pooling and one dense layer, so their mean is a network that ends in the same way: their
    last maps side by side and one dense layer over them all. It has a class activation map as they have.

    Args:
        members: {"architecture", "options"} of each, as `build` takes them; a "share" says what its weights were given. Maps of
            unlike sizes are enlarged to a common multiple by repeating their places, which leaves their averages, and so every
            answer, as they are.
    """
    inputs, maps = keras.Input(INPUT_SHAPE, name="grey"), []
    for number, member in enumerate(members):
        model = build(member["architecture"], member["options"], pretrained=False)
        body = keras.Model(model.inputs[0], model.get_layer("activation_map").output, name=f"member_{number}")
        maps.append(body(inputs))
    sides = [x.shape[1] for x in maps]
    common = math.lcm(*sides)
    maps = [layers.UpSampling2D(common // side)(x) if side != common else x for x, side in zip(maps, sides, strict=True)]
    x = layers.Concatenate(name="activation_map")(maps)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, _probabilities(x), name="committee")


def _probabilities(x, classes: int = len(EMOTIONS)):
    return layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)


def _with_body(model: keras.Model, weights: str | None) -> keras.Model:
    if weights is not None:
        load_body(model, weights)
    return model


BUILDERS = {
    "custom_cnn": custom_cnn,
    "se_resnet": se_resnet,
    "vgg": vgg,
    "committee": committee,
    "vgg16": vgg16,
    "vgg16_norm": vgg16_norm,
    "resnet50": resnet50,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet": mobilenet,
    "face_resnet": face_resnet,
}
"""Name in `TrainingConfig.architecture` -> builder; its keyword arguments are `TrainingConfig.architecture_options`."""


def build(name: str, options: dict | None = None, pretrained: bool = True) -> keras.Model:
    """Builds a network by name.

    Args:
        name: key of `BUILDERS`.
        options: the builder's keyword arguments.
        pretrained: False leaves out pre-trained weights, for a network whose weights are set afterwards.

    Raises:
        ValueError: unknown name.
    """
    if name not in BUILDERS:
        raise ValueError(f"architecture must be one of {', '.join(BUILDERS)}. Received: {name!r}")
    options = dict(options or {})
    if not pretrained and "weights" in inspect.signature(BUILDERS[name]).parameters:
        options["weights"] = None
    return BUILDERS[name](**options)
