"""Keras model -> .keras, .h5, .tflite (float32 and int8) and a record; nothing is kept unless every file answers alike.

All formats keep the contract of saved models: grey levels 0..255, float32 (n, 48, 48, 1), any n -> probabilities (n, 7). The
.tflite files, which the page serves, also return the class activation map of a network that ends in global average pooling and
one dense layer (`emotion.activation`). The only module that needs TensorFlow; it and Keras are imported when an export starts,
so that importing this module stays quick.

The int8 file holds int8 weights; activations become int8 as they arise, with a scale measured on each face ("dynamic range").
Depthwise convolutions stay in float32: LiteRT has no fast kernel for them in this form (a MobileNet took five times as long).
Full-integer quantisation, whose scales are fixed on sample faces, was tried on networks of this project: no smaller or faster on
a CPU, but it changed more answers than `AGREEMENT` allows. Each export measures the agreement and refuses below it.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from emotion.evaluation import apply_temperature, evaluate, fit_temperature, selective_accuracy
from emotion.labels import EMOTIONS
from emotion.verdict import NOT_SURE_BELOW

if TYPE_CHECKING:
    import keras

SAVED_MODELS = Path(__file__).resolve().parent.parent / "saved_models"
INPUT = "grey levels 0..255, shape (n, 48, 48, 1)"
FEWEST_FACES = 256
TOLERANCE = 1e-4
"""Largest difference between a float32 file's probabilities and the source model's; of a map: times its largest value."""
AGREEMENT = 0.99
"""Smallest share of faces whose top emotion the int8 file leaves unchanged."""
INT8_MAP_TOLERANCE = 0.05
"""Largest difference between the int8 file's activation map and the source's, times its largest value (measured: 0.012)."""
FEWEST_WEIGHTS = 9000
"""Layers with fewer stay in float32 in the int8 file: the first and the last, on which answers depend most."""
SUFFIXES = {"keras": ".keras", "h5": ".h5", "tflite": ".tflite", "int8": "_int8.tflite"}
TESTS = ("public_test", "private_test")
INT8_SCHEME = "int8 weights; activations quantised to int8 at run time, per face (dynamic range)"


class ExportError(RuntimeError):
    """An exported file broke a rule; nothing was written or replaced."""


def export_model(
    model: "keras.Model",
    record: dict,
    out_dir: str | Path,
    faces: np.ndarray | None = None,
    *,
    name: str = "emotion_model",
    looks: int = 1,
) -> dict:
    """Writes name.keras, name.h5, name.tflite, name_int8.tflite and name.json, all of them or none.

    Args:
        model: grey levels (n, 48, 48, 1) -> probabilities (n, 7), or [probabilities, activation map], told apart by shape.
            A map that the model has only by its kind goes into the .tflite files alone.
            Augmentation layers and optimizer state may be inside: the former rest, the latter is left out.
        record: what is known about the model (metrics, temperature, config, ...); kept in name.json.
        out_dir: folder of the files; made if missing.
        faces: uint8 (n, 48, 48), n >= 256, on which files and source model are compared; None draws 512 synthetic ones.
        name: first part of the file names.
        looks: how many looks at each face the answer is the mean of (`emotion.looks`).

    Returns:
        What name.json holds: `record` and `labels`, `input`, `output`, `formats` {format: {file, bytes, sha256,
        max_difference}} (int8 also scheme and agreement; differences are those of the probabilities), `export` {faces, rule,
        versions}.

    Raises:
        ExportError: a file's answers differ from the source model's by more than `TOLERANCE`, the int8 file's top emotion
            agrees on fewer faces than `AGREEMENT`, an answer depends on the batch size, or the model breaks the contract.
        ValueError: `faces` or `record` is not as described.
    """
    from emotion.looks import with_looks

    faces = synthetic_faces(2 * FEWEST_FACES)[0] if faces is None else np.asarray(faces)
    if faces.dtype != np.uint8 or faces.shape[1:] != (48, 48) or len(faces) < FEWEST_FACES:
        rule = f"faces must be uint8 of shape (n, 48, 48), n >= {FEWEST_FACES}"
        raise ValueError(f"{rule}. Received: {faces.dtype} of shape {faces.shape}")
    if list(record.get("labels", EMOTIONS)) != list(EMOTIONS):
        raise ValueError(f"labels in the record must be {', '.join(EMOTIONS)}. Received: {record['labels']}")
    served = _served(model, looks)
    source = _source_answers(served, faces)
    exported = with_looks(model, looks)
    own_outputs = _named(exported.outputs).keys()
    out_dir = Path(out_dir)
    # A temporary folder on the same disk as the target: moving a file is then one step, which cannot leave half of it.
    nearest = next(folder for folder in (out_dir, *out_dir.resolve().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=nearest) as folder:
        paths = {kind: Path(folder) / f"{name}{suffix}" for kind, suffix in SUFFIXES.items()}
        _write(exported, served, paths)
        formats = {}
        for kind, path in paths.items():
            expected = source if path.suffix == ".tflite" else {output: source[output] for output in own_outputs}
            formats[kind] = _checked_format(kind, path, faces, expected)
        full_record = _full_record(record, source, formats, len(faces))
        record_path = Path(folder) / f"{name}.json"
        record_path.write_text(json.dumps(full_record, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        out_dir.mkdir(parents=True, exist_ok=True)
        for path in (*paths.values(), record_path):
            os.replace(path, out_dir / path.name)
    return full_record


def synthetic_faces(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draws crude faces whose brows, eyes and mouth follow an emotion, in changing light: enough to compare models on.

    Returns:
        faces uint8 (count, 48, 48) and the emotions drawn, int64 (count,).
    """
    # Per emotion: slope of the brows (positive: inner ends down), height of the eyes, curve of the mouth, its opening.
    shapes = np.array(
        [[0.6, 0.06, -0.3, 0.03], [0.3, 0.03, -0.1, 0.10], [-0.5, 0.14, 0.0, 0.07], [0.0, 0.08, 0.6, 0.08],
         [-0.4, 0.07, -0.5, 0.02], [-0.1, 0.16, 0.0, 0.20], [0.0, 0.08, 0.0, 0.02]]
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    emotions = rng.integers(0, len(EMOTIONS), count)

    def vary(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high, (count, 1, 1))

    slope, eye, curve, opening = (column.reshape(-1, 1, 1) * vary(0.8, 1.2) for column in shapes[emotions].T)
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    x, y, skin, size = x + vary(-0.1, 0.1), y + vary(-0.1, 0.1), vary(120, 220), vary(0.9, 1.1)
    x, y = x / size, y / size
    side = np.abs(x)
    faces = np.where((x / 0.75) ** 2 + (y / 0.95) ** 2 < 1, skin, vary(0, 255))
    eyes = ((side - 0.33) / 0.14) ** 2 + ((y + 0.15) / eye) ** 2 < 1
    brows = (np.abs(y + 0.42 + slope * (side - 0.33)) < 0.06) & (np.abs(side - 0.33) < 0.2)
    mouth = (np.abs(y - 0.5 + curve * (side**2 / 0.3 - 0.15)) < opening + 0.03) & (side < 0.33)
    faces = np.where(eyes | brows | mouth, skin * 0.3, faces)
    faces = faces * (1 + vary(-0.3, 0.3) * x) + rng.normal(0, 8, faces.shape)
    return np.clip(faces, 0, 255).astype(np.uint8), emotions


def _source_answers(model: "keras.Model", faces: np.ndarray) -> dict[str, np.ndarray]:
    """Answers of the model to be served, once it is clear that it keeps the contract."""
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ExportError(f"Keras must run on TensorFlow to export (KERAS_BACKEND). Received: {keras.backend.backend()}")
    if model.input_shape != (None, 48, 48, 1):
        raise ExportError(f"the model's input must have shape (None, 48, 48, 1). Received: {model.input_shape}")
    source = _keras_answers(model, faces)
    worst = np.abs(source["probabilities"].sum(axis=1, dtype=np.float64) - 1).max()
    if not worst <= 1e-3:
        raise ExportError(f"the model's outputs must be probabilities that sum to 1 within 0.001. Received: off by {worst:.3g}")
    return source


def _served(model: "keras.Model", looks: int) -> "keras.Model":
    """Returns the model as .tflite files hold it: with its class activation map, if it is of a kind that has one."""
    from emotion.activation import with_activation_map
    from emotion.looks import with_looks

    with contextlib.suppress(ValueError):  # a network that ends in another way gives probabilities alone
        model = with_activation_map(model) if len(model.outputs) == 1 else model
    return with_looks(model, looks, portable=False)


def _write(model: "keras.Model", served: "keras.Model", paths: dict[str, Path]) -> None:
    """Writes the four model files; `served` goes into the .tflite files."""
    import keras
    import tensorflow as tf

    model.save(paths["keras"])
    model = keras.models.load_model(paths["keras"], compile=False)  # a copy without optimizer state
    model.save(paths["keras"])
    model.save(paths["h5"])

    def serve(grey):
        # Without training=False, Keras' augmentation layers would become part of the graph.
        return _named(keras.tree.flatten(served(grey, training=False)))

    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(served)
        archive.add_endpoint("serve", serve, input_signature=[tf.TensorSpec((None, 48, 48, 1), tf.float32, name="grey")])
        archive.write_out(folder, verbose=False)
        paths["tflite"].write_bytes(tf.lite.TFLiteConverter.from_saved_model(folder).convert())
    paths["int8"].write_bytes(_quantized(paths["tflite"]))


def _quantized(path: Path) -> bytes:
    """Returns a float32 .tflite file's content with the larger convolutions and dense layers in int8."""
    from ai_edge_quantizer import qtyping, quantizer

    weights = qtyping.TensorQuantizationConfig(num_bits=8, symmetric=True, granularity=qtyping.QuantGranularity.CHANNELWISE)
    how = qtyping.OpQuantizationConfig(
        weight_tensor_config=weights, compute_precision=qtyping.ComputePrecision.INTEGER, min_weight_elements=FEWEST_WEIGHTS
    )
    job = quantizer.Quantizer(str(path))
    for operation in (qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED):
        job.update_quantization_recipe(regex=".*", operation_name=operation, op_config=how)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints sizes
        return bytes(job.quantize().quantized_model)


def _checked_format(kind: str, path: Path, faces: np.ndarray, source: dict[str, np.ndarray]) -> dict:
    """Compares a file's answers with the source model's and returns its entry in the record."""
    found = _file_answers(path, faces)
    if found.keys() != source.keys():
        raise ExportError(f"{path.name} must return {' and '.join(source)}. Received: {' and '.join(found)}")
    difference = float(np.abs(found["probabilities"] - source["probabilities"]).max())
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256, "max_difference": difference}
    if kind == "int8":
        agreement = float((found["probabilities"].argmax(axis=1) == source["probabilities"].argmax(axis=1)).mean())
        if not agreement >= AGREEMENT:
            rule = f"{path.name} must name the source model's top emotion on at least {AGREEMENT:.0%} of the faces"
            raise ExportError(f"{rule}. Received: {agreement:.2%} (worst difference of a probability {difference:.3g})")
        entry |= {"scheme": INT8_SCHEME, "agreement": agreement}
    else:
        _require_close(f"{path.name}: probabilities", found["probabilities"], source["probabilities"])
    if "activation_map" in source:
        tolerance = INT8_MAP_TOLERANCE if kind == "int8" else TOLERANCE
        _require_close(f"{path.name}: activation map", found["activation_map"], source["activation_map"], tolerance)
    if path.suffix == ".tflite":
        for count in (1, 5):
            for output, values in _file_answers(path, faces[:count]).items():
                _require_close(f"{path.name}, batch of {count}: {output}", values, found[output][:count])
    return entry


def _require_close(what: str, values: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    limit = tolerance * max(1.0, float(np.abs(expected).max()))  # probabilities stay below 1, maps need not
    worst = float(np.abs(values - expected).max()) if values.shape == expected.shape else float("inf")
    if not worst <= limit:  # also refuses NaN
        raise ExportError(f"{what} must differ by at most {limit:.3g}. Received: a difference of {worst:.3g}")


def _file_answers(path: Path, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Loads a model file as its users would and asks it about uint8 faces (n, 48, 48)."""
    if path.suffix == ".tflite":
        return tflite_answers(path, faces)
    import keras

    return _keras_answers(keras.models.load_model(path, compile=False), faces)


def _keras_answers(model: "keras.Model", faces: np.ndarray) -> dict[str, np.ndarray]:
    import keras

    grey = faces.astype(np.float32)[..., None]
    return _named(keras.tree.flatten(model.predict(grey, batch_size=FEWEST_FACES, verbose=0)))


def tflite_answers(path: Path, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Asks an exported .tflite about many faces, on all cores.

    Args:
        path: of the file.
        faces: grey levels 0..255 of any type, (n, 48, 48).

    Returns:
        "probabilities" float32 (n, 7) and, where the file has one, "activation_map" float32 (n, h, w, 7).
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
    grey_input = interpreter.get_input_details()[0]["index"]
    answers = []
    for start in range(0, len(faces), FEWEST_FACES):
        grey = faces[start : start + FEWEST_FACES].astype(np.float32)[..., None]
        interpreter.resize_tensor_input(grey_input, grey.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(grey_input, grey)
        interpreter.invoke()
        answers.append(_named([interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]))
    return {output: np.concatenate([answer[output] for answer in answers]) for output in answers[0]}


def _named(outputs: list) -> dict:
    """Tells the probabilities, of shape (n, 7), from the activation map, of any other shape."""
    shaped = [len(output.shape) == 2 and output.shape[1] == len(EMOTIONS) for output in outputs]
    names = ["probabilities" if fits else "activation_map" for fits in shaped]
    if sorted(names) not in (["probabilities"], ["activation_map", "probabilities"]):
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs)
        raise ExportError(f"a model must return probabilities (n, 7) and at most one activation map. Received: {shapes}")
    return dict(zip(names, outputs, strict=True))


def _full_record(record: dict, source: dict[str, np.ndarray], formats: dict[str, dict], face_count: int) -> dict:
    from importlib.metadata import version

    packages = {"keras": "keras", "tensorflow": "tensorflow", "litert": "ai-edge-litert", "numpy": "numpy"}
    output = "probabilities (n, 7) in the order of labels"
    if "activation_map" in source:
        output += f"; activation map (n, {', '.join(map(str, source['activation_map'].shape[1:]))})"
    rule = f"float32 within {TOLERANCE:g} of the source model; int8: same top emotion on at least {AGREEMENT:.0%} of the faces"
    versions = {"python": platform.python_version()} | {key: version(package) for key, package in packages.items()}
    added = {
        "labels": list(EMOTIONS),
        "output": output,
        "formats": formats,
        "export": {"faces": face_count, "rule": rule, "versions": versions},
    }
    return _readable({"input": INPUT} | record | added)


def _readable(value):
    """Makes a record fit for JSON and for eyes: NumPy values become plain ones, floats keep six significant decimals."""
    if isinstance(value, dict):
        return {str(key): _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _readable(value.tolist())
    if isinstance(value, float):
        # Digits count where a number is small: a learning rate of 2.5e-7 must not become 0.
        return round(value, 6) if abs(value) >= 1 else float(f"{value:.6g}")
    return str(value) if isinstance(value, Path) else value


def calibrated(
    record: dict, run: Path, public_labels: np.ndarray, private_labels: np.ndarray, looks: int = 1, twin: Path | None = None
) -> dict:
    """Fits the temperature on PublicTest and restates the metrics with it, as they are of what is served.

    Args:
        record: of the run.
        run: its folder, with public_test.npy and private_test.npy, or with those ending in _<looks>_looks.npy.
        public_labels, private_labels: int64 (n,).
        looks: how many looks at each face the served answer is the mean of (`emotion.looks`).
        twin: of a run that was fitted on PublicTest too, the folder of the run of the same settings that was not. It gives the
            temperature, and its metrics are those that PublicTest can tell.

    Returns:
        The record with `looks`, `temperature`, metrics after temperature, `not_sure_below`, and under `selective` how many
        faces of each test reach that probability and how many of those answers are right; with a twin these are of PrivateTest
        alone, and `twin` holds the twin's name, metrics and selective.
    """
    suffix = f"_{looks}_looks.npy" if looks > 1 else ".npy"
    tests = dict(zip(TESTS, (public_labels, private_labels), strict=True))
    answers = {name: np.load((twin or run) / (name + suffix)) for name in tests}
    temperature = fit_temperature(public_labels, answers["public_test"])

    def scores(answers: dict[str, np.ndarray]) -> dict:
        served = {name: (tests[name], apply_temperature(found, temperature)) for name, found in answers.items()}
        return {
            "metrics": {name: evaluate(*test) for name, test in served.items()},
            "selective": {name: selective_accuracy(*test, NOT_SURE_BELOW) for name, test in served.items()},
        }

    added = {"looks": looks, "temperature": temperature, "not_sure_below": NOT_SURE_BELOW}
    if twin is None:
        return record | added | scores(answers)
    own = {"private_test": np.load(run / f"private_test{suffix}")}
    return record | added | scores(own) | {"twin": {"name": twin.name} | scores(answers)}


def _add_int8_accuracy(record: dict, folder: Path, data) -> None:
    """Scores the int8 file, which the page serves, on the tests that the run was scored on; adds that to the record beside it."""
    entry = record["formats"]["int8"]
    entry["accuracy"] = {}
    for name in record["metrics"]:
        split = getattr(data, name)
        answers = tflite_answers(folder / entry["file"], split.images)["probabilities"]
        entry["accuracy"][name] = evaluate(split.labels, answers)["accuracy"]
    path = folder / entry["file"].replace(SUFFIXES["int8"], ".json")
    part = path.with_suffix(".part")
    part.write_text(json.dumps(_readable(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m emotion.export --run saved_models/runs/<name>`."""
    from emotion.experiments import TWINS
    from emotion.looks import LOOKS, with_looks

    parser = argparse.ArgumentParser(description="Export a training run's best network as the model that the app serves.")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--out", type=Path, default=SAVED_MODELS, help="where the files go (default: saved_models)")
    parser.add_argument(
        "--looks", type=int, choices=LOOKS, default=1, help="serve the mean of so many looks at each face (emotion/looks.py)"
    )
    options = parser.parse_args(arguments)
    twin = options.run.parent / TWINS[options.run.name] if options.run.name in TWINS else None
    answers = [f"{name}_{options.looks}_looks.npy" if options.looks > 1 else f"{name}.npy" for name in TESTS]
    needed = {options.run: ["best.keras", "record.json", *(["private_test.npy"] if twin else [f"{name}.npy" for name in TESTS])]}
    if twin:  # its answers will do, where they are recorded
        kept = all((twin / name).is_file() for name in answers)
        needed[twin] = ["record.json", *(answers if kept or options.looks == 1 else ["best.keras"])]
    for folder, names in needed.items():
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            parser.error(f"--run must be the folder of a finished run. Missing in {folder}: {', '.join(missing)}")
    import keras

    from emotion.dataset import load_fer2013
    from emotion.recorder import predict
    from emotion.transfer import learned_from

    data = load_fer2013()
    record = json.loads((options.run / "record.json").read_text(encoding="utf-8"))
    model = keras.models.load_model(options.run / "best.keras", compile=False)

    def look(folder: Path, network: keras.Model, *tests: str) -> None:
        for test in tests if options.looks > 1 else ():
            answers = predict(with_looks(network, options.looks), getattr(data, test).images)
            np.save(folder / f"{test}_{options.looks}_looks.npy", answers)

    look(options.run, model, *(["private_test"] if twin else TESTS))
    if twin and not kept:
        look(twin, keras.models.load_model(twin / "best.keras", compile=False), *TESTS)
    record = calibrated(record, options.run, data.public_test.labels, data.private_test.labels, options.looks, twin)
    record["pretrained_on"] = learned_from(record.get("config", {}).get("architecture_options", {}))
    unseen = (data.private_test if twin else data.public_test).images
    full_record = export_model(model, record, options.out, unseen, looks=options.looks)
    _add_int8_accuracy(full_record, options.out, data)
    for entry in full_record["formats"].values():
        agreement = f", top emotion unchanged on {entry['agreement']:.2%}" if "agreement" in entry else ""
        print(f"{entry['file']}: {entry['bytes']:,} bytes, differs by at most {entry['max_difference']:.2g}{agreement}")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    main()
