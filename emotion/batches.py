"""What a network is fed in training: shuffled, balanced, mixed batches, the same after a resume as without one."""

import numpy as np

from emotion import cleaning
from emotion.dataset import VOTE_COLUMNS
from emotion.training_config import TrainingConfig


def batches(
    images: np.ndarray, targets: np.ndarray, config: TrainingConfig, first_epoch: int = 0, framed: np.ndarray | None = None
):
    """Yields shuffled batches without end, epoch after epoch.

    What an epoch yields is a function of (seed, epoch) alone, so that a resumed run sees what it would have seen. (A
    `keras.utils.PyDataset` would not do: `fit` shuffles its batches by an order of its own and calls its hooks once too often.)

    Args:
        images: uint8 (n, 48, 48), or features of pictures, float32 (n, channels).
        targets: float32 (n, 7), rows sum to 1; columns behind these (FER+ votes) go along.
        config: batch size, balance, share of framed pictures, mixup and seed are used.
        first_epoch: where to begin, from 0.
        framed: uint8 (n, 48, 48), the same pictures as the page frames them; None shows none of these.

    Yields:
        (x, y) or, with class weights, (x, y, sample weights): x float32 (batch, 48, 48, 1) grey levels, or (batch, channels)
        features. The last batch of an epoch is filled up from its beginning, so that every step has one shape and
        JAX compiles once.
    """
    classes = targets.shape[1] - (len(VOTE_COLUMNS) if config.vote_head else 0)
    labels, size, epoch = targets[:, :classes].argmax(axis=1), config.batch_size, first_epoch
    weights = cleaning.class_weights(labels) if config.balance == "class_weight" else None
    while True:
        rng = np.random.default_rng((config.seed, epoch))
        order = cleaning.balanced_indices(labels, rng) if config.balance == "sampling" else rng.permutation(len(labels))
        for start in range(0, len(order), size):
            chosen = np.take(order, np.arange(start, start + size), mode="wrap")
            x, y = images[chosen], targets[chosen]
            if framed is not None and config.framed:
                x = np.where(rng.random((size, 1, 1)) < config.framed, framed[chosen], x)
            x = x.astype(np.float32)
            x = x[..., None] if x.ndim == 3 else x
            if config.mixup:
                x, y = mix(x, y, rng.beta(config.mixup, config.mixup), rng.permutation(size))
            yield (x, y) if weights is None else (x, y, weights[labels[chosen]])
        epoch += 1


def mix(x: np.ndarray, y: np.ndarray, share: float, partner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blends each picture and its target with a partner's: share x own + (1 - share) x partner's, float32."""
    share = np.float32(share)
    return share * x + (1 - share) * x[partner], share * y + (1 - share) * y[partner]
