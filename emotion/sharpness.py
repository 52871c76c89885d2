"""Sharpness-aware minimisation: each step follows the gradient of the worst place near the weights, not of the weights.

Labels of FER-2013 are noisy, and a network that learns them by heart ends where a small change of its weights changes the loss
a lot. Here the weights first climb a step of length `rho` along the gradient, are fitted from up there, and come down again. It
takes twice the time.
Source: Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization".

Keras only: runs under TensorFlow and under JAX.
"""

import keras
from keras import ops


class SharpnessAwareModel(keras.Model):
    """A functional model whose training step is sharpness-aware; `rho` is to be set before `fit`.

    Both looks at a batch see it with the same random changes and dropout, and batch normalisation counts it once. The loss that
    `fit` reports is that of the raised weights.
    """

    rho = 0.0

    def train_step(self, *arguments):
        return self._jax_step(*arguments) if keras.backend.backend() == "jax" else self._tensorflow_step(*arguments)

    def _jax_step(self, state, data):
        import jax

        trainable, others, optimizer, metrics = state
        slope = jax.grad(self.compute_loss_and_updates, has_aux=True)
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        gradients, _ = slope(trainable, others, metrics, x, y, weight, training=True, optimizer_variables=optimizer)
        climb = _climb(gradients, self.rho)
        raised = [value + step for value, step in zip(trainable, climb, strict=True)]
        logs, (raised, *rest) = super().train_step((raised, others, optimizer, metrics), data)
        return logs, ([value - step for value, step in zip(raised, climb, strict=True)], *rest)

    def _tensorflow_step(self, data):
        import tensorflow as tf

        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        kept = [tf.identity(variable.value) for variable in self.non_trainable_variables]
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True), weight, training=True)
        climb = _climb(tape.gradient(loss, [variable.value for variable in self.trainable_variables]), self.rho)
        for variable, value in zip(self.non_trainable_variables, kept, strict=True):
            variable.assign(value)
        for variable, step in zip(self.trainable_variables, climb, strict=True):
            variable.assign_add(step)
        logs = super().train_step(data)
        for variable, step in zip(self.trainable_variables, climb, strict=True):
            variable.assign_sub(step)
        return logs


def _climb(gradients: list, rho: float) -> list:
    """Returns the step of length `rho` along the gradients, all of them taken as one vector."""
    length = ops.sqrt(sum(ops.sum(ops.square(ops.cast(gradient, "float32"))) for gradient in gradients))
    return [gradient * (rho / (length + 1e-12)) for gradient in gradients]
