"""The runs that look for the best model, as a list: name, settings, why. Best first, each resumable.

    python -m emotion.experiments --list small          # what two CPU cores can train, an hour or two each
    python -m emotion.experiments --list large          # for a GPU, a few minutes each: KERAS_BACKEND=jax
    python -m emotion.experiments --list transfer       # once python -m emotion.pretraining has made the bodies' weights
    python -m emotion.experiments --list small --only vgg_small --run-dir /elsewhere

Finished runs are skipped and unfinished ones go on from their last epoch, so the same command may be given again and again. A
run's note says what sets it apart from the list's first one or from the run that it names.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from emotion.augmentation import NONE, STANDARD, Augmentation
from emotion.distillation import Distillation
from emotion.training_config import Stage, TrainingConfig

_ERASING = replace(STANDARD, erase=0.3)

_SMALL = TrainingConfig(
    name="vgg_small",
    architecture="vgg",
    architecture_options={"widths": [32, 64, 128, 256]},
    epochs=46,
    batch_size=128,
    optimizer="sgd",
    learning_rate=0.1,
    schedule="cosine",
    warmup_epochs=2,
    weight_decay=0.005,
    label_smoothing=0.1,
    ema=0.998,
    augmentation=STANDARD,
    precision="mixed_bfloat16",
    note="The VGG-style network in a size that two cores train in an hour.",
)

_FACES = replace(
    _SMALL,
    name="mobilenet_faces",
    architecture="mobilenet",
    architecture_options={"weights": "saved_models/pretrained/mobilenet_faces/body.npz"},
    epochs=12,
    learning_rate=0.04,
    warmup_epochs=1,
    framed=0.3,
    note="A MobileNet that has learned whose faces millions of photos show: does it read their expressions better?",
)

_FACES_AGAIN = replace(
    _FACES,
    name="mobilenet_faces_again",
    architecture_options={"weights": "saved_models/runs/mobilenet_faces/best.keras"},
    epochs=10,
    learning_rate=_SMALL.learning_rate,  # unused: the stage has its own
    stages=[Stage(0, 64, 0.03, norms=True)],
    ema=0.0,
    augmentation=_ERASING,
    seed=1,
    note="mobilenet_faces had not finished learning: on from its weights, the first three blocks as they are, with erasing, "
    "and without the average of the weights, which fits its batch normalisation's statistics badly in so few epochs.",
)

_LESSONS = Distillation(["mobilenet_faces_long", "se_resnet_large"], share=0.8, temperature=1.0, views=20)

SMALL = (
    _SMALL,
    _FACES,
    _FACES_AGAIN,
    replace(
        _FACES_AGAIN,
        name="mobilenet_faces_mixed",
        stages=[Stage(0, -1, 0.03, norms=True)],
        recalibrate=4096,
        framed=0.5,
        mixup=0.2,
        seed=2,
        note="As mobilenet_faces_again, which fits Training far better than PublicTest, with mixup, more framed faces and "
        "all of its layers: does variety help?",
    ),
    replace(
        _FACES,
        name="face_resnet",
        architecture="face_resnet",
        architecture_options={"weights": "saved_models/pretrained/face_resnet/body.npz"},
        epochs=24,
        learning_rate=0.05,
        ema=0.0,
        recalibrate=4096,
        augmentation=_ERASING,
        note="A residual network that has learned to tell millions of faces apart, as a third kind beside the VGG-style one and "
        "the MobileNet.",
    ),
    replace(
        _SMALL,
        name="vgg_small_taught",
        epochs=32,
        distillation=Distillation(["vgg_small"], share=0.6, temperature=2.0),
        seed=1,
        note="The same network, other initial weights, taught by vgg_small as well as by the labels.",
    ),
    replace(
        _SMALL,
        name="vgg_small_pupil",
        architecture_options={**_SMALL.architecture_options, "weights": "saved_models/runs/vgg_small_recalibrated/best.keras"},
        epochs=40,
        learning_rate=0.05,
        label_smoothing=0.0,
        augmentation=NONE,
        distillation=_LESSONS,
        recalibrate=4096,
        seed=2,
        note="On from vgg_small_recalibrated's weights, from what two unlike networks say of views of the pictures.",
    ),
    replace(
        _SMALL,
        name="vgg_small_long",
        epochs=110,
        recalibrate=4096,
        framed=0.5,
        mixup=0.2,
        augmentation=_ERASING,
        note="The same network for longer, with more variety against overfitting: mixup, erasing, half of the showings framed "
        "as the page frames a face.",
    ),
    replace(
        _SMALL,
        name="vgg_small_votes",
        label_share=0.8,
        note="As vgg_small, a fifth of each target from FER+ votes: half of it hurt the custom CNN; does less of it help?",
    ),
    replace(
        _SMALL,
        name="vgg_small_erase",
        augmentation=Augmentation(**{**vars(STANDARD), "erase": 0.5}),
        note="As vgg_small, with random erasing: hands and hair cover faces, too.",
    ),
    replace(
        _SMALL,
        name="se_resnet_small",
        architecture="se_resnet",
        architecture_options={"widths": [24, 48, 96, 192], "blocks": [1, 2, 2, 2]},
        note="Another kind of network for the ensemble: residual, with channel attention.",
    ),
)
"""For two CPU cores."""

_LARGE = replace(
    _SMALL,
    name="vgg_large",
    architecture_options={"widths": [64, 128, 256, 512]},
    epochs=70,
    framed=0.3,
    mixup=0.2,
    augmentation=_ERASING,
    note="The VGG-style network in full size, longer, and with erasing and mixup against its greater capacity.",
)

_MOBILENET_LONG = replace(
    _LARGE,
    name="mobilenet_faces_long",
    architecture="mobilenet",
    architecture_options={"weights": "saved_models/pretrained/mobilenet_faces/body.npz"},
    epochs=36,
    learning_rate=0.04,
    ema=0.0,
    note="The MobileNet that knows faces, for longer and with more variety than mobilenet_faces.",
)

_OPINIONS = {"opinions": "votes_and_folds", "label_share": 0.4, "label_smoothing": 0.0}

_LONG_OPINIONS = replace(
    _MOBILENET_LONG,
    name="mobilenet_faces_long_opinions",
    **_OPINIONS,
    seed=15,
    note="As mobilenet_faces_long, the most of each target from opinions on the label (emotion.opinions): does the labels' noise "
    "leave them and their rules stay?",
)

_LONG_SHARP = replace(
    _LONG_OPINIONS,
    name="mobilenet_faces_long_sharp",
    sharpness=0.1,
    seed=14,
    note="As mobilenet_faces_long_opinions, sharpness-aware.",
)

_VGG_OPINIONS = replace(
    _SMALL,
    name="vgg_small_opinions",
    **_OPINIONS,
    epochs=80,
    ema=0.0,
    framed=0.3,
    mixup=0.2,
    augmentation=_ERASING,
    seed=16,
    note="vgg_small for longer, with erasing, mixup and framed faces, the most of each target from opinions on the label.",
)

_AVERAGED = {"weights": "saved_models/runs/mobilenet_faces_averaged/best.keras", "head": True}

_FROM_AVERAGED = replace(
    _LONG_OPINIONS,
    name="mobilenet_faces_opinions",
    architecture_options=_AVERAGED,
    epochs=24,
    learning_rate=0.03,
    seed=18,
    note="On from the averaged MobileNet, which learned labels by heart, with opinions on them.",
)

_MEMBERS = [
    replace(
        _FROM_AVERAGED,
        name=f"mobilenet_faces_member_{number}",
        architecture_options={"weights": "saved_models/runs/mobilenet_faces_averaged_again/best.keras", "head": True},
        epochs=16,
        warmup_epochs=1,
        label_share=(0.4, 0.7)[number % 2],
        vote_head=0.5,
        keep="last",
        seed=100 + number,
        note="On from the MobileNet that was averaged twice, with opinions and a second head for votes: one of several whose "
        "weights are averaged. Half of them have more of the labels in their targets.",
    )
    for number in range(1, 9)
]

_REFITS = [
    replace(
        member,
        name=member.name.replace("member", "refit"),
        refit=True,
        note=f"As {member.name} with PublicTest's pictures and labels as well, its settings frozen before: a last refit.",
    )
    for member in _MEMBERS
]

_SHIPPED_LESSONS = Distillation(["unlike_pair_averaged"], share=0.8, temperature=1.0, views=12)
"""What `python -m emotion.lessons saved_models/emotion_model_int8.tflite --views 12` made the pair that shipped then write."""


def _taught(config: TrainingConfig, lessons: Distillation, **changes) -> TrainingConfig:
    """A run that learns from written lessons, which say what is shown."""
    return replace(config, distillation=lessons, label_smoothing=0.0, augmentation=NONE, framed=0.0, mixup=0.0, **changes)


LARGE = (
    replace(
        _LARGE,
        name="se_resnet_large",
        architecture="se_resnet",
        architecture_options={"widths": [64, 128, 256, 512], "drop_path": 0.1},
        epochs=45,
        seed=1,
        note="A residual network with channel attention, 11 M parameters, at full resolution in its first stage.",
    ),
    _MOBILENET_LONG,
    replace(
        _MOBILENET_LONG,
        name="mobilenet_faces_long_again",
        architecture_options={"weights": "saved_models/runs/mobilenet_faces_long/best.keras"},
        seed=3,
        note="On from mobilenet_faces_long, once more the same from other random numbers.",
    ),
    _LONG_OPINIONS,
    _LONG_SHARP,
    _VGG_OPINIONS,
    replace(
        _VGG_OPINIONS,
        name="vgg_small_opinions_again",
        architecture_options={**_SMALL.architecture_options, "weights": "saved_models/runs/vgg_small_opinions/best.keras"},
        epochs=40,
        learning_rate=0.05,
        seed=17,
        note="On from vgg_small_opinions, from other random numbers: two runs to average.",
    ),
    replace(
        _MOBILENET_LONG,
        name="mobilenet_faces_long_votes",
        vote_head=0.5,
        recalibrate=4096,
        seed=6,
        note="As mobilenet_faces_long, with FER+ votes by a second head from the start, before the body has settled.",
    ),
    replace(
        _MOBILENET_LONG,
        name="mobilenet_faces_224",
        architecture_options={**_MOBILENET_LONG.architecture_options, "input_size": 224},
        seed=5,
        note="As mobilenet_faces_long at the size that its body knows faces in, two and a half times the work: a better teacher?",
    ),
    replace(
        _MOBILENET_LONG,
        name="face_resnet_long",
        architecture="face_resnet",
        architecture_options={"weights": "saved_models/pretrained/face_resnet/body.npz"},
        epochs=40,
        note="dlib's residual network for faces, for longer and with more variety than face_resnet.",
    ),
    _LARGE,
    _taught(
        replace(_MOBILENET_LONG, name="mobilenet_faces_pupil"),
        _SHIPPED_LESSONS,
        architecture_options=_AVERAGED,
        epochs=11,
        learning_rate=0.03,
        warmup_epochs=1,
        ema=0.999,
        recalibrate=4096,
        seed=8,
        note="On from the averaged MobileNet, from what the pair in which it is says of views of the pictures, in two looks at "
        "each. Short enough for two cores, an hour; its own weights are averaged over most of it.",
    ),
    replace(
        _MOBILENET_LONG,
        name="mobilenet_faces_votes",
        architecture_options=_AVERAGED,
        epochs=12,
        learning_rate=0.03,
        warmup_epochs=1,
        vote_head=0.5,
        recalibrate=4096,
        seed=9,
        note="On from the averaged MobileNet, from the labels and, by a second head, from FER+ votes: do cleaner labels shape "
        "better features where they do not have to be the answer? Short enough for two cores, an hour.",
    ),
    _FROM_AVERAGED,
    *_MEMBERS,
    *_REFITS,
)
"""For a GPU: networks that two cores would train for days. `emotion.lessons` lets them teach small ones.

Those that go on from mobilenet_faces_averaged or mobilenet_faces_averaged_again come last, because these are no runs of the list
but means of two of its runs (`emotion.averaging`). `emotion.committee --split` takes the weights of the first out of the file
that shipped on 2026-11-26 (commit 389b55f), of the second out of the one after it (bad03b8).
"""

_VGG16 = TrainingConfig(
    name="vgg16_finetuned",
    architecture="vgg16_norm",
    architecture_options={"weights": "saved_models/pretrained/vgg16_norm/body.npz", "dropout": 0.3},
    epochs=11,
    batch_size=64,
    optimizer="sgd",
    stages=[Stage(0, 0, 0.1), Stage(3, -1, 0.05, norms=True)],
    schedule="cosine",
    warmup_epochs=1,
    weight_decay=0.005,
    label_smoothing=0.1,
    ema=0.998,
    augmentation=STANDARD,
    precision="mixed_bfloat16",
    note="VGG16 with batch normalisation: the head alone, then all of it, from what it learned of other pictures.",
)

_RESNET50 = replace(
    _VGG16,
    name="resnet50_all",
    architecture="resnet50",
    architecture_options={"weights": "saved_models/pretrained/resnet50/body.npz", "dropout": 0.3},
    epochs=10,
    stages=[Stage(0, 0, 0.1), Stage(3, 50, 0.05), Stage(5, -1, 0.05, norms=True)],
    note="ResNet50 in three stages: the head alone, then the last 50 layers, then all of it.",
)

_RESNET50_IMAGENET = replace(
    _RESNET50,
    name="resnet50_imagenet",
    architecture_options={"weights": "saved_models/pretrained/resnet50_imagenet/body.npz", "dropout": 0.3},
    stages=[Stage(0, 0, 0.1), Stage(3, 50, 0.02), Stage(5, -1, 0.02, norms=True)],
    ema=0.0,
    recalibrate=4096,
    note="As resnet50_all from ImageNet's weights, a million pictures in place of 25,000: lower rates, so that they are not "
    "lost, and no average of the weights, which lags in so few epochs.",
)

_MOBILENET_V2 = replace(
    _VGG16,
    name="mobilenet_v2_finetuned",
    architecture="mobilenet_v2",
    architecture_options={"weights": "saved_models/pretrained/mobilenet_v2/body.npz", "dropout": 0.3},
    note="The small one, a tenth of ResNet50's weights: the head alone, then all of it.",
)

_RESNET50_LONG = replace(
    _LARGE,
    name="resnet50_imagenet_long",
    architecture="resnet50",
    architecture_options={**_RESNET50_IMAGENET.architecture_options, "input_size": 112},
    epochs=26,
    learning_rate=0.04,
    ema=0.0,
    note="ResNet50 from ImageNet's weights, all of it from the start, larger faces and three times as many epochs as two cores "
    "have time for.",
)

_VGG16_IMAGENET = replace(
    _VGG16,
    name="vgg16_imagenet",
    architecture_options={"weights": "saved_models/pretrained/vgg16_imagenet/body.npz", "dropout": 0.3},
    stages=[Stage(0, 0, 0.1), Stage(3, -1, 0.02, norms=True)],
    ema=0.0,
    recalibrate=4096,
    note="As vgg16_finetuned from ImageNet's weights, a million pictures in place of 25,000: a lower rate, so that they are "
    "not lost, and no average of the weights, which lags in so few epochs.",
)

_MOBILENET_V2_POSES = replace(
    _MOBILENET_V2,
    name="mobilenet_v2_poses",
    architecture_options={"weights": "saved_models/pretrained/mobilenet_v2_poses/body.npz", "dropout": 0.3},
    epochs=13,
    stages=[Stage(0, 0, 0.1), Stage(3, -1, 0.03, norms=True)],
    ema=0.0,
    recalibrate=4096,
    note="As mobilenet_v2_finetuned from weights that find people's joints in photos, with a lower rate, two more epochs and no "
    "average of the weights: do they know more of faces than small pictures of anything taught?",
)


def _scratch(config: TrainingConfig, name: str) -> TrainingConfig:
    """The control of a transfer: the same network, settings and epochs of the whole, from initial weights."""
    last = config.stages[-1]
    return replace(
        config,
        name=name,
        architecture_options={**config.architecture_options, "weights": None},
        epochs=config.epochs - last.start,
        stages=[],
        learning_rate=last.learning_rate,
        note=f"The control of {config.name}: the same from initial weights; is the transfer worth anything?",
    )


def _frozen(config: TrainingConfig, name: str) -> TrainingConfig:
    note = f"As {config.name}, the head alone: how much of a face do features of other pictures tell?"
    return replace(config, name=name, epochs=20, stages=config.stages[:1], note=note)


def _again(config: TrainingConfig, epochs: int, learning_rate: float, question: str) -> TrainingConfig:
    """A run goes on: all of the network from its best weights, with erasing and other random numbers."""
    return replace(
        config,
        name=f"{config.name}_again",
        architecture_options={**config.architecture_options, "weights": f"saved_models/runs/{config.name}/best.keras"},
        epochs=epochs,
        stages=[Stage(0, -1, learning_rate, norms=True)],
        augmentation=_ERASING,
        seed=1,
        note=f"On from {config.name}'s weights, with erasing: {question}",
    )


_RESNET50_TAUGHT = replace(
    _again(_RESNET50_IMAGENET, 10, 0.03, "how far does ResNet50 come with ten epochs more and two good teachers?"),
    name="resnet50_imagenet_taught",
    distillation=Distillation(["vgg_small_recalibrated", "mobilenet_faces_again_recalibrated"], share=0.7, temperature=2.0),
)

TRANSFER = (
    _VGG16,
    _frozen(_VGG16, "vgg16_frozen"),
    _scratch(_VGG16, "vgg16_scratch"),
    _MOBILENET_V2,
    _scratch(_MOBILENET_V2, "mobilenet_v2_scratch"),
    _RESNET50,
    _frozen(_RESNET50, "resnet50_frozen"),
    replace(
        _RESNET50,
        name="resnet50_last50",
        stages=_RESNET50.stages[:2],
        note="As resnet50_all without its last stage: are the last 50 layers enough?",
    ),
    _scratch(_RESNET50, "resnet50_scratch"),
    _RESNET50_IMAGENET,
    _VGG16_IMAGENET,
    _again(_VGG16_IMAGENET, 4, 0.015, "how far does VGG16 come in half an hour more?"),
    _MOBILENET_V2_POSES,
    _RESNET50_TAUGHT,
    _RESNET50_LONG,
    _taught(
        _again(_RESNET50_TAUGHT, 8, 0.015, "eight epochs more at half the rate, from what two better networks say of views."),
        _LESSONS,
        seed=2,
    ),
)
"""What pre-trained bodies are worth; as many epochs as two CPU cores do in an hour or two."""

LEVERS = {
    "augmentation": ("custom_cnn", "custom_cnn_augmented"),
    "class weights": ("custom_cnn_augmented", "custom_cnn_class_weight"),
    "balanced sampling": ("custom_cnn_augmented", "custom_cnn_balanced"),
    "FER+ votes, half": ("custom_cnn_augmented_labels", "custom_cnn_augmented_votes"),
    "settings searched": ("custom_cnn_augmented", "custom_cnn_tuned"),
    "deeper network": ("custom_cnn_augmented", "vgg_small"),
    "mirror image": ("vgg_small", "vgg_small, 2 looks"),
    "nearer and further off": ("vgg_small, 2 looks", "vgg_small, 4 looks"),
    "unchanged faces' statistics": ("vgg_small", "vgg_small_recalibrated"),
    "unchanged faces' statistics, MobileNet": ("mobilenet_faces_again", "mobilenet_faces_again_recalibrated"),
    "unchanged faces' statistics, ResNet50": ("resnet50_all", "resnet50_all_recalibrated"),
    "taught by vgg_small": ("vgg_small", "vgg_small_taught"),
    "two networks": ("vgg_small", "vgg_small_pair"),
    "two networks, mirror image": ("vgg_small, 2 looks", "vgg_small_pair, 2 looks"),
    "VGG16, pre-trained": ("vgg16_scratch", "vgg16_finetuned"),
    "VGG16, ImageNet for Tiny ImageNet": ("vgg16_finetuned", "vgg16_imagenet"),
    "VGG16, going on": ("vgg16_imagenet", "vgg16_imagenet_again"),
    "ResNet50, pre-trained": ("resnet50_scratch", "resnet50_all"),
    "ResNet50, ImageNet for Tiny ImageNet": ("resnet50_all_recalibrated", "resnet50_imagenet"),
    "ResNet50, going on with teachers": ("resnet50_imagenet", "resnet50_imagenet_taught"),
    "ResNet50, going on with lessons": ("resnet50_imagenet_taught", "resnet50_imagenet_taught_again"),
    "ResNet50, weights averaged": ("resnet50_imagenet_taught", "resnet50_imagenet_averaged"),
    "MobileNetV2, pre-trained": ("mobilenet_v2_scratch", "mobilenet_v2_finetuned"),
    "MobileNetV2, people for Tiny ImageNet": ("mobilenet_v2_finetuned", "mobilenet_v2_poses"),
    "faces learned first": ("vgg_small", "mobilenet_faces"),
    "faces learned first, dlib's network": ("vgg_small_recalibrated", "face_resnet"),
    "going on": ("mobilenet_faces", "mobilenet_faces_again"),
    "going on with mixup": ("mobilenet_faces_again_recalibrated", "mobilenet_faces_mixed"),
    "two unlike networks": ("mobilenet_faces_again", "unlike_pair"),
    "two unlike networks, mirror image": ("vgg_small, 2 looks", "unlike_pair, 2 looks"),
    "two unlike networks for four looks": ("vgg_small, 4 looks", "unlike_pair, 2 looks"),
    "unchanged faces' statistics, two unlike networks": ("unlike_pair, 2 looks", "unlike_pair_recalibrated, 2 looks"),
    "longer, on a GPU": ("mobilenet_faces_again_recalibrated", "mobilenet_faces_long"),
    "as long again": ("mobilenet_faces_long", "mobilenet_faces_long_again"),
    "faces at 224 for 144 pixels": ("mobilenet_faces_long", "mobilenet_faces_224"),
    "weights averaged": ("mobilenet_faces_long_again", "mobilenet_faces_averaged"),
    "a second network beside the averaged one": ("mobilenet_faces_averaged, 2 looks", "unlike_pair_averaged, 2 looks"),
    "taught by written lessons": ("vgg_small_recalibrated", "vgg_small_pupil"),
    "taught by what ships": ("mobilenet_faces_averaged", "mobilenet_faces_pupil"),
    "FER+ votes, a second head": ("mobilenet_faces_averaged", "mobilenet_faces_votes"),
    "two unlike networks, the better MobileNet": ("unlike_pair_recalibrated, 2 looks", "unlike_pair_averaged, 2 looks"),
    "opinions on labels": ("mobilenet_faces_long", "mobilenet_faces_long_opinions"),
    "opinions on labels, sharpness-aware": ("mobilenet_faces_long_opinions", "mobilenet_faces_long_sharp"),
    "going on with opinions on labels": ("mobilenet_faces_averaged", "mobilenet_faces_opinions"),
    "opinions on labels, vgg_small for longer": ("vgg_small_recalibrated", "vgg_small_opinions"),
    "vgg_small with opinions, going on": ("vgg_small_opinions", "vgg_small_opinions_again"),
    "weights averaged again": ("mobilenet_faces_averaged, 2 looks", "mobilenet_faces_averaged_again, 2 looks"),
    "two unlike networks, weights averaged again": ("unlike_pair_averaged, 2 looks", "unlike_pair_opinions, 2 looks"),
    "opinions, and votes by a second head": ("mobilenet_faces_averaged_again", "mobilenet_faces_member_1"),
    "weights of four averaged": ("mobilenet_faces_member_1", "mobilenet_faces_four"),
    "weights of eight averaged": ("mobilenet_faces_four", "mobilenet_faces_eight"),
    "two unlike networks, weights of four": ("unlike_pair_opinions, 2 looks", "unlike_pair_four, 2 looks"),
}
"""Lever -> the runs without and with it; ", 2 looks" is a run's mean over so many looks at each face (`emotion.looks`)."""

TWINS = {
    **{refit.name: member.name for refit, member in zip(_REFITS, _MEMBERS, strict=True)},
    "mobilenet_faces_four_refit": "mobilenet_faces_four",
    "unlike_pair_refit": "unlike_pair_four",
}
"""Run that was fitted on PublicTest too -> the run of the same settings that was judged there, and is calibrated by it."""

LISTS = {"small": SMALL, "large": LARGE, "transfer": TRANSFER}


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.experiments --help`."""
    parser = argparse.ArgumentParser(description="Train a list of runs, best first; run the same command again to resume.")
    parser.add_argument("--list", choices=LISTS, required=True, help="which runs")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="these alone")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    parser.add_argument("--run-dir", type=Path, help="folder that holds the runs' folders (default: saved_models/runs)")
    options = parser.parse_args(arguments)
    chosen = [config for config in LISTS[options.list] if not options.only or config.name in options.only]
    unknown = set(options.only or ()) - {config.name for config in chosen}
    if unknown:
        known = ", ".join(config.name for config in LISTS[options.list])
        parser.error(f"--only must name runs of the list ({known}). Received: {', '.join(sorted(unknown))}")

    # Only now: help and refusals need not wait for TensorFlow.
    from emotion import cleaning
    from emotion.dataset import load_fer2013
    from emotion.training import RUNS, on_public_test, train

    data = load_fer2013(options.data)
    cleaning.check_official(data)
    for config in chosen:
        print(f"{config.name}: {config.note}", flush=True)
        record = train(config, data, (options.run_dir or RUNS) / config.name, verbose=2)
        print(f"  {on_public_test(record)}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
