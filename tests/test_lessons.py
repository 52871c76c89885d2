"""Written lessons: a view is the same whenever it is asked for, and a pupil is told of the view that it sees."""

import csv
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from test_distillation import TINY, finished_run

from emotion import cleaning, fitting, lessons
from emotion.augmentation import STANDARD
from emotion.distillation import Distillation
from emotion.recognizer import DEFAULT_MODEL, ModelError

LESSON = Distillation(["teacher"], share=0.75, temperature=1.0, views=2)


def pictures(drawn):
    return drawn.training.images, cleaning.soft_targets(drawn.training, 1.0), drawn.training.images[:, :, ::-1]


def leave_lessons(runs, name, answers) -> None:
    (runs / name).mkdir(exist_ok=True)
    np.save(runs / name / lessons.FILE, np.asarray(answers, np.float16))


def test_a_view_is_the_same_again_and_unlike_the_others(drawn):
    (first, targets), (again, _), (other, _) = (lessons.view(*pictures(drawn), number) for number in (3, 3, 4))
    assert np.array_equal(first, again) and not np.allclose(first, other, atol=20)
    assert first.shape == (140, 48, 48, 1) and first.dtype == np.float32 and first.min() >= 0 and first.max() <= 255.01
    assert np.allclose(targets.sum(axis=1), 1, atol=1e-5)


def test_a_view_is_of_its_own_picture(drawn, monkeypatch):
    # Hardly mixed, each view is most like its own picture; the bright bar of the drawn ones tells the class.
    monkeypatch.setattr(lessons, "MIXED", 1e-6)
    still = replace(STANDARD, flip=False, rotation=0, zoom=0, shift=0, brightness=0, contrast=0)
    images, targets, _ = pictures(drawn)
    seen, mixed = lessons.view(images, targets, images, 0, still)
    own = np.abs(seen[..., 0] - images).max(axis=(1, 2)) < 1
    assert own.any()  # the others are wholly their partners'
    assert np.array_equal(mixed[own], targets[own])


def test_mixed_pictures_have_targets_mixed_alike():
    images = np.zeros((200, 48, 48), np.uint8)
    images[100:] = 200
    targets = np.repeat(np.eye(2, dtype=np.float32), 100, axis=0)
    still = replace(lessons.CHANGE, brightness=0, contrast=0)
    seen, mixed = lessons.view(images, targets, images, 0, still)
    corner = seen[:, :3, :3, 0].mean(axis=(1, 2))  # few are erased there
    assert (np.abs(corner - 200 * mixed[:, 1]) < 1).mean() > 0.9
    assert ((mixed[:, 1] > 0.05) & (mixed[:, 1] < 0.95)).any()


def test_teachers_speak_with_the_mean_of_their_logits(tmp_path):
    rng = np.random.default_rng(0)
    one, two = rng.dirichlet(np.ones(7), (2, 3, 5))
    leave_lessons(tmp_path, "one", one)
    leave_lessons(tmp_path, "two", two)
    product = np.sqrt(one * two)
    assert np.allclose(lessons.read(["one", "two"], tmp_path, 2), (product / product.sum(axis=-1, keepdims=True))[:2], atol=2e-3)


def test_missing_and_short_lessons_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody"):
        lessons.read(["nobody"], tmp_path, 1)
    leave_lessons(tmp_path, "brief", np.full((2, 5, 7), 1 / 7))
    with pytest.raises(ValueError, match="3 views or more.*2, of brief"):
        lessons.read(["brief"], tmp_path, 3)


def test_an_epoch_shows_one_view_and_what_was_said_of_it_and_goes_on_after_a_resume(drawn, tmp_path):
    images, targets, framed = pictures(drawn)
    answers = np.random.default_rng(0).dirichlet(np.ones(7), (2, 140)).astype(np.float16)
    leave_lessons(tmp_path, "teacher", answers)
    config = replace(TINY, distillation=LESSON)
    stream = lessons.batches(images, targets, framed, config, tmp_path)
    epochs = [[next(stream) for _ in range(5)] for _ in range(4)]
    for epoch, shown in enumerate(epochs):
        x, y = (np.concatenate(parts)[:140] for parts in zip(*shown, strict=True))
        seen, mixed = lessons.view(images, targets, framed, epoch % 2)
        seen = seen[:, :, ::-1] if epoch >= 2 else seen
        places = [int(np.abs(seen - one).sum(axis=(1, 2, 3)).argmin()) for one in x]
        assert sorted(places) == list(range(140))
        expected = 0.75 * lessons.read(["teacher"], tmp_path, 2)[epoch % 2] + 0.25 * mixed
        assert np.allclose(y, expected[places], atol=1e-6)
    resumed = next(lessons.batches(images, targets, framed, config, tmp_path, first_epoch=3))
    assert all(np.array_equal(a, b) for a, b in zip(resumed, epochs[3][0], strict=True))


def test_lessons_of_other_pictures_are_refused(drawn, tmp_path):
    leave_lessons(tmp_path, "teacher", np.full((2, 139, 7), 1 / 7))
    with pytest.raises(ValueError, match="lessons of 139, 140 pictures"):
        next(lessons.batches(*pictures(drawn), replace(TINY, distillation=LESSON), tmp_path))


def test_a_teacher_writes_what_it_says_of_each_view(drawn, tmp_path):
    images, targets, framed = pictures(drawn)
    teacher = finished_run(tmp_path, "teacher", seed=3)
    lessons.write(teacher, images, framed, 2, tmp_path / "teacher")
    written = np.load(tmp_path / "teacher" / lessons.FILE)
    seen, _ = lessons.view(images, targets, framed, 1)
    assert written.shape == (2, 140, 7) and np.allclose(written[1], teacher.predict(seen, verbose=0), atol=1e-3)


def test_a_pupil_learns_what_is_written_and_not_the_labels(drawn, tmp_path):
    images, targets, framed = pictures(drawn)
    views = [lessons.view(images, targets, framed, number)[1] for number in range(2)]
    leave_lessons(tmp_path, "teacher", np.roll(views, 1, axis=-1))  # every class is called the next one
    config = replace(TINY, name="pupil", epochs=30, learning_rate=1e-2, distillation=replace(LESSON, share=1.0))
    with pytest.raises(ValueError, match="framed"):
        fitting.fit(config, images, targets, drawn.public_test, tmp_path / "pupil", 0)
    (tmp_path / "pupil").mkdir()
    fitting.fit(config, images, targets, drawn.public_test, tmp_path / "pupil", 0, framed=framed)
    with (tmp_path / "pupil" / "history.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["accuracy"]) > 0.5 and float(last["val_accuracy"]) < 0.1


def test_settings_that_written_lessons_already_decide_are_refused():
    with pytest.raises(ValueError, match="augmentation"):
        replace(TINY, distillation=LESSON, augmentation=STANDARD)
    with pytest.raises(ValueError, match="mixup"):
        replace(TINY, distillation=LESSON, mixup=0.2)
    for wrong in ({"views": -1}, {"views": 2, "temperature": 2.0}, {"views": 2, "teachers": []}):
        with pytest.raises(ValueError, match="views"):
            replace(LESSON, **wrong)


def test_the_command_writes_what_a_run_s_network_says(drawn, tmp_path, monkeypatch, capsys):
    teacher = finished_run(tmp_path, "teacher", seed=3)
    monkeypatch.setattr(lessons, "load_fer2013", lambda path: drawn)
    monkeypatch.setattr(lessons, "framed_pictures", lambda images: images)
    monkeypatch.setattr(cleaning, "check_official", lambda data: None)
    lessons.main(["teacher", "--views", "1", "--run-dir", str(tmp_path)])
    assert "teacher: 1 views of" in capsys.readouterr().out and keras.config.dtype_policy().name == "float32"
    images = cleaning.clean(drawn)[0].training.images
    seen, _ = lessons.view(images, np.zeros((len(images), 1), np.float32), images, 0)
    written = np.load(tmp_path / "teacher" / lessons.FILE)[0]
    assert json.loads((tmp_path / "teacher" / "config.json").read_text())["name"] == "teacher"
    assert np.allclose(written, teacher.predict(seen, verbose=0), atol=0.05)  # asked in bfloat16


def test_an_exported_file_can_teach_as_it_is_served(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "load_fer2013", lambda path: drawn)
    monkeypatch.setattr(lessons, "framed_pictures", lambda images: images)
    monkeypatch.setattr(cleaning, "check_official", lambda data: None)
    shipped = DEFAULT_MODEL.parent
    name = json.loads((shipped / "emotion_model.json").read_text())["name"]
    lessons.main([str(DEFAULT_MODEL), "--views", "1", "--run-dir", str(tmp_path)])
    images = cleaning.clean(drawn)[0].training.images
    seen, _ = lessons.view(images, np.zeros((len(images), 1), np.float32), images, 0)
    served = keras.saving.load_model(shipped / "emotion_model.keras", compile=False).predict(seen, verbose=0)
    assert np.abs(np.load(tmp_path / name / lessons.FILE)[0] - served).mean() < 0.02
    with pytest.raises(ModelError, match="Not found: .*nothing.tflite"):
        lessons.main([str(tmp_path / "nothing.tflite"), "--run-dir", str(tmp_path)])
