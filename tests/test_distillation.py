"""Learning from other networks: the loss is the published one, teachers see what the student sees and stay as they are."""

import csv
from dataclasses import replace

import keras
import numpy as np
import pytest

from emotion import architectures, cleaning, fitting
from emotion.augmentation import STANDARD
from emotion.distillation import Distillation, DistillationLoss, load_teacher
from emotion.training_config import TrainingConfig

TINY = TrainingConfig("student", architecture_options={"filters": [4, 8], "dense": 16, "dropout": 0.0}, epochs=2, batch_size=32)


def finished_run(runs, name: str, seed: int = 0) -> keras.Model:
    """Leaves in a folder what a finished run of `TINY` leaves: settings and untrained, yet decided weights."""
    config = replace(TINY, name=name, seed=seed)
    fitting.claim(runs / name, config)
    keras.utils.set_random_seed(seed)
    model = architectures.build(config.architecture, config.architecture_options)
    model.save(runs / name / "best.keras")
    return model


def fit(data, runs, **changes):
    config = replace(TINY, **changes)
    folder = runs / config.name
    folder.mkdir()
    targets = cleaning.soft_targets(data.training, 1.0)
    best, _ = fitting.fit(config, data.training.images, targets, data.public_test, folder, 0)
    with (folder / "history.csv").open() as file:
        return best, [float(row["loss"]) for row in csv.DictReader(file)]


def test_the_loss_is_the_divergence_of_the_softened_answers():
    rng = np.random.default_rng(0)
    student, teacher = (rng.dirichlet(np.ones(7), 5).astype(np.float32) for _ in range(2))
    layer = DistillationLoss(share=0.25, temperature=3.0)
    assert np.array_equal(layer([student, teacher]), student)
    soft_student, soft_teacher = (p ** (1 / 3) / (p ** (1 / 3)).sum(axis=1, keepdims=True) for p in (student, teacher))
    expected = (soft_teacher * np.log(soft_teacher / soft_student)).sum(axis=1).mean()
    assert float(layer.losses[0]) == pytest.approx(0.25 * 9 * expected, rel=1e-4)


def test_the_teacher_sees_the_very_picture_that_the_student_sees(drawn, tmp_path):
    finished_run(tmp_path, "teacher", seed=3)
    # A student that begins as its teacher and barely moves has nothing to learn, however strongly the pictures are changed.
    same = {"learning_rate": 1e-9, "augmentation": replace(STANDARD, erase=0.5)}
    lesson = Distillation(["teacher"], share=1.0)
    assert fit(drawn, tmp_path, name="twin", seed=3, distillation=lesson, **same)[1] == pytest.approx([0, 0], abs=1e-5)
    assert fit(drawn, tmp_path, name="stranger", seed=4, distillation=lesson, **same)[1][0] > 1e-3


def test_a_student_approaches_its_teacher_which_stays_as_it_is(drawn, tmp_path):
    teacher = finished_run(tmp_path, "teacher", seed=3)
    before = (tmp_path / "teacher" / "best.keras").read_bytes()
    best, losses = fit(drawn, tmp_path, seed=4, epochs=8, distillation=Distillation(["teacher"], share=1.0), learning_rate=1e-2)
    assert losses[-1] < losses[0] / 2
    assert (tmp_path / "teacher" / "best.keras").read_bytes() == before
    # The teacher is no part of what is saved and served.
    assert best.count_params() == teacher.count_params() and len(best.layers) == len(teacher.layers)


def test_several_teachers_answer_with_the_mean_of_their_logits(drawn, tmp_path):
    models = [finished_run(tmp_path, name, seed) for seed, name in enumerate(("one", "two"))]
    x = drawn.public_test.images[:8].astype(np.float32)[..., None]
    teacher = load_teacher(["one", "two"], tmp_path)
    assert not teacher.trainable_variables
    product = np.prod([np.asarray(model(x)) for model in models], axis=0) ** 0.5
    assert np.allclose(teacher(x), product / product.sum(axis=1, keepdims=True), atol=1e-5)


def test_a_teacher_without_weights_is_named(drawn, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        fit(drawn, tmp_path, distillation=Distillation(["absent"]))


def test_settings_are_checked_and_survive_json(tmp_path):
    for wrong in ({"share": 1.5}, {"temperature": 0.5}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Distillation(**wrong)
    config = replace(TINY, distillation=Distillation(["one"], 0.3, 4.0))
    assert TrainingConfig.from_dict(config.to_dict()) == config
    recorded = TINY.to_dict()
    del recorded["distillation"]  # a run from before there were teachers
    assert TINY.differences(recorded) == []
