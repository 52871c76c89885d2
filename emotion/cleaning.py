"""What is wrong with FER-2013, counted; what is taken out of Training before fitting; the targets and weights to fit with.

The two test parts are never changed, so that results stay comparable with published ones.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from emotion.dataset import FER2013, OFFICIAL_COUNTS, VOTE_COLUMNS, VOTES_OF_EMOTION, Split
from emotion.fer_readers import DatasetError
from emotion.labels import EMOTIONS

BLANK_SPREAD = 3.0
"""A picture shows nothing when the standard deviation of its grey levels is below this."""
NOT_A_FACE_SHARE = 0.5
"""A picture is "not a face" when at least this share of its FER+ votes says so."""


def check_official(data: FER2013) -> None:
    """Makes sure that results on the two tests can be compared with published ones.

    Raises:
        DatasetError: PublicTest or PrivateTest does not have the official number of pictures in each class.
    """
    for usage in ("PublicTest", "PrivateTest"):
        counts = tuple(np.bincount(data.splits()[usage].labels, minlength=len(EMOTIONS)).tolist())
        if counts != OFFICIAL_COUNTS[usage]:
            raise DatasetError(f"{usage} must have {OFFICIAL_COUNTS[usage]} pictures a class. Received: {counts} ({data.source})")


def find_blank(split: Split) -> np.ndarray:
    """Returns bool (n,): pictures of (nearly) one grey level."""
    return split.images.reshape(len(split), -1).std(axis=1) < BLANK_SPREAD


def find_non_faces(split: Split) -> np.ndarray:
    """Returns bool (n,): pictures that FER+ taggers called "not a face"; all False without votes."""
    if split.votes is None:
        return np.zeros(len(split), dtype=bool)
    share = split.votes[:, VOTE_COLUMNS.index("NF")] / np.maximum(split.votes.sum(axis=1), 1)
    return share >= NOT_A_FACE_SHARE


def group_duplicates(data: FER2013) -> list[list[tuple[str, int]]]:
    """Returns the groups of pixel-identical pictures, each a list of (part's name, position in the part)."""
    groups = defaultdict(list)
    for usage, split in data.splits().items():
        for position, image in enumerate(split.images):
            groups[image.tobytes()].append((usage, position))
    return [group for group in groups.values() if len(group) > 1]


def check(data: FER2013) -> list[dict]:
    """Counts what a reader should know before trusting the data.

    Returns:
        Rows {"check", "Training", "PublicTest", "PrivateTest"}: pictures, labels off the official counts, blank pictures,
        non-faces (FER+), pictures with an identical twin in the same part, in another part, and twins of another label.
    """
    splits = data.splits()
    within, across, conflicting = (dict.fromkeys(splits, 0) for _ in range(3))
    for group in group_duplicates(data):
        usages = [usage for usage, _ in group]
        labels = {int(splits[usage].labels[position]) for usage, position in group}
        for usage in usages:
            within[usage] += usages.count(usage) > 1
            across[usage] += len(set(usages)) > 1
            conflicting[usage] += len(labels) > 1
    off = {
        usage: int(np.abs(np.bincount(split.labels, minlength=len(EMOTIONS)) - OFFICIAL_COUNTS[usage]).sum())
        for usage, split in splits.items()
    }
    return [
        {"check": "pictures", **{usage: len(split) for usage, split in splits.items()}},
        {"check": "difference from the official class counts", **off},
        {"check": "blank pictures", **{usage: int(find_blank(split).sum()) for usage, split in splits.items()}},
        {"check": "not a face (FER+)", **{usage: int(find_non_faces(split).sum()) for usage, split in splits.items()}},
        {"check": "identical to another picture of the same part", **within},
        {"check": "identical to a picture of another part", **across},
        {"check": "identical to a picture with another label", **conflicting},
    ]


def clean(data: FER2013) -> tuple[FER2013, list[dict]]:
    """Takes out of Training what should not be fitted; the first reason that applies counts.

    Removed: blank pictures; pixel-identical copies of PublicTest or PrivateTest pictures; FER+ "not a face"; all copies of a
    picture whose copies carry different labels; all but the first of copies with the same label.

    Returns:
        The data with fewer Training rows, and a table of rows
        {"reason": str, "position": int (in Training as given), "row": int (of fer2013.csv), "emotion": str}.
    """
    training = data.training
    reasons = np.full(len(training), "", dtype=object)

    def mark(positions, reason: str) -> None:
        for position in positions:
            reasons[position] = reasons[position] or reason

    mark(np.flatnonzero(find_blank(training)), "blank")
    groups = group_duplicates(data)
    for group in groups:
        if any(usage != "Training" for usage, _ in group):
            mark([p for usage, p in group if usage == "Training"], "copy of a test picture")
    mark(np.flatnonzero(find_non_faces(training)), "not a face (FER+)")
    for group in groups:
        positions = [p for usage, p in group if usage == "Training"]
        if len({int(training.labels[p]) for p in positions}) > 1:
            mark(positions, "copies with different labels")
        else:
            mark(positions[1:], "copy of another Training picture")
    removed = [
        {"reason": reasons[p], "position": int(p), "row": int(training.rows[p]), "emotion": EMOTIONS[training.labels[p]]}
        for p in np.flatnonzero(reasons != "")
    ]
    return replace(data, training=training.take(reasons == "")), removed


def refittable(data: FER2013) -> Split:
    """Returns the PublicTest rows that a last refit may fit, without votes, which are for Training rows only.

    Left out are blank pictures, copies of PrivateTest pictures and copies with different labels, and all but the first of copies
    with the same label. Copies in Training are left out there (`clean`).
    """
    nothing = data.public_test.take(np.zeros(len(data.public_test), dtype=bool))
    as_training = replace(data, training=replace(data.public_test, votes=None), public_test=nothing)
    return clean(as_training)[0].training


def one_hot(labels: np.ndarray) -> np.ndarray:
    """Returns float32 (n, 7) with a one at each label."""
    return np.eye(len(EMOTIONS), dtype=np.float32)[labels]


def soft_targets(split: Split, label_share: float = 1.0) -> np.ndarray:
    """Blends labels with FER+ votes: label_share x one-hot + (1 - label_share) x votes.

    Args:
        split: with votes, unless `label_share` is 1. To be used for Training rows only.
        label_share: 0..1.

    Returns:
        float32 (n, 7), rows sum to 1. A row none of whose votes fell on the seven emotions keeps its label alone.

    Raises:
        ValueError: votes are needed and missing, or `label_share` is outside 0..1.
    """
    if not 0 <= label_share <= 1:
        raise ValueError(f"label_share must lie in 0..1. Received: {label_share}")
    targets = one_hot(split.labels)
    if label_share == 1:
        return targets
    if split.votes is None:
        raise ValueError("label_share below 1 needs FER+ votes: put fer2013new.csv beside the data set. Received: no votes")
    votes = split.votes[:, VOTES_OF_EMOTION]
    total = votes.sum(axis=1, keepdims=True)
    shares = np.where(total > 0, votes / np.maximum(total, 1), targets)
    return (label_share * targets + (1 - label_share) * shares).astype(np.float32)


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Returns float32 (7,): n / (7 x count of the class), so that classes weigh the same in the loss; 0 for absent ones."""
    counts = np.bincount(labels, minlength=len(EMOTIONS))
    return np.where(counts > 0, len(labels) / (len(EMOTIONS) * np.maximum(counts, 1)), 0).astype(np.float32)


def balanced_indices(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws n positions with replacement so that every class present is equally likely: one epoch of balanced sampling."""
    weights = class_weights(labels)[labels].astype(np.float64)
    return rng.choice(len(labels), size=len(labels), p=weights / weights.sum())
