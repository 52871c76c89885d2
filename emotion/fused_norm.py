"""Batch normalisation by one kernel while fitting on a CPU under TensorFlow: half the time of an epoch for a small network.

Keras computes batch normalisation from single operations, each of which walks over the whole activation in float32. Nothing of
this is saved: the layers hold the same weights in the same order as Keras' own, and a finished network is rebuilt with those.
"""

import keras

from emotion.shifted_depthwise import with_shifted_depthwise


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the channels of pictures, computed by TensorFlow's `FusedBatchNormV3` in training.

    The one difference: the moving variance averages the unbiased variance of the batches, n / (n - 1) times Keras' own.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf  # only ever called under the TensorFlow backend

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=tf.cast(self.gamma, "float32"), offset=tf.cast(self.beta, "float32"), mean=[], variance=[],
            epsilon=self.epsilon, is_training=True)  # fmt: skip
        self.moving_mean.assign(self.moving_mean * self.momentum + mean * (1 - self.momentum))
        self.moving_variance.assign(self.moving_variance * self.momentum + variance * (1 - self.momentum))
        return outputs


def with_fused_normalization(model: keras.Model) -> keras.Model:
    """Returns a copy of a functional model, with its weights, whose picture normalisations are fused.

    Under another backend than TensorFlow, XLA fuses these by itself; what is slow there is mended by `shifted_depthwise`.
    """
    if keras.backend.backend() != "tensorflow":
        return with_shifted_depthwise(model)

    def clone(layer):
        kind, config = FusedBatchNormalization if _can_be_fused(layer) else type(layer), layer.get_config()
        if isinstance(layer, keras.layers.DepthwiseConv2D) and layer.strides != (1, 1):
            config["dtype"] = "float32"  # in bfloat16 its gradient takes twenty times as long (TensorFlow 2.19)
        return kind.from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())  # cloning initialises anew, which would lose pre-trained weights
    return copy


def _can_be_fused(layer) -> bool:
    return type(layer) is keras.layers.BatchNormalization and len(layer.input.shape) == 4 and layer.center and layer.scale
