import keras
import numpy as np
import pytest

from emotion.architectures import INPUT_SHAPE, build


@pytest.mark.parametrize("name", ["custom_cnn", "se_resnet", "vgg"])  # the others: test_transfer.py
def test_every_network_maps_grey_levels_to_probabilities(name):
    model = build(name)
    assert model.input_shape == (None, *INPUT_SHAPE) and not model.compiled
    levels = np.random.default_rng(0).uniform(0, 255, (3, *INPUT_SHAPE)).astype("float32")
    probabilities = keras.ops.convert_to_numpy(model(levels))
    assert probabilities.shape == (3, 7) and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_the_custom_cnn_is_the_one_described():
    layers = build("custom_cnn").layers
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert [(c.filters, c.kernel_size) for c in convolutions] == [(32, (3, 3)), (64, (3, 3)), (128, (3, 3))]
    assert [layer.pool_size for layer in layers if isinstance(layer, keras.layers.MaxPooling2D)] == [(2, 2)] * 3
    assert [layer.units for layer in layers if isinstance(layer, keras.layers.Dense)] == [256, 7]
    assert [layer.rate for layer in layers if isinstance(layer, keras.layers.Dropout)] == [0.5]


@pytest.mark.parametrize(("name", "parameters"), [("se_resnet", 3e6), ("vgg", 4.7e6)])
def test_the_larger_networks_end_in_pooling_and_one_dense_layer(name, parameters):
    model = build(name)
    assert model.count_params() == pytest.approx(parameters, rel=0.2)
    assert [type(layer).__name__ for layer in model.layers[-3:]] == ["GlobalAveragePooling2D", "Dropout", "Dense"]


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"custom_cnn.*'alexnet'"):
        build("alexnet")
