"""Contracts of emotion/verdict.py."""

import pytest

from emotion.labels import EMOTIONS, FOUR_EMOTIONS
from emotion.verdict import judge, percent


def probabilities(**named: float) -> dict[str, float]:
    rest = (1 - sum(named.values())) / (len(EMOTIONS) - len(named))
    return {emotion: named.get(emotion, rest) for emotion in EMOTIONS}


def test_a_clear_winner_is_named_alone_with_its_probability():
    verdict = judge(probabilities(happy=0.8))
    assert (verdict.named, verdict.label, verdict.confidence) == (("happy",), "happy", 0.8)


def test_two_close_emotions_are_both_named_most_probable_first():
    verdict = judge(probabilities(surprise=0.44, fear=0.46))
    assert verdict.named == ("fear", "surprise")
    assert verdict.label == "fear or surprise"
    assert "surprise" in " ".join(verdict.sentences())


def test_nothing_is_named_when_the_best_guess_is_below_the_threshold():
    unsure = judge(probabilities(sad=0.45), not_sure_below=0.5)
    assert (unsure.named, unsure.label, unsure.confidence) == ((), "not sure", None)
    assert "sad" in unsure.sentences()[0]
    assert judge(probabilities(sad=0.55), not_sure_below=0.5).label == "sad"


@pytest.mark.parametrize(
    "probability, text", [(0, "0%"), (0.004, "<1%"), (0.006, "1%"), (0.5, "50%"), (0.994, "99%"), (0.9994, ">99%"), (1, "100%")]
)
def test_percentages_claim_neither_certainty_nor_impossibility(probability, text):
    assert percent(probability) == text


def test_scores_are_sorted_and_keep_every_probability():
    given = probabilities(disgust=0.5, neutral=0.3)
    verdict = judge(given)
    assert list(verdict.scores)[:2] == ["disgust", "neutral"]
    assert verdict.scores == given


def test_the_four_emotion_view_sums_to_one_and_says_what_its_names_take_in():
    verdict = judge(probabilities(happy=0.3, surprise=0.4), four=True)
    assert set(verdict.scores) == set(FOUR_EMOTIONS)
    assert sum(verdict.scores.values()) == pytest.approx(1)
    assert verdict.label == "happy"
    assert "happy and surprise" in " ".join(verdict.sentences())


@pytest.mark.parametrize("four", [False, True])
@pytest.mark.parametrize("emotion", EMOTIONS)
def test_every_verdict_is_explained_in_whole_sentences(emotion, four):
    for certainty in (0.2, 0.45, 0.9):
        sentences = judge(probabilities(**{emotion: certainty}), four=four).sentences()
        assert sentences
        assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
