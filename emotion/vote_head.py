"""A second head that learns what FER+ taggers said of a picture, while the first learns its label.

Labels of FER-2013 are noisy, those of the tests no less. To blend ten people's votes into the targets teaches a network to answer
as they do, which is not what a test asks. Here both are told from the same features: the votes, which are cleaner, shape the
body, and the label's head still learns what the labels mean. The second head is no part of what is saved.
Sources: Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition with Crowd-Sourced Label Distribution"
(the votes); Caruana 1997, "Multitask Learning".

Keras and NumPy only: runs under TensorFlow and under JAX.
"""

import keras
import numpy as np
from keras import layers, ops

from emotion.dataset import VOTE_COLUMNS, Split
from emotion.transfer import split


def vote_shares(training: Split) -> np.ndarray:
    """Returns float32 (n, 10): of each picture's FER+ votes, the share of each of `VOTE_COLUMNS`; zeros where there are none.

    Args:
        training: Training rows with votes. To be used for these only.

    Raises:
        ValueError: votes are missing.
    """
    if training.votes is None:
        raise ValueError("a vote head needs FER+ votes: put fer2013new.csv beside the data set. Received: no votes")
    return (training.votes / np.maximum(training.votes.sum(axis=1, keepdims=True), 1)).astype(np.float32)


def with_vote_head(core: keras.Model) -> keras.Model:
    """Returns a network that shares all layers of the core and answers (n, 7 + 10): its answer, then the votes' shares."""
    body, head = split(core)
    features = body(core.input)
    # From zeros, so that an untrained head does not disturb a body that has learned.
    votes = layers.Dense(len(VOTE_COLUMNS), activation="softmax", kernel_initializer="zeros", dtype="float32", name="votes")
    answers = [ops.cast(head(features), "float32"), votes(features)]
    return keras.Model(core.input, layers.Concatenate(dtype="float32")(answers), name="with_vote_head")


class LabelAndVoteLoss(keras.losses.Loss):
    """Cross-entropy of the label, plus weight x that of the votes. Both sides are (n, classes + 10)."""

    def __init__(self, weight: float, label_smoothing: float = 0.0):
        super().__init__(name="label_and_vote_loss")
        self.weight, self.label_smoothing = weight, label_smoothing

    def call(self, y_true, y_pred):
        classes = y_true.shape[-1] - len(VOTE_COLUMNS)
        label = keras.losses.categorical_crossentropy(
            y_true[:, :classes], y_pred[:, :classes], label_smoothing=self.label_smoothing
        )
        votes = ops.sum(y_true[:, classes:] * ops.log(ops.maximum(y_pred[:, classes:], 1e-7)), axis=-1)
        return label - self.weight * votes


def accuracy(y_true, y_pred):
    """Share of rows whose likeliest class is the label's; the votes' columns are left out."""
    classes = y_true.shape[-1] - len(VOTE_COLUMNS)
    return keras.metrics.categorical_accuracy(y_true[:, :classes], y_pred[:, :classes])
