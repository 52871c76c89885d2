import pytest

from emotion import labels


def test_the_order_is_the_official_one_of_fer2013():
    assert labels.EMOTIONS == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.mark.parametrize("table", ["EMOJI", "DESCRIPTIONS", "COLOURS", "FOUR_OF_SEVEN"])
def test_every_table_covers_exactly_the_seven(table):
    assert tuple(getattr(labels, table)) and set(getattr(labels, table)) == set(labels.EMOTIONS)


def test_the_four_emotion_view_keeps_all_probability():
    seven = dict(zip(labels.EMOTIONS, (0.1, 0.05, 0.05, 0.4, 0.1, 0.1, 0.2), strict=True))
    four = labels.to_four(seven)
    assert tuple(four) == labels.FOUR_EMOTIONS
    assert four == pytest.approx({"happy": 0.5, "angry": 0.15, "sad": 0.15, "calm": 0.2})


def test_bad_names_are_refused_by_name():
    with pytest.raises(ValueError, match="'joy'"):
        labels.index_of("joy")
    with pytest.raises(ValueError, match="joy"):
        labels.to_four({"joy": 1.0})
