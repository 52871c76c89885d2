"""What the notebooks share: seeds, data access, recorded runs, tables, figures.

Two environment variables steer every notebook: `FER_SMOKE=1` runs it in seconds on a small sample and writes into a temporary
folder only; `RETRAIN=1` trains anew instead of loading recorded runs. Keras is imported only where a run is trained, so that
a notebook without a network starts fast.
"""

import atexit
import importlib.util
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from PIL import Image

from emotion.cleaning import one_hot
from emotion.dataset import FER2013, VOTES_OF_EMOTION, Split, load_fer2013, subset
from emotion.evaluation import confusion_matrix
from emotion.fer_readers import DatasetError
from emotion.labels import COLOURS, EMOTIONS

ROOT = Path(__file__).resolve().parent
PARTS = {"public_test": "PublicTest", "private_test": "PrivateTest"}
SERIES = [COLOURS[name] for name in ("sad", "angry", "disgust", "fear", "happy", "neutral", "surprise")]
"""Colours of runs and of other series that are no emotions; neighbours differ most."""
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "grid.color": "#E5E5E5",
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def smoke() -> bool:
    """Whether this is a rehearsal: same cells, a small sample, one epoch, nothing kept."""
    return os.environ.get("FER_SMOKE") == "1"


def on_colab() -> bool:
    """Whether the notebook runs in Google Colab."""
    return "google.colab" in sys.modules


def set_up(*packages: str, networks: bool = False, seed: int = 0) -> None:
    """Prepares a notebook: seeds, figure style, and on Colab the packages that it lacks.

    Args:
        packages: what this notebook needs beyond Colab's own, by the names they are imported under; installed there in the
            pinned version, also where Colab has another one.
        networks: whether the notebook computes with networks: imports Keras and seeds it.
        seed: of every global random generator; training runs seed themselves.

    Raises:
        ModuleNotFoundError: a package is missing outside Colab, where installing is the reader's decision.
    """
    if packages and on_colab():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *map(pinned, packages)], check=True)
        importlib.invalidate_caches()
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(f"{package} must be installed. Run: pip install -r requirements.txt")
    random.seed(seed)
    np.random.seed(seed)
    plt.rcParams.update(STYLE)
    message = "Rehearsal (FER_SMOKE=1): a small sample, one epoch, nothing kept." if smoke() else "Ready."
    if networks:
        with no_native_messages():
            import keras
        keras.utils.set_random_seed(seed)
        message += f" Keras {keras.__version__} on {keras.backend.backend()}."
    print(message)


def pinned(package: str) -> str:
    """Returns "name==version" of an importable package, as the requirements files pin it.

    Raises:
        ValueError: neither file pins it.
    """
    for name in ("requirements-app.txt", "requirements.txt"):
        line = rf"^{package.replace('_', '-')}==\S+"
        if pin := re.search(line, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE):
            return pin[0]
    raise ValueError(f"a package must be pinned in requirements-app.txt or requirements.txt. Received: {package}")


@contextmanager
def no_native_messages():
    """Sends file descriptor 2 to nowhere: TensorFlow's and LiteRT's native code writes there while it is loaded, whatever the
    log level. In a notebook Python's own errors and warnings take another way and stay visible."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fer_smoke_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def output(path: str) -> Path:
    """Returns where to write `path` (relative to the project): there, or in a temporary folder in a rehearsal."""
    target = (_scratch() if smoke() else ROOT) / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def colab_link(notebook: str, address: str) -> str:
    """Returns the link that opens a notebook in Colab; Colab's front page while the repository has no public address."""
    owner_and_name = re.search(r"github\.com/([^/]+/[^/]+?)(?:\.git)?/?$", address)
    place = f"github/{owner_and_name[1]}/blob/main/notebooks/{notebook}" if owner_and_name else ""
    return f"https://colab.research.google.com/{place}"


def write_address() -> None:
    """Copies the repository's address from pyproject.toml into the notebooks' set-up cells and badges: `python utils.py`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["project"]["urls"]["Repository"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        text = re.sub(r'REPOSITORY = \\"[^"\\]*\\"', lambda _: f'REPOSITORY = \\"{address}\\"', text)
        text = re.sub(r"(?<=badge\.svg\)\]\()[^)]*", lambda _, name=path.name: colab_link(name, address), text)
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {address or 'no address yet'}")


def load_data() -> FER2013:
    """Returns FER-2013, fetched first when on Colab; in a rehearsal a sample of it, or drawn faces where there is none.

    Raises:
        DatasetError: not found; the message says how to get it.
    """
    try:
        data = load_fer2013(download=on_colab())
    except DatasetError:
        if not smoke():
            raise
        data = draw_data()
    data = subset(data, per_class=24) if smoke() else in_recorded_order(data)
    print(", ".join(f"{len(split):,} {name}" for name, split in data.splits().items()), "pictures")
    for note in data.notes:
        print("Note:", note)
    return data


def draw_data(seed: int = 0) -> FER2013:
    """Draws simple faces that stand in for the data set in rehearsals, with votes and faults: 24 a class to fit, 8 in tests."""
    rng = np.random.default_rng(seed)
    bend = (-0.03, -0.01, 0.01, 0.04, -0.05, 0.0, 0.0)  # of the mouth, one per emotion
    opening = (1, 2, 3, 2, 1, 6, 1)
    y, x = np.mgrid[:48, :48]
    splits = []
    for per_class in (24, 8, 8):
        labels = rng.permutation(np.repeat(np.arange(len(EMOTIONS)), per_class))
        images = np.empty((len(labels), 48, 48), np.uint8)
        for image, label in zip(images, labels, strict=True):
            u, v = x - rng.normal(24, 1.5), y - rng.normal(25, 1.5)
            face = np.where((u / 18) ** 2 + (v / 23) ** 2 < 1, 170, 60)
            eyes = (abs(u) - 9) ** 2 + (v + 6) ** 2 < 6 + opening[label]
            mouth = (abs(v - 13 + bend[label] * u**2) < opening[label]) & (abs(u) < 8)
            image[:] = np.clip(np.where(eyes | mouth, 40, face) + rng.normal(0, 8, (48, 48)), 0, 255)
        images[0], images[1:8] = 0, images[8]  # a blank picture, and copies most of which contradict each other
        votes = np.zeros((len(labels), 10), np.float32)
        votes[:, VOTES_OF_EMOTION] = 8 * one_hot(labels)
        votes[:, [0, 8]] += 1
        splits.append(Split(images, labels, np.arange(len(labels)), votes))
    return FER2013(*splits, source="drawn", checksum="drawn", notes=("FER-2013 was not found: these faces are drawn.",))


def fingerprints(images: np.ndarray) -> np.ndarray:
    """Returns bool (n, 64) of uint8 (n, 48, 48): whether each cell of an 8 x 8 grid is brighter than its right neighbour.

    A JPEG copy keeps nearly all of them, so they tell pictures apart and recognise copies without storing any picture.
    """
    cells = images.reshape(-1, 8, 6, 8, 6).mean(axis=(2, 4))
    return (cells > np.roll(cells, -1, axis=2)).reshape(-1, 64)


def write_test_order(data: FER2013) -> Path:
    """Stores fingerprints and labels of both tests in the order of the recorded probabilities: saved_models/test_order.npz."""
    arrays = {}
    for part in PARTS:
        split = getattr(data, part)
        arrays[part], arrays[f"{part}_labels"] = np.packbits(fingerprints(split.images), axis=1), split.labels.astype(np.uint8)
    path = output("saved_models/test_order.npz")
    np.savez_compressed(path, **arrays)
    return path


def in_recorded_order(data: FER2013) -> FER2013:
    """Puts the tests of a download that does not tell its rows into the order of the recorded probabilities.

    The usual download sorts by class and carries JPEG copies; each recorded place takes the most similar picture of its class.
    """
    order = ROOT / "saved_models" / "test_order.npz"
    if min(data.public_test.rows.min(), data.private_test.rows.min()) >= 0 or not order.is_file():
        return data
    parts = {}
    with np.load(order) as recorded:
        for part in PARTS:
            split = getattr(data, part)
            wanted = np.where(np.unpackbits(recorded[part], axis=1), 1.0, -1.0)
            found = np.where(fingerprints(split.images), 1.0, -1.0)
            same_class = recorded[f"{part}_labels"][:, None] == split.labels
            parts[part] = split.take(np.where(same_class, wanted @ found.T, -np.inf).argmax(axis=1))
    return replace(data, **parts)


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        record: what emotion.training wrote about it.
        history: one row per epoch, indexed from 1.
        public_test, private_test: float32 (n, 7), the probabilities of the best epoch, in the data set's order.
    """

    record: dict
    history: pd.DataFrame
    public_test: np.ndarray
    private_test: np.ndarray

    @property
    def name(self) -> str:
        return self.record["name"]

    def metrics(self, part: str = "private_test") -> dict:
        return self.record["metrics"][part]


def get_run(config, data: FER2013, retrain: bool = False) -> Run:
    """Loads the recorded run of a config, or trains it, and says which.

    Args:
        config: a `TrainingConfig`; a recorded run must have these very settings.
        data: what `load_data` returned.
        retrain: whether to train anew and put the result in the record's place; so does RETRAIN=1 in the environment. Killed
            and started again, training goes on where it was.

    Raises:
        FileNotFoundError: there is no recorded run; the message holds the command that makes one.
        ValueError: the recorded run has other settings, or belongs to other data.
    """
    if smoke() or not (retrain or os.environ.get("RETRAIN") == "1"):
        return load_run(config, data)
    from emotion.training import train

    folder = ROOT / "saved_models" / "runs" / config.name
    fresh = folder.with_name(folder.name + ".new")
    train(config, data, fresh, verbose=2)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)
    return _read_run(folder, data, "trained just now")


def load_run(config, data: FER2013) -> Run:
    """Loads a recorded run and never trains it, for runs that belong to another notebook. Arguments and errors as `get_run`.

    Only in a rehearsal, which has no records of its own sample, it trains one epoch.
    """
    folder = ROOT / "saved_models" / "runs" / config.name
    recorded = (folder / "record.json").is_file()
    if recorded:
        _check_settings(config, json.loads((folder / "record.json").read_text(encoding="utf-8"))["config"])
    if smoke():
        from emotion.training import train

        folder = output(f"saved_models/runs/{config.name}")
        options = config.architecture_options
        options = options | ({"weights": None} if "weights" in options else {})  # a rehearsal needs no pre-trained weights
        config = replace(config, epochs=1, warmup_epochs=0, patience=0, architecture_options=options)
        config = replace(config, distillation=type(config.distillation)())  # nor any teachers
        train(config, data, folder, verbose=0)
        return _read_run(folder, data, "rehearsal of one epoch")
    if not recorded:
        raise FileNotFoundError(
            f"there must be a recorded run in saved_models/runs/{config.name}. Found none. Set RETRAIN = True in the notebook "
            f"that trains it, or run in the project's folder: {training_command(config)}"
        )
    return _read_run(folder, data, "recorded run, loaded and not trained again")


def recorded_runs(data: FER2013, *names: str) -> list[Run]:
    """Loads recorded runs with the settings that they carry, all unless some are named, the best on PublicTest first.

    Refits are left out: PublicTest, which they were fitted on, can neither rank nor compare them.

    In a rehearsal it trains one epoch of those that are named, or of two small ones.

    Raises:
        FileNotFoundError: a run that is named has no record.
        ValueError: a run belongs to other data.
    """
    from emotion.training_config import TrainingConfig

    paths = sorted((ROOT / "saved_models" / "runs").glob("*/record.json"))
    configs = [TrainingConfig.from_dict(json.loads(path.read_text(encoding="utf-8"))["config"]) for path in paths]
    configs = [config for config in configs if not config.refit]
    missing = set(names) - {config.name for config in configs}
    if missing:
        raise FileNotFoundError(f"there must be recorded runs in saved_models/runs. Found none of: {', '.join(sorted(missing))}")
    if names:
        configs = [config for config in configs if config.name in names]
    elif smoke():
        configs = [config for config in configs if config.architecture == "custom_cnn"][:2]
    runs = [load_run(config, data) for config in configs]
    return sorted(runs, key=lambda run: -run.metrics("public_test")["accuracy"]["value"])


def get_study(data: FER2013, trials: int, epochs: int, retrain: bool = False):
    """Loads the recorded search for settings, or goes on with it until it holds `trials` trials, and says which.

    Args:
        data: what `load_data` returned.
        trials, epochs: see `emotion.tuning.search`.
        retrain: whether to go on; so does RETRAIN=1 in the environment. A complete search is left as it is.

    Returns:
        An `optuna.Study`. A rehearsal searches three trials of its own, and then reads the recorded search if there is one.

    Raises:
        FileNotFoundError: there is no recorded search; the message holds the command that makes one.
    """
    from emotion import tuning

    if smoke():
        study, origin = tuning.search(data, 3, 2, output("saved_models/tuning/custom_cnn.jsonl")), "rehearsal of 2 epochs a trial"
        if tuning.STORAGE.is_file():
            study, origin = tuning.open_study(tuning.STORAGE), "rehearsed with 2 epochs a trial; here is the recorded search"
    elif retrain or os.environ.get("RETRAIN") == "1":
        study, origin = tuning.search(data, trials, epochs, tuning.STORAGE, verbose=2), "gone on with until it was complete"
    else:
        study, origin = tuning.open_study(tuning.STORAGE), "recorded search, loaded and not continued"
    states = [trial.state.name for trial in tuning.finished(study)]
    counts = f"{len(states)} trials, {states.count('PRUNED')} of them pruned"
    print(f"{study.study_name}: {origin}; {counts}. Best on PublicTest: {study.best_value:.1%}")
    return study


def training_command(config) -> str:
    """Returns the shell command that trains a config."""
    defaults = asdict(type(config)(config.name))
    settings = {name: value for name, value in config.to_dict().items() if name == "name" or value != defaults[name]}
    if "augmentation" in settings:
        settings["augmentation"] = {k: v for k, v in settings["augmentation"].items() if v}
    words = [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in settings.items()]
    return f"python -m emotion.training --set {shlex.join(words)}"


def _check_settings(config, recorded: dict) -> None:
    other = config.differences(recorded)
    if other:
        raise ValueError(
            f"settings must be those of the recorded run {config.name}; rename or retrain it. Received: {', '.join(other)}"
        )


def _read_run(folder: Path, data: FER2013, origin: str) -> Run:
    record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    history = pd.read_csv(folder / "history.csv", index_col="epoch")
    run = Run(record, history, *(np.load(folder / f"{part}.npy") for part in PARTS))
    _check_data(run, data)
    minutes, commit = record["minutes"], record["git_commit"] or "unknown"
    print(f"{run.name}: {origin} ({minutes:.0f} min, commit {commit}). PrivateTest: {interval(run.metrics()['accuracy'])}")
    return run


def _check_data(run: Run, data: FER2013) -> None:
    for part in PARTS:
        labels, answers = getattr(data, part).labels, getattr(run, part).argmax(axis=1)
        if len(labels) != len(answers) or confusion_matrix(labels, answers).tolist() != run.metrics(part)["confusion"]:
            raise ValueError(
                f"the probabilities recorded for {run.name} must belong to the {PARTS[part]} at hand. Received: other pictures "
                "or another order. Set RETRAIN = True to train on this copy of the data set."
            )


def interval(metric: dict) -> str:
    """Formats {value, low, high} (0..1) as per cent with its 95 % interval."""
    return f"{metric['value']:.1%} ({metric['low']:.1%} to {metric['high']:.1%})"


def p_value(p: float) -> str:
    """Formats the p value of a test."""
    return f"p = {p:.3f}" if p >= 0.001 else "p < 0.001"


def run_table(*names: str) -> pd.DataFrame:
    """Returns one row per recorded run but refits, the best on PublicTest first; all runs unless some are named."""
    folder = output("saved_models/runs/x").parent
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*/record.json")]
    records = [r for r in records if "public_test" in r["metrics"] and (not names or r["name"] in names)]
    records.sort(key=lambda record: -record["metrics"]["public_test"]["accuracy"]["value"])
    rows = [
        {
            "run": record["name"],
            **{f"accuracy, {title}": interval(record["metrics"][part]["accuracy"]) for part, title in PARTS.items()},
            "macro F1, PrivateTest": interval(record["metrics"]["private_test"]["macro_f1"]),
            "parameters": f"{record['parameters']:,}",
            "best epoch": record["best_epoch"],
            "minutes": record["minutes"],
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("run")


def settings_table(*configs) -> pd.DataFrame:
    """Returns the settings in which configs differ, one column each; `name` and `note` are left out."""
    columns = {}
    for config in configs:
        settings = config.to_dict()
        for group in ("architecture_options", "augmentation"):
            settings |= {f"{group}.{name}": value for name, value in settings.pop(group).items()}
        if config.stages:
            settings["learning_rate"] = "see stages"
            settings["stages"] = "; ".join(map(_stage_text, config.stages))
        columns[config.name] = {name: value for name, value in settings.items() if name not in ("name", "note")}
    names = dict.fromkeys(name for settings in columns.values() for name in settings)
    rows = {name: [settings.get(name) for settings in columns.values()] for name in names}
    differing = {name: values for name, values in rows.items() if any(value != values[0] for value in values)}
    texts = {name: ["none" if value in (None, []) else str(value) for value in values] for name, values in differing.items()}
    return pd.DataFrame.from_dict(texts, orient="index", columns=list(columns))


def _stage_text(stage) -> str:
    layers = {0: "the head", -1: "all"}.get(stage.unfrozen, f"the last {stage.unfrozen} layers")
    return f"from epoch {stage.start + 1} {layers} at {stage.learning_rate:g}{', normalisation too' if stage.norms else ''}"


def class_table(metrics: dict) -> pd.DataFrame:
    """Returns the classification report: precision, recall with its 95 % interval, F1 and pictures per class and on average."""
    rows = {
        name: [f"{s['precision']:.1%}", interval(s["recall"]), f"{s['f1']:.2f}", s["support"]]
        for name, s in metrics["per_class"].items()
    }
    macro = metrics["macro_f1"]["value"]
    rows["macro average"] = [f"{metrics['macro_precision']:.1%}", f"{metrics['macro_recall']:.1%}", f"{macro:.2f}", metrics["n"]]
    weighted = [metrics[f"weighted_{name}"] for name in ("precision", "recall", "f1")]
    rows["weighted average"] = [f"{weighted[0]:.1%}", f"{weighted[1]:.1%}", f"{weighted[2]:.2f}", metrics["n"]]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["precision", "recall (95 % interval)", "F1", "pictures"])


def recall_changes(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Compares the recall of two runs on the same pictures, class by class.

    Args:
        labels: true classes, integers 0..6, shape (n,).
        before, after: probabilities (n, 7).
        resamples, seed: of the bootstrap.

    Returns:
        Indexed by emotion, then "all" (the accuracy): pictures, before, after, change, low, high; shares in 0..1. low and high
        bound the 95 % bootstrap interval of the change. Only pictures on which the two runs disagree move it, which is
        why it is narrower than two separate intervals suggest.
    """
    right = np.stack([probabilities.argmax(axis=1) == labels for probabilities in (before, after)])
    rng, rows = np.random.default_rng(seed), {}
    for name, chosen in [*((name, labels == i) for i, name in enumerate(EMOTIONS)), ("all", labels >= 0)]:
        n, (old, new) = chosen.sum(), right[:, chosen]
        shares = np.array([(new & ~old).sum(), (old & ~new).sum(), (new == old).sum()]) / n
        draws = rng.multinomial(n, shares, size=resamples)
        low, high = np.percentile((draws[:, 0] - draws[:, 1]) / n, (2.5, 97.5))
        rows[name] = [n, old.mean(), new.mean(), new.mean() - old.mean(), low, high]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["pictures", "before", "after", "change", "low", "high"])


def ask_litert(path: Path, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Asks an exported .tflite file about faces, one by one and on two threads, as the page does.

    Args:
        path: the file.
        faces: uint8 (n, 48, 48).

    Returns:
        Probabilities float32 (n, 7), before temperature, and the milliseconds (n,) that each face took.
    """
    from ai_edge_litert.interpreter import Interpreter

    with no_native_messages():
        interpreter = Interpreter(model_path=str(path), num_threads=2)
        interpreter.allocate_tensors()
    (grey,) = interpreter.get_input_details()
    (answer,) = (output for output in interpreter.get_output_details() if len(output["shape"]) == 2)  # the other one is a map
    rows, seconds = [], []
    for face in faces[:, np.newaxis, ..., np.newaxis].astype(np.float32):
        start = time.perf_counter()
        interpreter.set_tensor(grey["index"], face)
        interpreter.invoke()
        rows.append(interpreter.get_tensor(answer["index"])[0])
        seconds.append(time.perf_counter() - start)
    return np.array(rows), 1000 * np.array(seconds)


def save_figure(figure: plt.Figure, name: str) -> None:
    """Writes docs/figures/<name>.png with 256 colours, which keeps it small. Not for pictures of single people: FER-2013's
    faces belong to their owners and are shown in notebooks only."""
    path = output(f"docs/figures/{name}.png")
    figure.savefig(path, dpi=100, facecolor="white")
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(256).save(path, optimize=True)


def show_pictures(
    images: np.ndarray,
    titles: Sequence[str] = (),
    row_names: Sequence[str] = (),
    columns: int = 8,
    size: float = 1.2,
    heading: str = "",
) -> plt.Figure:
    """Shows grey pictures (n, h, w), levels 0..255, in a grid, row after row; says so when there are none.

    Args:
        images: the pictures.
        titles: above each picture.
        row_names: to the left of each row.
        columns: pictures a row.
        size: side of a picture, inches.
        heading: above all.
    """
    rows = max(1, -(-len(images) // columns))
    lines = max((title.count("\n") + 1 for title in titles), default=0) * -(-len(titles) // columns)
    height = rows * size + 0.17 * lines + 0.35 * bool(heading)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, height), squeeze=False)
    for place, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)
        if place < len(images):
            axis.imshow(images[place], cmap="gray", vmin=0, vmax=255)
        if place < len(titles):
            axis.set_title(titles[place], fontsize=9, fontweight="normal", loc="center", pad=3)
    for name, axis in zip(row_names, axes[:, 0], strict=False):
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    if heading:
        figure.suptitle(heading if len(images) else f"{heading}: none", x=0.01, ha="left", fontweight="bold", fontsize=12)
    return figure


def show_heat(images: np.ndarray, heat: Sequence[np.ndarray], titles: Sequence[str] = ()) -> plt.Figure:
    """Shows grey pictures (n, 48, 48) in a row and below each the same under its heat (h, w): red speaks for, blue against."""
    figure = show_pictures(np.concatenate([images, images]), titles, columns=len(images), size=1.5)
    for axis, values in zip(figure.axes[len(images) :], heat, strict=True):
        reach = np.abs(values).max() or 1.0
        style = {"cmap": "RdBu_r", "vmin": -reach, "vmax": reach, "alpha": 0.5, "interpolation": "bicubic"}
        axis.imshow(values, extent=(-0.5, 47.5, 47.5, -0.5), **style)
    return figure


def show_answers(split: Split, probabilities: np.ndarray, positions: Sequence[int], heading: str = "") -> plt.Figure:
    """Shows pictures with their label, the network's answer and its probability."""
    answers = [f"{EMOTIONS[row.argmax()]} {row.max():.0%}" for row in probabilities[positions]]
    labels = [EMOTIONS[label] for label in split.labels[positions]]
    titles = [f"label: {label}\nanswer: {answer}" for label, answer in zip(labels, answers, strict=True)]
    return show_pictures(split.images[positions], titles, columns=7, size=1.45, heading=heading)


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Returns the positions of the wrong answers that the network was surest of, surest first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:count]


def plot_bars(table: pd.DataFrame, title: str, ylabel: str, label: str = "", colours: Sequence[str] | None = None) -> plt.Figure:
    """Draws one group of bars per row of a table.

    Args:
        table: one column per series. A single series takes the emotions' colours.
        title, ylabel: of the axes.
        label: format of the number above each bar, e.g. "{:.0%}"; none is written when empty.
        colours: one per series.
    """
    figure, axis = plt.subplots(figsize=(10, 4))
    width = 0.84 / len(table.columns)
    for i, column in enumerate(table):
        single = len(table.columns) == 1
        colour = [COLOURS.get(name, SERIES[0]) for name in table.index] if single else (colours or SERIES)[i]
        places = np.arange(len(table)) + (i - (len(table.columns) - 1) / 2) * width
        bars = axis.bar(places, table[column], 0.94 * width, label=column, color=colour)
        if label:
            axis.bar_label(bars, [label.format(value) for value in table[column]], padding=2, fontsize=9)
    axis.set(title=title, ylabel=ylabel, xticks=np.arange(len(table)), xticklabels=table.index)
    axis.grid(axis="x", visible=False)
    if len(table.columns) > 1:
        axis.legend()
    return figure


def plot_matrix(
    counts: np.ndarray,
    title: str,
    xlabel: str = "answer",
    ylabel: str = "label",
    columns: Sequence[str] = EMOTIONS,
    axis: plt.Axes | None = None,
) -> plt.Figure:
    """Draws counts (7, k) as a heat map: colour and per cent are shares of the row, the count stands below.

    Args:
        counts: confusion matrix or the like, one row per emotion.
        title, xlabel, ylabel: of the axes.
        columns: names of the k columns.
        axis: where to draw; a new figure when None.
    """
    counts = np.asarray(counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if axis is None:
        _, axis = plt.subplots(figsize=(8.5, 6.5))
    texts = np.array([f"{share:.0%}\n{count:,}" for share, count in zip(shares.flat, counts.flat, strict=True)])
    sns.heatmap(shares, annot=texts.reshape(counts.shape), fmt="", cmap="Blues", vmin=0, vmax=1, square=True, cbar=False,
                linewidths=1, ax=axis, xticklabels=columns, yticklabels=EMOTIONS, annot_kws={"fontsize": 9.5})  # fmt: skip
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.tick_params(length=0, labelrotation=0)
    return axis.figure


def plot_histories(*runs: Run) -> plt.Figure:
    """Draws loss and accuracy of runs, epoch by epoch: Training dashed, PublicTest solid, a dot at the epoch that is kept."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
    for axis, measure in zip(axes, ("loss", "accuracy"), strict=True):
        for run, colour in zip(runs, SERIES, strict=False):
            best = run.record["best_epoch"]
            axis.plot(run.history[measure], "--", color=colour, alpha=0.75, label=f"{run.name}, Training")
            axis.plot(run.history[f"val_{measure}"], color=colour, label=f"{run.name}, PublicTest")
            axis.plot(best, run.history.loc[best, f"val_{measure}"], "o", color=colour, markersize=8)
        axis.set(title=measure.capitalize(), xlabel="epoch")
    axes[0].set_ylabel("cross-entropy, nats")
    axes[1].yaxis.set_major_formatter("{x:.0%}")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs), fontsize=9.5)
    return figure


def plot_changes(changes: pd.DataFrame, title: str) -> plt.Figure:
    """Draws a table of `recall_changes`: a bar per class with its 95 % interval, in percentage points."""
    figure, axis = plt.subplots(figsize=(10, 4))
    points = 100 * changes[["change", "low", "high"]]
    reach = [points["change"] - points["low"], points["high"] - points["change"]]
    style = {"color": [COLOURS.get(name, "white") for name in changes.index], "edgecolor": "#333333"}
    axis.bar(changes.index, points["change"], 0.7, yerr=reach, error_kw={"capsize": 4, "ecolor": "#333333"}, **style)
    axis.axhline(0, color="#333333", linewidth=1)
    names = [f"{name}\n({count:,})" for name, count in changes["pictures"].items()]
    axis.set(title=title, ylabel="change of recall, points", xticks=range(len(changes)), xticklabels=names)
    axis.grid(axis="x", visible=False)
    return figure


def plot_parallel(trials: Sequence, title: str) -> plt.Figure:
    """Draws each Optuna trial as a line through its settings, one axis each, to its rank by accuracy; the better, the darker."""
    trials = sorted(trials, key=lambda trial: trial.value)
    space, ranks = trials[0].distributions, np.linspace(0, 1, len(trials))
    figure, axis = plt.subplots(figsize=(11, 4.8))
    for trial, rank in zip(trials, ranks, strict=True):
        # Lines that share a choice lie side by side, in the order of their ranks.
        line = [_height(d, trial.params[name]) + 0.08 * (rank - 0.5) * hasattr(d, "choices") for name, d in space.items()]
        axis.plot([*line, rank], color=plt.cm.viridis_r(0.1 + 0.9 * rank), linewidth=1 + 2 * rank, alpha=0.9)
    for x, setting in enumerate(space.values()):
        middle = [10 ** np.log10([setting.low, setting.high]).mean()] if getattr(setting, "log", False) else []
        for tick in setting.choices if hasattr(setting, "choices") else (setting.low, *middle, setting.high):
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
            axis.text(x - 0.05, _height(setting, tick), tick if isinstance(tick, str) else f"{tick:g}", ha="right", va="center",
                      fontsize=9.5, bbox=box, zorder=5)  # fmt: skip
    for name, place in {"worst": 0, "median": len(trials) // 2, "best": -1}.items():
        axis.text(len(space) + 0.06, ranks[place], f"{trials[place].value:.1%}\n({name})", va="center", fontsize=9.5)
    axis.vlines(range(len(space) + 1), 0, 1, color="#888888", linewidth=1, zorder=0)
    axis.set(title=title, xticks=range(len(space) + 1), xticklabels=[*space, "accuracy"], yticks=[], ylim=(-0.08, 1.08))
    axis.set_xlim(-0.6, len(space) + 0.6)
    axis.spines[["left", "bottom"]].set_visible(False)
    axis.grid(False)
    axis.tick_params(length=0)
    return figure


def _height(setting, value) -> float:
    """Returns where a value lies between the lowest (0) and the highest (1) of an Optuna distribution."""
    if hasattr(setting, "choices"):
        return setting.choices.index(value) / (len(setting.choices) - 1)
    low, high, value = np.log([setting.low, setting.high, value]) if setting.log else (setting.low, setting.high, value)
    return (value - low) / (high - low)


if __name__ == "__main__":
    write_address()
