"""A network that learns from the answers of finished networks as well as from the labels.

Labels of FER-2013 are often disputable; what other networks make of a picture says how much. The teachers see exactly what the
student sees, its random changes included, so that they answer for that very picture (Beyer et al. 2022, "Knowledge distillation:
A good teacher is patient and consistent"; Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").

`keras.distillation.Distiller` is no use here: it hands teacher and student the picture before the changes that the training model
makes, so each would see other ones.

Keras only: runs under TensorFlow and under JAX.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import keras
from keras import layers, ops

from emotion.architectures import build


@dataclass(frozen=True)
class Distillation:
    """Whose answers a run learns from.

    Attributes:
        teachers: names of finished runs beside this one that still have their best.keras; none learns from labels alone.
        share: weight of the teachers' answers in the loss, 0..1; the labels have the rest.
        temperature: divides the logits of both before they are compared, >= 1; higher ones tell more of the unlikely classes.
        views: 0 asks the teachers themselves, at every step; else they have written down what they say of so many views of
            each picture (`emotion.lessons`), which are then what the run is shown, and the temperature is 1.
    """

    teachers: list[str] = field(default_factory=list)
    share: float = 0.6
    temperature: float = 2.0
    views: int = 0

    def __post_init__(self):
        if self.views < 0 or (self.views and (not self.teachers or self.temperature != 1)):
            raise ValueError(f"views must be 0, or have teachers and temperature 1. Received: {self}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share must lie in 0..1. Received: {self.share}")
        if not self.temperature >= 1:
            raise ValueError(f"temperature must be at least 1. Received: {self.temperature}")


class DistillationLoss(layers.Layer):
    """Adds share x T^2 x KL(teacher || student) to the loss of the model it stands in; passes the student's answer on.

    Inputs: [student, teacher], probabilities (n, classes) each. Output: the student's, unchanged.
    """

    def __init__(self, share: float, temperature: float, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.share, self.temperature = share, temperature

    def call(self, inputs):
        student, teacher = (ops.log_softmax(ops.log(ops.maximum(p, 1e-7)) / self.temperature) for p in inputs)
        divergence = ops.sum(ops.exp(teacher) * (teacher - student), axis=-1)
        self.add_loss(self.share * self.temperature**2 * ops.mean(divergence))
        return inputs[0]


def load_teacher(names: list[str], runs: Path) -> keras.Model:
    """Builds the teachers, in the precision that is set now, as one frozen network.

    Args:
        names: of runs.
        runs: the folder that holds their folders.

    Returns:
        Grey levels (n, 48, 48, 1) -> probabilities (n, 7) that belong to the mean of the teachers' log-probabilities.

    Raises:
        FileNotFoundError: a run's weights are not there; the message names the run.
    """
    members = [_load(name, runs) for name in names]
    inputs = keras.Input(members[0].input_shape[1:])
    logits = [ops.log(ops.maximum(ops.cast(member(inputs, training=False), "float32"), 1e-7)) for member in members]
    mean = sum(logits) / len(logits)
    teacher = keras.Model(inputs, ops.softmax(mean), name="teacher")
    teacher.trainable = False
    return teacher


def _load(name: str, runs: Path) -> keras.Model:
    path = runs / name / "best.keras"
    if not path.is_file():
        raise FileNotFoundError(f"a teacher must be a finished run with its best.keras. Found none for {name}; train it first")
    config = json.loads((runs / name / "config.json").read_text(encoding="utf-8"))
    # Rebuilt, not merely loaded: it is to compute in the precision that is set now.
    model = build(config["architecture"], config["architecture_options"], pretrained=False)
    model.set_weights(keras.saving.load_model(path, compile=False).get_weights())
    model.name = f"teacher_{name}"
    return model
