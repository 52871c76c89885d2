"""The seven emotions: order, names, emoji, descriptions and colours.

This is the only place in the project where the class list is written down. The order is the official order of FER-2013
(Goodfellow et al. 2013, "Challenges in Representation Learning"): the integer in the `emotion` column of `fer2013.csv`.
"""

EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""Class names; a class's position is its index in every label array and probability vector."""

EMOJI = {
    "angry": "😠",
    "disgust": "🤢",
    "fear": "😨",
    "happy": "😄",
    "sad": "😢",
    "surprise": "😲",
    "neutral": "😐",
}

DESCRIPTIONS = {
    "angry": "Lowered, drawn-together brows and a tight mouth: the face looks angry.",
    "disgust": "A wrinkled nose and a raised upper lip: the face looks disgusted.",
    "fear": "Raised, tense brows and wide eyes: the face looks afraid.",
    "happy": "Raised cheeks and mouth corners: the face looks happy.",
    "sad": "Raised inner brows and mouth corners turned down: the face looks sad.",
    "surprise": "Raised brows, wide eyes and a dropped jaw: the face looks surprised.",
    "neutral": "No strong movement of brows, eyes or mouth: the face looks neutral.",
}
"""One sentence per emotion: what such a face usually shows (after Ekman and Friesen's FACS prototypes)."""

COLOURS = {
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
    "neutral": "#7F7F7F",
}
"""Hex colours, told apart by colour-blind readers (Okabe and Ito 2008), used by every figure and by the page."""

FOUR_EMOTIONS = ("happy", "angry", "sad", "calm")
"""The coarser view that the page offers."""

FOUR_OF_SEVEN = {
    "happy": "happy",
    "surprise": "happy",
    "angry": "angry",
    "disgust": "angry",
    "sad": "sad",
    "fear": "sad",
    "neutral": "calm",
}
"""Which of the four coarse emotions takes each of the seven's probability."""


def index_of(emotion: str) -> int:
    """Returns the class index (0..6) of an emotion's name.

    Raises:
        ValueError: `emotion` is not one of `EMOTIONS`.
    """
    try:
        return EMOTIONS.index(emotion)
    except ValueError:
        raise ValueError(f"emotion must be one of {', '.join(EMOTIONS)}. Received: {emotion!r}") from None


def to_four(probabilities: dict[str, float]) -> dict[str, float]:
    """Sums seven probabilities into the four-emotion view.

    Args:
        probabilities: emotion name -> probability in 0..1, all seven names present.

    Returns:
        Coarse name -> probability, in the order of `FOUR_EMOTIONS`; the sum is unchanged.

    Raises:
        ValueError: the names are not exactly the seven of `EMOTIONS`.
    """
    if set(probabilities) != set(EMOTIONS):
        raise ValueError(f"probabilities must name {', '.join(EMOTIONS)}. Received: {', '.join(map(str, probabilities))}")
    coarse = dict.fromkeys(FOUR_EMOTIONS, 0.0)
    for emotion, probability in probabilities.items():
        coarse[FOUR_OF_SEVEN[emotion]] += probability
    return coarse
