import zipfile

import numpy as np
import pytest
from conftest import write_csv, write_folder

from emotion import dataset
from emotion.dataset import OFFICIAL_COUNTS, download_fer2013, find_fer2013, load_fer2013, pack_fer2013, subset
from emotion.fer_readers import USAGES, DatasetError, parse_pixels
from emotion.labels import EMOTIONS


def rows_of_csv(per_class=2):
    rng = np.random.default_rng(1)
    return [
        (label, rng.integers(0, 256, (48, 48)).astype(np.uint8), usage)
        for usage in USAGES
        for label in range(len(EMOTIONS))
        for _ in range(per_class)
    ]


def zip_of(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.parametrize("form", ["folder", "nested folder", "zip"])
def test_png_downloads_give_the_very_pixels_in_their_official_parts(form, tmp_path, no_cache):
    root = tmp_path / "data"
    pictures = write_folder(root / "fer" if form == "nested folder" else root)
    path = zip_of(root, tmp_path / "fer.zip") if form == "zip" else root
    data = load_fer2013(path)
    for usage, split in data.splits().items():
        expected = {(EMOTIONS.index(e), p.tobytes()) for (u, e, _), p in pictures.items() if u == usage}
        assert {(label, image.tobytes()) for label, image in zip(split.labels, split.images, strict=True)} == expected
        assert split.images.shape == (14, 48, 48) and split.images.dtype == np.uint8


def test_jpg_downloads_are_read_too(tmp_path, no_cache):
    write_folder(tmp_path / "data", suffix=".jpg")
    assert [len(split) for split in load_fer2013(tmp_path / "data").splits().values()] == [14, 14, 14]


@pytest.mark.parametrize("header", [("emotion", "pixels", "Usage"), ("emotion", " Usage", " pixels")])
def test_both_csv_forms_give_pixels_labels_and_rows_in_order(header, tmp_path, no_cache):
    rows = rows_of_csv()
    write_csv(tmp_path / "fer2013.csv", rows, header)
    data = load_fer2013(tmp_path / "fer2013.csv")
    assert np.array_equal(np.concatenate([s.images for s in data.splits().values()]), np.stack([p for _, p, _ in rows]))
    assert data.private_test.rows.tolist() == list(range(28, 42))
    assert data.private_test.labels.tolist() == [label for label, _, usage in rows if usage == "PrivateTest"]


def test_digits_in_file_names_are_no_rows_unless_they_number_the_whole_data_set(tmp_path, no_cache):
    write_folder(tmp_path / "data")
    file = next((tmp_path / "data" / "train" / "happy").iterdir())
    file.rename(file.with_name("Training_98765432.png"))
    assert set(load_fer2013(tmp_path / "data").training.rows) == {-1}


def test_a_download_that_lost_the_two_tests_is_halved_by_class_and_says_so(tmp_path, no_cache):
    write_folder(tmp_path / "data", distinguish=False)
    with pytest.warns(UserWarning, match="split in halves"):
        first = load_fer2013(tmp_path / "data", seed=3)
    with pytest.warns(UserWarning):
        again = load_fer2013(tmp_path / "data", seed=3)
    assert np.bincount(first.public_test.labels).tolist() == np.bincount(first.private_test.labels).tolist() == [2] * 7
    assert np.array_equal(first.public_test.images, again.public_test.images)
    assert "Results are not comparable" in first.notes[0]


def test_votes_are_joined_by_row(tmp_path, no_cache):
    rows = rows_of_csv()
    write_csv(tmp_path / "fer2013.csv", rows)
    lines = ["Usage,Image name," + ",".join(dataset.VOTE_COLUMNS)]
    lines += [f"{usage},x,{row},0,0,0,0,0,0,0,0,1" for row, (_, _, usage) in enumerate(rows)]
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines))
    data = load_fer2013(tmp_path / "fer2013.csv")
    for split in data.splits().values():
        assert split.votes[:, 0].tolist() == split.rows.tolist()


def test_votes_whose_parts_disagree_are_left_out_and_noted(tmp_path, no_cache):
    write_csv(tmp_path / "fer2013.csv", rows_of_csv())
    lines = ["Usage,Image name," + ",".join(dataset.VOTE_COLUMNS)] + ["PrivateTest,x" + ",1" * 10] * 42
    (tmp_path / "fer2013new.csv").write_text("\n".join(lines))
    data = load_fer2013(tmp_path / "fer2013.csv")
    assert data.training.votes is None and any("FER+" in note for note in data.notes)


def test_the_second_load_reads_the_cache_and_gives_the_same(tmp_path, no_cache, monkeypatch):
    write_folder(tmp_path / "data")
    first = load_fer2013(tmp_path / "data")
    monkeypatch.setattr(dataset, "read_records", lambda path: pytest.fail("the pictures were read again"))
    second = load_fer2013(tmp_path / "data")
    assert first.checksum == second.checksum and np.array_equal(first.training.images, second.training.images)


def test_a_changed_folder_is_read_anew(tmp_path, no_cache):
    write_folder(tmp_path / "data")
    before = load_fer2013(tmp_path / "data").checksum
    next((tmp_path / "data" / "train" / "sad").iterdir()).unlink()
    assert load_fer2013(tmp_path / "data").checksum != before


def test_packing_keeps_every_row_and_the_checksum(tmp_path, no_cache):
    write_folder(tmp_path / "data")
    data = load_fer2013(tmp_path / "data")
    assert load_fer2013(pack_fer2013(data, tmp_path / "fer.npz")).checksum == data.checksum


def spoil_truncated(root):
    file = root / "train" / "happy" / sorted(p.name for p in (root / "train" / "happy").iterdir())[0]
    file.write_bytes(file.read_bytes()[:200])
    return file.name


def spoil_unknown_class(root):
    (root / "train" / "angry").rename(root / "train" / "cross")
    return "cross"


def spoil_empty_class(root):
    for file in (root / "test" / "fear").iterdir():
        file.unlink()
    return "fear"


def spoil_half_extracted(root):
    for part in ("test/sad", "test/surprise"):
        for file in (root / part).iterdir():
            file.unlink()
        (root / part).rmdir()
    return "sad, surprise"


def spoil_no_test(root):
    (root / "test").rename(root / "elsewhere")
    return "test"


def spoil_size(root):
    from PIL import Image

    Image.new("L", (47, 48)).save(root / "train" / "happy" / "Training_00099.png")
    return "47x48"


@pytest.mark.parametrize(
    "spoil", [spoil_truncated, spoil_unknown_class, spoil_empty_class, spoil_half_extracted, spoil_no_test, spoil_size]
)
def test_a_spoilt_folder_is_one_error_naming_the_offender_and_nothing_is_cached(spoil, tmp_path, no_cache):
    write_folder(tmp_path / "data")
    offender = spoil(tmp_path / "data")
    with pytest.raises(DatasetError, match=offender):
        load_fer2013(tmp_path / "data")
    assert not list(no_cache.glob("*"))


def test_a_cut_zip_is_one_error_naming_it(tmp_path, no_cache):
    write_folder(tmp_path / "data")
    path = zip_of(tmp_path / "data", tmp_path / "fer.zip")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DatasetError, match=r"fer\.zip"):
        load_fer2013(path)
    assert not list(no_cache.glob("*"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((3, " ".join(["0"] * 2303), "Training"), r"48\*48 numbers. Received: 2303 \(row 0"),
        ((3, " ".join(["256"] * 2304), "Training"), r"0\.\.255.*row 0"),
        ((3, " ".join(["x"] * 2304), "Training"), "whole numbers.*row 0"),
        ((7, " ".join(["0"] * 2304), "Training"), r"0\.\.6. Received: '7' \(row 0"),
        ((3, " ".join(["0"] * 2304), "Exam"), r"Usage must be.*'Exam' \(row 0"),
    ],
)
def test_a_bad_csv_row_is_one_error_naming_row_and_rule(row, message, tmp_path, no_cache):
    write_csv(tmp_path / "fer2013.csv", [row])
    with pytest.raises(DatasetError, match=message):
        load_fer2013(tmp_path / "fer2013.csv")
    assert not list(no_cache.glob("*"))


def test_a_csv_without_its_columns_says_which_it_needs(tmp_path, no_cache):
    (tmp_path / "fer2013.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="emotion, pixels, Usage"):
        load_fer2013(tmp_path / "fer2013.csv")


def test_pixel_text_becomes_rows_of_a_picture():
    picture = parse_pixels(" ".join(str(i % 256) for i in range(2304)))
    assert picture[1, 0] == 48 and picture.dtype == np.uint8


def test_the_environment_variable_leads_to_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_PROJECT", tmp_path / "project")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "icml_face_data.csv").touch()
    monkeypatch.setenv("FER2013_DIR", str(tmp_path / "there"))
    assert find_fer2013() == tmp_path / "there" / "icml_face_data.csv"


def test_missing_data_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_PROJECT", tmp_path / "project")
    monkeypatch.delenv("FER2013_DIR", raising=False)
    with pytest.raises(DatasetError, match="kaggle.com/datasets/msambare/fer2013"):
        load_fer2013()
    with pytest.raises(DatasetError, match="must exist"):
        load_fer2013(tmp_path / "nowhere")


def test_a_failed_download_names_the_manual_way(monkeypatch):
    import kagglehub

    def fail(handle):
        raise ConnectionError("no route")

    monkeypatch.setattr(kagglehub, "dataset_download", fail)
    with pytest.raises(DatasetError, match="no route.*with a browser"):
        download_fer2013()


def test_a_sample_keeps_at_most_so_many_of_each_class(drawn):
    small = subset(drawn, per_class=4)
    assert [np.bincount(s.labels).tolist() for s in small.splits().values()] == [[4] * 7] * 3


@pytest.mark.data
def test_the_real_tests_have_the_official_counts(fer2013):
    for usage in ("PublicTest", "PrivateTest"):
        assert tuple(np.bincount(fer2013.splits()[usage].labels)) == OFFICIAL_COUNTS[usage]
    assert len(fer2013.training) == sum(OFFICIAL_COUNTS["Training"])


@pytest.mark.data
def test_real_votes_mostly_agree_with_the_real_labels(fer2013):
    votes = fer2013.training.votes
    if votes is None:
        pytest.skip("needs fer2013new.csv beside the data and rows in the file names")
    agree = votes[:, dataset.VOTES_OF_EMOTION].argmax(axis=1) == fer2013.training.labels
    assert agree.mean() > 0.6  # joined to the wrong rows it would be near 0.2
