"""The training loop: fits one network by a `TrainingConfig`, stage by stage, resumably. Keras and NumPy only.

What is fitted and how it is judged is said by the callers: `emotion.training` (FER-2013) and `emotion.pretraining`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from emotion import lessons
from emotion.architectures import build
from emotion.augmentation import RandomAugment
from emotion.batches import batches
from emotion.dataset import Split
from emotion.distillation import DistillationLoss, load_teacher
from emotion.fused_norm import with_fused_normalization
from emotion.recalibration import normalizations
from emotion.recorder import Recorder, predict
from emotion.sharpness import SharpnessAwareModel
from emotion.training_config import TrainingConfig
from emotion.transfer import freeze_body, split
from emotion.vote_head import LabelAndVoteLoss, accuracy, with_vote_head


def claim(folder: Path, config: TrainingConfig) -> None:
    """Makes a run's folder and writes config.json, or makes sure that the one there says the same.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    path = folder / "config.json"
    if path.is_file():
        other = config.differences(json.loads(path.read_text(encoding="utf-8")))
        if other:
            rule = "a run must keep its settings; use another name"
            raise ValueError(f"{rule}. Received: other settings for {folder}: {', '.join(other)}")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config.to_dict(), indent=2) + "\n", encoding="utf-8")


def learning_rate(config: TrainingConfig, steps_per_epoch: int):
    """Returns the schedule, a function of the optimizer's own step count (so it goes on after a resume)."""
    peak, total, warmup = config.learning_rate, config.epochs * steps_per_epoch, config.warmup_epochs * steps_per_epoch
    if config.schedule == "step":
        return keras.optimizers.schedules.PiecewiseConstantDecay([total // 2, total * 3 // 4], [peak, peak * 0.1, peak * 0.01])
    if config.schedule == "cosine":
        if warmup:
            return keras.optimizers.schedules.CosineDecay(peak / 100, total - warmup, warmup_target=peak, warmup_steps=warmup)
        return keras.optimizers.schedules.CosineDecay(peak, total)
    return peak


def make_optimizer(config: TrainingConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Builds the uncompiled optimizer of a config."""
    common = {
        "learning_rate": learning_rate(config, steps_per_epoch),
        "weight_decay": config.weight_decay or None,
        "use_ema": config.ema > 0,
        "ema_momentum": config.ema or 0.99,
    }
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(momentum=0.9, nesterov=True, **common)
    else:
        optimizer = keras.optimizers.Adam(**common)
    if config.weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def fit(
    config: TrainingConfig,
    images: np.ndarray,
    targets: np.ndarray,
    validation: Split,
    folder: Path,
    verbose: int | str = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    framed: np.ndarray | None = None,
) -> tuple[keras.Model, Recorder]:
    """Fits, or goes on fitting, the network of a config.

    Args:
        config: the settings.
        images: uint8 (n, 48, 48), what is fitted.
        targets: float32 (n, classes), rows sum to 1; with a vote head (n, classes + 10), the shares of the votes behind them.
        validation: pictures that choose the epoch.
        folder: of history.csv and checkpoint.npz; a checkpoint there is continued.
        verbose: as in `keras.Model.fit`.
        callbacks: more of them; they come after the recorder and find its `val_accuracy` among their logs.
        framed: uint8 (n, 48, 48), the pictures as the page frames them; needed where the config shows a share of these.

    Returns:
        The network with the weights of its best epoch, in float32 and uncompiled, and the recorder of the run.

    Raises:
        ValueError: the config shows framed pictures and there are none, or recalibrates what has no batch normalisation.
    """
    if (config.framed or config.distillation.views) and framed is None:
        raise ValueError(f"framed pictures must be given for a config that shows them. Received: none, share {config.framed}")
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    try:
        recorder = _fit(config, images, targets, validation, folder, verbose, callbacks, framed)
    finally:
        keras.config.set_dtype_policy("float32")
    # Rebuilt under float32, so that the saved network does not carry the precision it was trained with.
    best = build(config.architecture, config.architecture_options, pretrained=False)
    best.set_weights(recorder.best_weights)
    return best, recorder


def _fit(config: TrainingConfig, images, targets, validation: Split, folder: Path, verbose, callbacks, framed) -> Recorder:
    core = with_fused_normalization(build(config.architecture, config.architecture_options))
    model = _training_model(core, config, folder.parent)
    if config.recalibrate and not normalizations(core):
        raise ValueError(f"a network must have batch normalisation to recalibrate it. Received: {config.architecture}")
    chosen = np.random.default_rng(config.seed).permutation(len(images))[: config.recalibrate]
    recorder = Recorder(core, model, validation, config, folder, images[chosen])
    done = recorder.restore()
    for number, (first, end, stage) in enumerate(config.spans()):
        if done >= end or recorder.out_of_patience(done):
            continue
        of_stage, fitted, x, y, also = config, model, images, targets, framed
        if stage:
            freeze_body(core, stage.unfrozen, stage.norms)
            of_stage = replace(config, stages=[], epochs=end - first, learning_rate=stage.learning_rate)
            if stage.unfrozen == 0 and not config.distillation.teachers:
                (fitted, x, y), also = _head_and_features(core, images, targets), None
        steps = -(-len(x) // config.batch_size)
        _compile(fitted, of_stage, steps)
        recorder.enter(number, fitted)
        if config.distillation.views:
            stream = lessons.batches(x, y, also, config, folder.parent, done)
        else:
            stream = batches(x, y, config, done, also)
        fitted.fit(stream, steps_per_epoch=steps, epochs=end, initial_epoch=done, verbose=verbose, shuffle=False,
                   callbacks=[recorder, *callbacks])  # fmt: skip
        done = end
    return recorder


def _head_and_features(core: keras.Model, images: np.ndarray, targets: np.ndarray) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """What the head alone is fitted on: a frozen body answers alike in every epoch, so it is asked once."""
    body, head = split(core)
    features = [predict(body, pictures) for pictures in (images, images[:, :, ::-1])]
    return head, np.concatenate(features), np.concatenate([targets, targets])


def _training_model(core: keras.Model, config: TrainingConfig, runs: Path) -> keras.Model:
    """Augmentation, teachers and a vote head wrap the network and are no part of it: what is saved and served has none."""
    inputs = keras.Input(core.input_shape[1:])
    seen = RandomAugment(config.augmentation, config.seed)(inputs)
    outputs, lesson = (with_vote_head(core) if config.vote_head else core)(seen), config.distillation
    if lesson.teachers and not lesson.views:
        outputs = DistillationLoss(lesson.share, lesson.temperature)([outputs, load_teacher(lesson.teachers, runs)(seen)])
    if config.sharpness:
        model = SharpnessAwareModel(inputs, outputs)
        model.rho = config.sharpness
        return model
    return keras.Model(inputs, outputs)


def _compile(model: keras.Model, config: TrainingConfig, steps: int) -> None:
    lesson = config.distillation
    label_share = 1 - lesson.share if lesson.teachers and not lesson.views else 1.0
    loss, metric = keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing), "accuracy"
    if config.vote_head:
        loss, metric = LabelAndVoteLoss(config.vote_head, config.label_smoothing), accuracy
    # XLA on a CPU convolves many times slower than TensorFlow's own kernels.
    jit = keras.backend.backend() == "jax"
    optimizer = make_optimizer(config, steps)
    model.compile(optimizer=optimizer, loss=loss, loss_weights=[label_share], metrics=[metric], jit_compile=jit)
    model.optimizer.build(model.trainable_variables)
