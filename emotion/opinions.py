"""What a Training picture's label is likely to be, said without a look at that label: softer targets than the labels themselves.

    python -m emotion.opinions --fold 0                # ... 3: a network that never saw a quarter of Training answers for it
    python -m emotion.opinions --name votes            # from FER+ votes alone
    python -m emotion.opinions --name votes_and_folds  # from the votes and what the four networks answered

A label of FER-2013 is one noisy draw. FER+ has ten taggers' votes for each picture, but they judged by other rules than those who
labelled it (they say neutral more often, say), so that a network taught their votes answers another question than the tests ask.
Here a logistic regression learns how labels follow from votes, and from what a network that was fitted on other pictures answers;
what it says of the pictures that it was not fitted on is an opinion on what the label would be if it were drawn many times. It
keeps the labels' rules and loses much of their noise. For Training rows only; nothing of it is needed to answer.
Sources: Barsoum et al. 2016 (the votes); Dao et al. 2021, "Knowledge Distillation as Semiparametric Inference" (teachers fitted
on other pictures); Lopez-Paz et al. 2016, "Unifying distillation and privileged information".
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from emotion import cleaning
from emotion.dataset import FER2013, Split, load_fer2013
from emotion.training_config import TrainingConfig
from emotion.vote_head import vote_shares

FOLDER = Path(__file__).resolve().parent.parent / "saved_models" / "opinions"
FOLDS = 4
NAMES = ("votes", "votes_and_folds")


def left_out(count: int, fold: int) -> np.ndarray:
    """Returns bool (count,): which pictures a fold's network does not see. Each picture is left out of one fold."""
    return np.random.default_rng(0).permutation(count) % FOLDS == fold


def ask_fold(
    config: TrainingConfig, data: FER2013, fold: int, folder: Path | None = None, verbose: int | str = "auto"
) -> np.ndarray:
    """Fits a network without a fold's pictures and writes fold_N.npy: what it says of these, over their mirror images as well.

    Args:
        config: the settings; PublicTest chooses the epoch.
        data: as loaded; cleaned here.
        fold: 0 to `FOLDS` - 1.
        folder: where the file goes, None is saved_models/opinions; the run itself lies in a folder beside it and can be resumed.
        verbose: as in `keras.Model.fit`.

    Returns:
        float32 (pictures left out, 7), probabilities.
    """
    from emotion.fitting import claim, fit
    from emotion.framing import framed
    from emotion.recorder import predict

    folder = folder or FOLDER
    training = cleaning.clean(data)[0].training
    out = left_out(len(training), fold)
    seen = training.take(~out)
    also = framed(training.images)[~out] if config.framed else None
    run = folder / f"fold_{fold}"
    claim(run, config)
    network, _ = fit(config, seen.images, cleaning.soft_targets(seen), data.public_test, run, verbose, framed=also)
    asked = training.take(out).images
    logs = sum(np.log(np.maximum(predict(network, x), 1e-7)) for x in (asked, asked[:, :, ::-1])) / 2
    answers = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
    np.save(folder / f"fold_{fold}.npy", answers.astype(np.float16))
    (run / "checkpoint.npz").unlink(missing_ok=True)
    return answers


def read_folds(count: int, folder: Path | None = None) -> np.ndarray:
    """Returns float32 (count, 7): what each picture was answered by the network that had not seen it.

    Raises:
        FileNotFoundError: a fold was not asked yet.
        ValueError: the folds are of other pictures.
    """
    folder, answers = folder or FOLDER, np.zeros((count, 7), np.float32)
    for fold in range(FOLDS):
        path, out = folder / f"fold_{fold}.npy", left_out(count, fold)
        if not path.is_file():
            raise FileNotFoundError(f"all folds must be asked first (python -m emotion.opinions --fold {fold}). Found no {path}")
        of_fold = np.load(path)
        if len(of_fold) != out.sum():
            raise ValueError(f"folds must be of {count} pictures. Received: {len(of_fold)} answers in {path}, not {out.sum()}")
        answers[out] = of_fold
    return answers


def form(training: Split, answers: np.ndarray | None = None) -> np.ndarray:
    """Forms the opinions on every picture.

    Args:
        training: Training rows with votes, cleaned.
        answers: (n, 7) probabilities by networks that had not seen the pictures they answered for; None is votes alone.

    Returns:
        float32 (n, 7), rows sum to 1.

    Raises:
        ValueError: votes are missing.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import KFold, cross_val_predict

    shares = vote_shares(training)
    told = [shares, np.sqrt(shares)]
    if answers is not None:
        told.append(np.log(np.maximum(answers, 1e-4)))
    regression = LogisticRegression(C=10.0, max_iter=1000)
    folds = KFold(FOLDS, shuffle=True, random_state=0)
    opinions = cross_val_predict(regression, np.concatenate(told, axis=1), training.labels, cv=folds, method="predict_proba")
    return (opinions / opinions.sum(axis=1, keepdims=True)).astype(np.float32)


def blend(split: Split, name: str, label_share: float, folder: Path | None = None) -> np.ndarray:
    """Returns float32 (n, 7): label_share x one-hot + (1 - label_share) x opinions.

    Args:
        split: the cleaned Training rows.
        name: of opinions that were written.
        label_share: 0..1.
        folder: where they lie, None is saved_models/opinions.

    Raises:
        FileNotFoundError: there are none of that name.
        ValueError: they are of other pictures.
    """
    path = (folder or FOLDER) / f"{name}.npy"
    if not path.is_file():
        raise FileNotFoundError(f"opinions must be formed first (python -m emotion.opinions --name {name}). Found no {path}")
    opinions = np.load(path).astype(np.float32)
    if len(opinions) != len(split):
        raise ValueError(f"opinions must be of the pictures fitted. Received: {len(opinions)} of {name}, {len(split)} pictures")
    return label_share * cleaning.one_hot(split.labels) + (1 - label_share) * opinions


def fold_config(fold: int) -> TrainingConfig:
    """The settings of a fold's network: the MobileNet that knows faces, from its body, for two thirds of the epochs."""
    from emotion.experiments import LARGE

    long = next(config for config in LARGE if config.name == "mobilenet_faces_long")
    note = "mobilenet_faces_long for fewer epochs without a quarter of Training, to be asked about that quarter."
    return replace(long, name=f"fold_{fold}", epochs=24, seed=20 + fold, note=note)


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.opinions --help`."""
    parser = argparse.ArgumentParser(description="Form opinions on the labels of Training that have not seen them.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fold", type=int, choices=range(FOLDS), help="fit a network without this quarter and ask it about it")
    what.add_argument("--name", choices=NAMES, help="which opinions to form")
    parser.add_argument("--data", type=Path, help="data set (default: looked for as emotion.dataset does)")
    options = parser.parse_args(arguments)
    data = load_fer2013(options.data)
    cleaning.check_official(data)
    if options.fold is not None:
        ask_fold(fold_config(options.fold), data, options.fold, verbose=2)
        return
    training = cleaning.clean(data)[0].training
    opinions = form(training, read_folds(len(training)) if options.name == "votes_and_folds" else None)
    FOLDER.mkdir(parents=True, exist_ok=True)
    np.save(FOLDER / f"{options.name}.npy", opinions.astype(np.float16))
    agreed = np.mean(opinions.argmax(axis=1) == training.labels)
    loss = -np.log(np.maximum(opinions[np.arange(len(opinions)), training.labels], 1e-7)).mean()
    print(f"{options.name}: the likeliest is the label of {agreed:.1%} of {len(training):,} pictures, loss {loss:.3f}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
