"""Depthwise convolutions as sums of shifted pictures, for fitting under JAX on a GPU.

There a depthwise convolution's gradient takes XLA minutes an epoch where a plain convolution's takes seconds. A product and a sum
for each of a kernel's nine places, on the other hand, becomes one kernel that reads its input once. Nothing of this is saved: the
layers hold the same weights in the same order as Keras' own, and a finished network is rebuilt with those.
"""

import keras
from keras import layers, ops


class ShiftedDepthwiseConv2D(layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with one filter a channel and no dilation; float32 inside, whatever the precision policy."""

    def call(self, inputs):
        height, width = self.kernel_size
        down, across = self.strides
        x, kernel = ops.cast(inputs, "float32"), ops.cast(self.kernel, "float32")
        if self.padding == "same":
            pads = [_same_padding(*sizes) for sizes in zip(inputs.shape[1:3], self.kernel_size, self.strides, strict=True)]
            x = ops.pad(x, [(0, 0), *pads, (0, 0)])
        rows, columns = (x.shape[1] - height) // down + 1, (x.shape[2] - width) // across + 1
        outputs = 0.0
        for i in range(height):
            for j in range(width):
                seen = x[:, i : i + (rows - 1) * down + 1 : down, j : j + (columns - 1) * across + 1 : across]
                outputs = outputs + seen * kernel[i, j, :, 0]
        outputs = outputs + self.bias if self.use_bias else outputs
        return self.activation(ops.cast(outputs, self.compute_dtype))


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return missing // 2, missing - missing // 2


def with_shifted_depthwise(model: keras.Model) -> keras.Model:
    """Returns a copy of a functional model, with its weights, that computes its depthwise convolutions as above.

    A model without any comes back itself.
    """
    if not any(_can_be_shifted(layer) for layer in model.layers):
        return model

    def clone(layer):
        kind = ShiftedDepthwiseConv2D if _can_be_shifted(layer) else type(layer)
        return kind.from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _can_be_shifted(layer) -> bool:
    return type(layer) is layers.DepthwiseConv2D and layer.depth_multiplier == 1 and tuple(layer.dilation_rate) == (1, 1)
