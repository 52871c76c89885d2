"""From seven probabilities to the words that a person reads: one emotion, two when they are close, or "not sure"."""

from dataclasses import dataclass

from emotion.labels import DESCRIPTIONS, EMOTIONS, FOUR_OF_SEVEN, to_four

NOT_SURE_BELOW = 0.4
"""Highest probability below which no emotion is named, until a model's record brings a calibrated `not_sure_below`."""

CLOSE_CALL = 0.15
"""Two emotions whose probabilities are nearer to each other than this are both named."""


@dataclass(frozen=True)
class Verdict:
    """What to say about one face.

    Attributes:
        scores: emotion -> probability (0..1) in the chosen view, most probable first.
        named: the emotions worth naming, most probable first: one, two when they are close, none when not sure.
    """

    scores: dict[str, float]
    named: tuple[str, ...]

    @property
    def label(self) -> str:
        """A few words, such as "happy", "fear or surprise" or "not sure"."""
        return " or ".join(self.named) or "not sure"

    @property
    def confidence(self) -> float | None:
        """The probability of the one emotion that is named; None when there are two or none."""
        return self.scores[self.named[0]] if len(self.named) == 1 else None

    def sentences(self) -> list[str]:
        """One or two sentences that explain the label."""
        first, second = list(self.scores)[:2]
        if not self.named:
            guess = f"The best guess, {first}, reaches only {percent(self.scores[first])}."
            return [guess, "A sharper, well-lit photo from the front may help."]
        if set(self.scores) == set(EMOTIONS):
            lines = [DESCRIPTIONS[first]]
        else:
            lines = [f"In this view {name} takes in {_members(name)}." for name in self.named]
        if len(self.named) == 2:
            lines.append(f"Almost as likely: {second}, {percent(self.scores[second])} against {percent(self.scores[first])}.")
        return lines


def judge(probabilities: dict[str, float], *, not_sure_below: float = NOT_SURE_BELOW, four: bool = False) -> Verdict:
    """Turns seven probabilities into a verdict.

    Args:
        probabilities: emotion -> probability (0..1), all seven names.
        not_sure_below: when the highest probability is lower, no emotion is named.
        four: judge in the four-emotion view of `labels.to_four`.

    Raises:
        ValueError: `four` is asked for and the names are not the seven of `EMOTIONS`.
    """
    scores = to_four(probabilities) if four else probabilities
    scores = dict(sorted(scores.items(), key=lambda item: -item[1]))
    (first, highest), (second, next_highest) = list(scores.items())[:2]
    if highest < not_sure_below:
        return Verdict(scores, ())
    return Verdict(scores, (first, second) if highest - next_highest < CLOSE_CALL else (first,))


def percent(probability: float) -> str:
    """Writes a probability (0..1) in whole percent; neither "0%" nor "100%" unless it is exactly that."""
    if 0 < probability < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= probability < 1 else f"{probability:.0%}"


def _members(coarse: str) -> str:
    return " and ".join(emotion for emotion in EMOTIONS if FOUR_OF_SEVEN[emotion] == coarse)
