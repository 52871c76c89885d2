"""Transfer learning: networks of `keras.applications` behind grey pictures of 48x48, their weights, and which of them train.

A network is a *body* (all layers before the last global average pooling) and a *head* (the rest). The body's layers stand in the
network itself and not in a model inside it, so a saved network needs no custom objects, exports to .tflite, and every layer
can be asked for its output by name.

Keras and NumPy only.
"""

import hashlib
import json
import socket
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from emotion.fer_readers import SIDE
from emotion.labels import EMOTIONS

PROJECT = Path(__file__).resolve().parent.parent
INPUT_SHAPE = (SIDE, SIDE, 1)
INPUT_SIZES = (48, 96, 112, 144, 224)
IMAGENET_MEANS = (103.939, 116.779, 123.68)
"""Blue, green, red: what the ImageNet weights of VGG16 and ResNet50 expect to be taken off their input."""
DOWNLOAD_TIMEOUT = 20
"""Seconds without an answer after which a download of weights is given up."""


def vgg16(
    weights: str | None = "imagenet", input_size: int = 48, dense: int = 256, dropout: float = 0.5, classes: int = len(EMOTIONS)
) -> keras.Model:
    """VGG16: thirteen convolutions 3x3 in five blocks, each block halved by pooling; 14.7 M parameters in its body.

    At 48x48 the last block works on 3x3 places, of which its pooling reads four and leaves one: small, but all five blocks are
    in use, and 96 costs four times the time. It has no batch normalisation of its own: from scratch it needs a low rate (3e-4 or
    less with Adam).
    Source: Simonyan and Zisserman 2015, "Very Deep Convolutional Networks for Large-Scale Image Recognition".

    Args:
        weights: "imagenet" (Keras downloads them once), the path of an npz that `save_body` wrote (relative paths start at the
            project's folder), or None for initial ones.
        input_size: side in pixels to which the 48x48 picture is enlarged: one of `INPUT_SIZES`.
        dense: units of the head's hidden layer.
        dropout: share of them dropped in training, 0..1.
        classes: number of answers.

    Raises:
        ValueError: an unknown size; weights that cannot be had or do not fit.
    """
    return _network(keras.applications.VGG16, "vgg16", _centred, weights, input_size, dense, dropout, classes)


def vgg16_norm(
    weights: str | None = None, input_size: int = 48, dense: int = 256, dropout: float = 0.5, classes: int = len(EMOTIONS)
) -> keras.Model:
    """VGG16 with batch normalisation behind each convolution, as others publish it beside the plain one.

    It stands higher rates and so learns more within the few thousand steps that a CPU has time for. Arguments and errors as
    `vgg16`, but Keras has no "imagenet" weights of it.
    Source: Ioffe and Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift".
    """
    if weights == "imagenet":
        raise ValueError('weights must be None or a path: Keras has none of VGG16 with batch normalisation. Received: "imagenet"')
    return _network(_normed_vgg16, "vgg16_norm", _centred, weights, input_size, dense, dropout, classes)


def _normed_vgg16(input_tensor, **options) -> keras.Model:
    x = input_tensor
    for layer in keras.applications.VGG16(input_shape=(SIDE, SIDE, 3), **options).layers[1:]:
        if isinstance(layer, layers.Conv2D):
            settings = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
            x = layers.Conv2D(layer.filters, 3, name=layer.name, **settings)(x)
            x = layers.BatchNormalization(name=f"{layer.name}_norm")(x)
            x = layers.ReLU(name=f"{layer.name}_relu")(x)
        else:
            x = layers.MaxPooling2D(layer.pool_size, name=layer.name)(x)
    return keras.Model(keras.utils.get_source_inputs(input_tensor), x)


def resnet50(
    weights: str | None = "imagenet", input_size: int = 96, dense: int = 256, dropout: float = 0.5, classes: int = len(EMOTIONS)
) -> keras.Model:
    """ResNet50: sixteen residual blocks of three convolutions, 23.6 M parameters in its body.

    Its first two layers quarter the picture: 48x48 leaves 12x12 to the residual blocks and 2x2 at their end, too coarse for
    mouths and brows. Hence 96 (24x24, 3x3 at the end), which costs a third more than VGG16 at 48. Arguments and errors as
    `vgg16`.
    Source: He et al. 2016, "Deep Residual Learning for Image Recognition".
    """
    return _network(keras.applications.ResNet50, "resnet50", _centred, weights, input_size, dense, dropout, classes)


def mobilenet_v2(
    weights: str | None = "imagenet", input_size: int = 96, dense: int = 256, dropout: float = 0.5, classes: int = len(EMOTIONS)
) -> keras.Model:
    """MobileNetV2: inverted residual blocks with depthwise convolutions, 2.3 M parameters in its body.

    It too quarters the picture within its first blocks, so 96 is the size for faces of 48x48, and the smallest for which there
    are ImageNet weights of its own. Keras gives its batch normalisation a momentum of 0.999, made for millions of steps; here it
    has 0.99, as ResNet50's: within a few thousand steps the statistics would not catch up. Arguments and errors as `vgg16`.
    Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".
    """
    model = _network(keras.applications.MobileNetV2, "mobilenet_v2", _to_unit, weights, input_size, dense, dropout, classes)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.99
    return model


def mobilenet(
    weights: str | None = None, input_size: int = 144, dropout: float = 0.3, classes: int = len(EMOTIONS), head: bool = False
) -> keras.Model:
    """MobileNet, the first of its kind: thirteen pairs of a depthwise and a 1x1 convolution, 3.2 M parameters in its body.

    Weights of it that have seen millions of faces are published, though not by Keras; `emotion.published` makes a body of them.
    They were trained at 224 and know less and less the smaller the face: 144 (three times 48) is what the time allows. It ends
    in one dense layer behind the pooling, as `architectures.vgg` does, so it has a class activation map.
    Source: Howard et al. 2017, "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications".

    Args:
        weights: path of body weights, or None for initial ones.
        input_size: side in pixels to which the 48x48 picture is enlarged: one of `INPUT_SIZES`.
        dropout: before the dense layer, 0..1.
        classes: number of answers.
        head: takes the dense layer's weights as well, from a run's best.keras; otherwise that layer begins anew.

    Raises:
        ValueError: an unknown size; weights that cannot be had or do not fit.
    """
    if weights == "imagenet":
        raise ValueError('weights must be None or a path: those of ImageNet expect other levels. Received: "imagenet"')
    inputs, x = _enlarged_rgb(input_size)
    x = _body_output(keras.applications.MobileNet, _centred(x), None)
    return _with_map(inputs, x, "mobilenet", weights, dropout, classes, head)


def face_resnet(
    weights: str | None = None, input_size: int = 112, dropout: float = 0.3, classes: int = len(EMOTIONS)
) -> keras.Model:
    """dlib's residual network for face recognition without its last block: 27 convolutions, 4.4 M parameters in its body.

    A block that halves the picture passes its input on by averaging, with as many channels of zeros beside it. Weights of it that
    have told millions of photos apart are published; `emotion.published` makes a body of them. They were trained at 150 with
    room around the face, of which FER-2013 leaves less: at 112 a face is about as large as they know it. It ends in one dense
    layer behind the pooling, as `architectures.vgg` does, so it has a class activation map, of 3x3 places at 112. Arguments
    and errors as `mobilenet`.
    Source: King 2017, "High Quality Face Recognition with Deep Metric Learning" (blog.dlib.net), after He et al. 2016.
    """
    if weights == "imagenet":
        raise ValueError('weights must be None or a path: there are none of ImageNet. Received: "imagenet"')
    inputs, x = _enlarged_rgb(input_size)
    offset = [-mean / 256 for mean in (122.782, 117.001, 104.298)]
    x = layers.Rescaling(1 / 256, offset=offset, dtype="float32", name="preprocess")(x)
    x = layers.ReLU(name="conv32_down_relu")(_normed_conv(x, 32, 7, 2, "conv32_down"))
    x = layers.MaxPooling2D(3, 2, name="conv32_down_pool")(x)
    for filters, blocks in ((32, 3), (64, 4), (128, 3), (256, 3)):
        for block in range(blocks):
            halve = block == 0 and filters > 32
            x = _face_resnet_block(x, filters, halve, f"conv{filters}_{'down' if halve else block + (filters == 32)}")
    return _with_map(inputs, x, "face_resnet", weights, dropout, classes)


def _with_map(inputs, x, name: str, weights: str | None, dropout: float, classes: int, head: bool = False) -> keras.Model:
    """Pooling and one dense layer behind a body's last map `x`, which makes it a class activation map."""
    x = layers.Activation("linear", name="activation_map")(x)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    x = layers.Dropout(dropout, name="head_dropout")(x)
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(inputs, outputs, name=name)
    if weights is not None:
        load_body(model, weights, head)
    return model


def _normed_conv(x, filters: int, side: int, strides: int, name: str):
    x = layers.Conv2D(filters, side, strides, padding="same" if strides == 1 else "valid", use_bias=False, name=name)(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)


def _face_resnet_block(x, filters: int, halve: bool, name: str):
    added = layers.ReLU(name=f"{name}_conv1_relu")(_normed_conv(x, filters, 3, 1 + halve, f"{name}_conv1"))
    added = _normed_conv(added, filters, 3, 1, f"{name}_conv2")
    if halve:
        x = layers.AveragePooling2D(2, name=f"{name}_pool")(x)
        x = layers.Concatenate(name=f"{name}_widen")([x, layers.Rescaling(0.0, name=f"{name}_zeros")(x)])
        # Without padding, the convolution may end one place earlier than the average.
        missing = x.shape[1] - added.shape[1]
        if missing:
            added = layers.ZeroPadding2D(((0, missing), (0, missing)), name=f"{name}_pad")(added)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, added]))


def _enlarged_rgb(input_size: int):
    if input_size not in INPUT_SIZES:
        raise ValueError(f"input_size must be one of {', '.join(map(str, INPUT_SIZES))}. Received: {input_size!r}")
    inputs = keras.Input(INPUT_SHAPE, name="grey")
    # In float32 under every precision policy: levels and means are not to be rounded before the first convolution.
    x = inputs
    if input_size != SIDE:
        # Called without `training`, Resizing tells all layers after it True (Keras 3.15): statistics and dropout would move.
        x = layers.Resizing(input_size, input_size, dtype="float32", name="resize")(x, training=False)
    return inputs, layers.Concatenate(dtype="float32", name="rgb")([x, x, x])


def _network(
    application: Callable, name: str, scale: Callable, weights, input_size: int, dense: int, dropout: float, classes: int
) -> keras.Model:
    inputs, x = _enlarged_rgb(input_size)
    x = _body_output(application, scale(x), weights)
    x = layers.GlobalAveragePooling2D(name="pooling")(x)
    x = layers.Dense(dense, use_bias=False, name="head_dense")(x)
    x = layers.BatchNormalization(name="head_norm")(x)
    x = layers.ReLU(name="head_relu")(x)
    x = layers.Dropout(dropout, name="head_dropout")(x)
    outputs = layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")(x)
    model = keras.Model(inputs, outputs, name=name)
    if weights not in ("imagenet", None):
        load_body(model, weights)
    return model


def _centred(x):
    """What `preprocess_input` of VGG16 and ResNet50 does; grey has the same level in all three channels, whatever their order."""
    return layers.Rescaling(1.0, offset=[-mean for mean in IMAGENET_MEANS], dtype="float32", name="preprocess")(x)


def _to_unit(x):
    """What `preprocess_input` of MobileNetV2 does: -1..1."""
    return layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32", name="preprocess")(x)


def _body_output(application: Callable, x, weights):
    if weights != "imagenet":
        return application(include_top=False, weights=None, input_tensor=x).output
    waited = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)  # Keras sets none: without one a blocked network never answers
    try:
        return application(include_top=False, weights="imagenet", input_tensor=x).output
    except Exception as error:  # Keras raises a bare Exception when the download fails
        raise ValueError(
            'weights="imagenet" must be downloaded by Keras; offline choose weights=<path of a body.npz made by '
            f"python -m emotion.pretraining> or weights=None. Received: {type(error).__name__}: {error}"
        ) from error
    finally:
        socket.setdefaulttimeout(waited)


def body_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers before the last global average pooling, in the order of `model.layers`.

    Raises:
        ValueError: the model has no such pooling (as `custom_cnn`).
    """
    places = [i for i, layer in enumerate(model.layers) if isinstance(layer, layers.GlobalAveragePooling2D)]
    if not places:
        raise ValueError(f"a network must end its body in global average pooling. Received: {model.name}, which has none")
    return model.layers[: places[-1]]


def freeze_body(model: keras.Model, unfrozen: int, norms: bool = False) -> None:
    """Lets the head and the body's last layers train and freezes the body's others; compile the model afterwards.

    The body's batch normalisation stays frozen among the last layers too, unless `norms` says otherwise: a frozen one computes in
    inference mode, with the statistics that its convolutions were trained with. Were they re-estimated while a new head still
    sends large gradients, what the body has learned would be destroyed within a few steps. Once the head is trained and there
    are tens of thousands of pictures of another kind, it may train. Sources: keras.io, "Transfer learning & fine-tuning",
    "Important notes about BatchNormalization layer"; Keras' example "Image classification via fine-tuning with EfficientNet"
    freezes them.

    Args:
        model: a network with a body.
        unfrozen: how many of the body's last layers train, counted as in `model.layers`; 0 is none, -1 all.
        norms: whether the batch normalisation among those trains too.
    """
    body = body_layers(model)
    first = 0 if unfrozen == -1 else max(len(body) - unfrozen, 0)
    for place, layer in enumerate(body):
        layer.trainable = place >= first and (norms or not isinstance(layer, layers.BatchNormalization))


def split(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Splits a network behind the last global average pooling into two that share its layers.

    Returns:
        Pictures -> features, float (n, channels); and features -> answers.
    """
    pooling = model.layers[len(body_layers(model))]
    return keras.Model(model.input, pooling.output), keras.Model(pooling.output, model.output)


def save_body(model: keras.Model, path: str | Path) -> Path:
    """Writes the body's weights: an npz with kernels in float16 (half the size) and vectors, such as variances, in float32.

    Raises:
        ValueError: a weight is not finite in its format.
    """
    arrays = {}
    for place, variable in enumerate(_body_variables(model)):
        value = keras.ops.convert_to_numpy(variable)
        value = value.astype(np.float16 if value.ndim > 1 else np.float32)
        if not np.isfinite(value).all():
            raise ValueError(f"weights of a body must be finite in {value.dtype}. Received: {variable.path}")
        arrays[f"weight_{place:03d}"] = value
    path = Path(path)
    part = path.with_name(f"{path.stem}.part.npz")
    np.savez(part, network=model.name, **arrays)
    part.replace(path)  # a kill leaves no half file
    return path


def load_body(model: keras.Model, path: str | Path, head: bool = False) -> None:
    """Puts the weights of a body into a network of the same kind; its head stays as it is, unless it is asked for.

    Args:
        model: the network.
        path: of an npz that `save_body` wrote, or of a network as a run saves it (.keras); relative ones start at the project's
            folder.
        head: the head's weights as well, which only a run's network has.

    Raises:
        ValueError: there is no such file, it belongs to another network, or has no head.
    """
    file = PROJECT / path
    if not file.is_file():
        raise ValueError(
            "weights must be the path of body weights (python -m emotion.pretraining makes them) or of a finished run's "
            f"best.keras. Received: {path}"
        )
    if head and file.suffix != ".keras":
        raise ValueError(f"a head can only come from a finished run's best.keras. Received: {path}")
    network, values = _of_run(file, head) if file.suffix == ".keras" else _body_of_npz(file)
    variables = model.weights if head else _body_variables(model)
    expected = [tuple(variable.shape) for variable in variables]
    if network != model.name or [value.shape for value in values] != expected:
        raise ValueError(
            f"body weights must be those of {model.name} with {len(variables)} arrays of its shapes. "
            f"Received: {path}, of {network} with {len(values)} arrays"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _body_of_npz(file: Path) -> tuple[str, list[np.ndarray]]:
    with np.load(file, allow_pickle=False) as arrays:
        names = sorted(name for name in arrays.files if name.startswith("weight_"))
        values = [arrays[name].astype(np.float32) for name in names]
        return str(arrays["network"]) if "network" in arrays.files else "no network", values


def _of_run(file: Path, head: bool) -> tuple[str, list[np.ndarray]]:
    model = keras.saving.load_model(file, compile=False)
    variables = model.weights if head else _body_variables(model)
    return model.name, [keras.ops.convert_to_numpy(variable) for variable in variables]


def body_checksum(weights: str | Path | None) -> str | None:
    """Returns the sha256 of a file of body weights; None for "imagenet" and None, which name no file."""
    return None if weights in ("imagenet", None) else hashlib.sha256((PROJECT / weights).read_bytes()).hexdigest()


def learned_from(options: dict) -> list[str]:
    """Returns what the bodies behind `architecture_options` had been trained on, in words: one entry a body, none without one.

    The words come from the record.json beside the body's weights; a body without one is named by its file.
    """
    found = [origin for member in options.get("members", ()) for origin in learned_from(member["options"])]
    weights = options.get("weights")
    if weights == "imagenet":
        found.append("ImageNet")
    elif weights is not None:
        path = (PROJECT / weights).with_name("record.json")
        record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if "config" in record and "pictures" not in record:  # a run on faces, which may itself have started from a body
            return list(dict.fromkeys([*found, *learned_from(record["config"]["architecture_options"])]))
        pictures = record.get("pictures")
        published = record.get("source", {}).get("trained_on", str(weights))
        found.append(f"{pictures['used']['training']:,} pictures of {pictures['source']}" if pictures else published)
    return list(dict.fromkeys(found))


def _body_variables(model: keras.Model) -> list:
    return [variable for layer in body_layers(model) for variable in layer.weights]
