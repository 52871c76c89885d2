"""Contracts of pre-training: labelled pictures in, a body's weights and a record of what they were made from out."""

import io
import json

import keras
import numpy as np
import pytest
from PIL import Image

from emotion import pretraining
from emotion.architectures import build
from emotion.fer_readers import DatasetError
from emotion.pictures import find_pictures, load_pictures
from emotion.transfer import body_checksum, body_layers

TINY = {"widths": [4, 8], "blocks": [1, 1]}


def draw(label, rng):
    image = rng.integers(0, 60, (48, 48)).astype(np.uint8)
    image[4 + 10 * label : 12 + 10 * label, 8:40] += 150
    return image


def encoded(image, kind="JPEG"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


def write_jpegs(path, labels, seed=0):
    rng = np.random.default_rng(seed)
    files = [encoded(draw(label, rng)) for label in labels]
    offsets = np.cumsum([0, *map(len, files)])
    np.savez(path, jpeg=np.frombuffer(b"".join(files), np.uint8), offsets=offsets, labels=np.array(labels, np.int16),
             wnids=np.array(["n0", "n1", "n2", "n3"]))  # fmt: skip


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Four classes in two parts and val.npz, as Tiny ImageNet is packed: 30 pictures a class to fit, 5 to judge."""
    folder = tmp_path_factory.mktemp("packed")
    write_jpegs(folder / "train_0.npz", np.repeat([0, 1, 2, 3], 10), 0)
    write_jpegs(folder / "train_1.npz", np.repeat([3, 2, 1, 0], 20), 1)
    write_jpegs(folder / "val.npz", np.repeat([0, 1, 2, 3], 5), 2)
    return folder


def mean_row(images, label):
    """The brightness of the bar that marks a label."""
    return images[:, 4 + 10 * label : 12 + 10 * label, 8:40].mean(axis=(1, 2))


def test_packed_parts_are_joined_and_the_validation_part_is_kept_apart(packed):
    pictures = load_pictures(packed)
    assert pictures.classes == ("n0", "n1", "n2", "n3")
    assert pictures.training.images.shape == (120, 48, 48) and pictures.training.images.dtype == np.uint8
    assert np.bincount(pictures.training.labels).tolist() == [30] * 4 and len(pictures.validation) == 20
    for split in (pictures.training, pictures.validation):
        for label in range(4):
            assert (mean_row(split.images[split.labels == label], label) > 120).all()


def test_a_sample_takes_few_classes_and_few_pictures_and_says_so(packed):
    pictures = load_pictures(packed, classes=2, per_class=7)
    assert len(pictures.classes) == 2 and set(pictures.classes) < {"n0", "n1", "n2", "n3"}
    assert np.bincount(pictures.training.labels).tolist() == [7, 7]
    assert np.bincount(pictures.validation.labels).tolist() == [5, 5]
    assert pictures.available == {"classes": 4, "training": 120, "validation": 20}
    for new, name in enumerate(pictures.classes):
        old = int(name[1])
        assert (mean_row(pictures.training.images[pictures.training.labels == new], old) > 120).all()
    assert pictures.checksum != load_pictures(packed).checksum
    assert pictures.checksum == load_pictures(packed, classes=2, per_class=7).checksum


def test_class_folders_and_plain_npz_give_a_tenth_of_each_class_for_validation(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = [], []
    for label, name in enumerate(("cup", "dog")):
        (tmp_path / "folders" / name).mkdir(parents=True)
        for number in range(20):
            image = draw(label, rng)
            images.append(image)
            labels.append(label)
            colour = Image.fromarray(image).convert("RGB").resize((96, 96), Image.Resampling.NEAREST)
            colour.save(tmp_path / "folders" / name / f"{number}.png")
    np.savez(tmp_path / "plain.npz", images=np.array(images), labels=np.array(labels), names=np.array(["cup", "dog"]))
    for path in (tmp_path / "folders", tmp_path / "plain.npz"):
        pictures = load_pictures(path)
        assert pictures.classes == ("cup", "dog") and pictures.training.images.shape == (36, 48, 48)
        assert np.bincount(pictures.validation.labels).tolist() == [2, 2]
        assert not set(pictures.training.rows) & set(pictures.validation.rows)
        for label in range(2):
            assert (mean_row(pictures.training.images[pictures.training.labels == label], label) > 120).all()


def test_what_cannot_be_read_is_refused_with_the_rule(tmp_path, packed, monkeypatch):
    with pytest.raises(DatasetError, match="path must exist"):
        load_pictures(tmp_path / "absent")
    np.savez(tmp_path / "no_labels.npz", images=np.zeros((3, 48, 48), np.uint8))
    with pytest.raises(DatasetError, match="must be an npz with labels"):
        load_pictures(tmp_path / "no_labels.npz")
    np.savez(tmp_path / "short.npz", images=np.zeros((3, 48, 48), np.uint8), labels=[0, 1])
    with pytest.raises(DatasetError, match="a label >= 0 for each picture. Received: 3 pictures, 2 labels"):
        load_pictures(tmp_path / "short.npz")
    with pytest.raises(DatasetError, match="at least two classes. Received: 1"):
        load_pictures(packed, classes=1)
    (tmp_path / "damaged" / "a").mkdir(parents=True)
    (tmp_path / "damaged" / "b").mkdir()
    for name in "ab":
        for number in range(2):
            (tmp_path / "damaged" / name / f"{number}.jpg").write_bytes(encoded(draw(0, np.random.default_rng(0)))[:200])
    with pytest.raises(DatasetError, match="whole JPEG or PNG file. Received: .*damaged"):
        load_pictures(tmp_path / "damaged")


def test_pictures_are_found_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TINY_IMAGENET_DIR", str(tmp_path))
    assert find_pictures() == tmp_path
    monkeypatch.setenv("TINY_IMAGENET_DIR", str(tmp_path / "absent"))
    monkeypatch.setattr("emotion.pictures._PROJECT", tmp_path / "deep" / "project")
    with pytest.raises(DatasetError, match=r"absent.*tiny_imagenet.*--data"):
        find_pictures()


@pytest.fixture(scope="module")
def made(packed, tmp_path_factory):
    """What the command makes of the packed pictures: its arguments, the run's folder and the record."""
    folder = tmp_path_factory.mktemp("pretrained") / "tiny"
    arguments = ["--body", "se_resnet", "--data", str(packed), "--run-dir", str(folder), "--set", "name=tiny", "epochs=3",
                 "batch_size=20", "warmup_epochs=0", "learning_rate=0.05", "precision=float32", "classes=3", "per_class=25",
                 f"architecture_options={json.dumps(TINY)}"]  # fmt: skip
    pretraining.main(arguments)
    return arguments, folder, json.loads((folder / "record.json").read_text())


def test_the_command_makes_a_body_and_the_record_says_from_what(made):
    _, folder, record = made
    assert record["pictures"]["used"] == {"classes": 3, "training": 75, "validation": 15}
    assert record["pictures"]["available"] == {"classes": 4, "training": 120, "validation": 20}
    assert record["epochs"] == 3 and record["config"]["classes"] == 3 and record["config"]["per_class"] == 25
    accuracy = record["metrics"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert record["metrics"]["top_5_accuracy"]["value"] == 1
    assert record["body"]["sha256"] == body_checksum(folder / "body.npz")
    assert len((folder / "history.csv").read_text().splitlines()) == 4 and not (folder / "checkpoint.npz").exists()


def test_the_body_is_what_the_builders_take(made):
    model = build("se_resnet", TINY | {"weights": str(made[1] / "body.npz")})
    assert model.output_shape == (None, 7)
    moving = [v for layer in body_layers(model) for v in layer.weights if v.path.endswith("moving_mean")]
    assert moving and any(np.abs(keras.ops.convert_to_numpy(v)).max() > 0 for v in moving)


def test_the_same_command_again_trains_nothing(made, monkeypatch, capsys):
    monkeypatch.setattr("emotion.pretraining.fit", lambda *_: pytest.fail("trained again"))
    pretraining.main(made[0])
    assert f"{made[2]['metrics']['accuracy']['value']:.2%}" in capsys.readouterr().out


def test_other_settings_in_the_same_folder_are_refused(made):
    with pytest.raises(ValueError, match=r"other settings .*epochs \(here 4, recorded 3\)"):
        pretraining.main([*made[0], "epochs=4"])


def test_bad_amounts_are_refused():
    for settings in ({"classes": -1}, {"per_class": -5}, {"balance": "sampling"}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            pretraining.PretrainingConfig(name="x", **settings)
