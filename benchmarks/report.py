"""Writes the numbers of README.md and docs/*.md from the records in saved_models, so that no number is ever typed.

A document marks each place with `<!-- report:NAME -->` and `<!-- /report -->`; what stands between is replaced.
Run: make report
"""

import json
import re
from pathlib import Path

import numpy as np

from emotion.labels import EMOTIONS

ROOT = Path(__file__).resolve().parent.parent
SAVED = ROOT / "saved_models"
DOCUMENTS = ("README.md", "docs/MODEL_CARD.md", "docs/REPORT.md")
_BLOCK = re.compile(r"(<!-- report:(\w+) -->\n).*?(<!-- /report -->)", re.DOTALL)


def interval(metric: dict) -> str:
    """Formats {value, low, high} (0..1) as per cent with its 95 % interval."""
    return f"{metric['value']:.1%} ({metric['low']:.1%} to {metric['high']:.1%})"


def table(header: list[str], rows: list[list]) -> str:
    """Formats a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def read_json(path: Path) -> dict:
    """Reads one record."""
    return json.loads(path.read_text(encoding="utf-8"))


def headline() -> str:
    """The shipped model in two sentences."""
    record = read_json(SAVED / "emotion_model.json")
    origins = record.get("pretrained_on", [])
    private, megabytes = record["metrics"]["private_test"], record["formats"]["tflite"]["bytes"] / 1e6
    return (
        f"The shipped model (`{record['name']}`, {record['parameters'] / 1e6:.2f} M parameters, {megabytes:.1f} MB) names the "
        f"labelled emotion in **{interval(private['accuracy'])}** of the {private['n']:,} PrivateTest faces of FER-2013; macro "
        f"F1 is {interval(private['macro_f1'])}. Brackets hold 95 % intervals."
        + (f" It answers with the mean of {record['looks']} looks at each face." if record["looks"] > 1 else "")
        + (f" All of its settings were chosen while PublicTest was held out (`{record['twin']['name']}`); then PublicTest's "
           "pictures were fitted as well." if "twin" in record else "")
        + (f" A part of it had first learned from other pictures: {'; '.join(origins)}.\n" if origins else "\n")
    )


def shipped() -> str:
    """The tests of the shipped model side by side; of a refit, those of its twin before them."""
    record = read_json(SAVED / "emotion_model.json")
    if "twin" in record:
        columns = {
            "PublicTest, fitted on Training alone (chose everything)": (record["twin"], "public_test"),
            "PrivateTest, the same": (record["twin"], "private_test"),
            "PrivateTest, what ships: PublicTest fitted too (scored once)": (record, "private_test"),
        }
    else:
        columns = {
            "PublicTest (chose the epoch and the model)": (record, "public_test"),
            "PrivateTest (scored once)": (record, "private_test"),
        }
    tests = [scored["metrics"][part] for scored, part in columns.values()]
    rows = [
        ["Accuracy", *(interval(test["accuracy"]) for test in tests)],
        ["Macro F1", *(interval(test["macro_f1"]) for test in tests)],
        ["Expected calibration error", *(f"{test['ece']:.3f}" for test in tests)],
        *([name, *(interval(scored["selective"][part][key]) for scored, part in columns.values())]
          for name, key in (("Faces answered (not \"not sure\")", "answered"), ("Accuracy of those answers", "accuracy"))),
        ["Pictures", *(f"{test['n']:,}" for test in tests)],
    ]
    return table(["", *columns], rows)


def classes() -> str:
    """The shipped model's scores per class on PrivateTest."""
    part = read_json(SAVED / "emotion_model.json")["metrics"]["private_test"]
    rows = [
        [name, f"{scores['precision']:.1%}", interval(scores["recall"]), f"{scores['f1']:.2f}", scores["support"]]
        for name, scores in part["per_class"].items()
    ]
    return table(["Apparent emotion", "Precision", "Recall", "F1", "Faces"], rows)


def confusion() -> str:
    """The shipped model's confusion matrix on PrivateTest, rows are the labels."""
    counts = read_json(SAVED / "emotion_model.json")["metrics"]["private_test"]["confusion"]
    return table(["label \\ answer", *EMOTIONS], [[f"**{name}**", *row] for name, row in zip(EMOTIONS, counts, strict=True)])


def removed() -> str:
    """What was taken out of Training before the shipped model was fitted."""
    data = read_json(SAVED / "emotion_model.json")["data"]
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in data["removed"].items())
    more = f" A part was fitted on {data['public_test_rows']:,} of PublicTest, too." if "public_test_rows" in data else ""
    return f"Taken out of Training first, which leaves {data['training_rows']:,} pictures: {reasons}.{more}\n"


def files() -> str:
    """The exported files and how far each is from the network it came from."""
    record = read_json(SAVED / "emotion_model.json")
    rows = [
        [f"`{entry['file']}`", f"{entry['bytes'] / 1e6:.2f} MB", parity(entry)] for entry in record["formats"].values()
    ]
    return table(["File", "Size", "Against the trained network"], rows)


def parity(entry: dict) -> str:
    """Says how an exported file agrees with its source."""
    if "agreement" in entry:
        private = f"; PrivateTest {entry['accuracy']['private_test']['value']:.1%}" if "accuracy" in entry else ""
        return f"served by the page; same answer for {entry['agreement']:.1%} of the faces{private}"
    return f"largest difference of a probability {entry['max_difference']:.1g}"


def runs() -> str:
    """Every recorded run but refits, best PublicTest accuracy first."""
    records = [read_json(path) for path in (SAVED / "runs").glob("*/record.json")]
    records = [record for record in records if "public_test" in record["metrics"]]
    records.sort(key=lambda record: -record["metrics"]["public_test"]["accuracy"]["value"])
    rows = [
        [
            f"`{record['name']}`",
            f"{record['parameters'] / 1e6:.2f} M",
            *(interval(record["metrics"][part]["accuracy"]) for part in ("public_test", "private_test")),
            interval(record["metrics"]["private_test"]["macro_f1"]),
            f"{record['minutes']:.0f}",
        ]
        for record in records
    ]
    return table(["Run", "Parameters", "PublicTest", "PrivateTest", "Macro F1 (PrivateTest)", "Minutes"], rows)


def refits() -> str:
    """What became of each run when PublicTest was fitted as well."""
    from emotion.experiments import TWINS

    rows = []
    for name, twin in TWINS.items():
        records = [SAVED / "runs" / run / "record.json" for run in (twin, name)]
        if all(path.is_file() for path in records):
            scores = (read_json(path)["metrics"]["private_test"] for path in records)
            rows.append([f"`{name}`", *(interval(score["accuracy"]) for score in scores)])
    return table(["Refit", "PrivateTest before (fitted on Training)", "PrivateTest after (PublicTest too)"], rows)


def levers() -> str:
    """What each lever changes on PublicTest, in pairs of runs that differ in little else; incomplete pairs are left out."""
    import utils
    from emotion.evaluation import mcnemar_test
    from emotion.experiments import LEVERS

    def answers(name: str) -> Path:
        run, _, looks = name.partition(", ")
        return SAVED / "runs" / run / ("_".join(["public_test", *looks.split()]) + ".npy")

    with np.load(SAVED / "test_order.npz") as order:
        labels = order["public_test_labels"]
    rows = []
    for lever, names in LEVERS.items():
        if all(answers(name).is_file() for name in names):
            before, after = (np.load(answers(name)) for name in names)
            change = 100 * utils.recall_changes(labels, before, after).loc["all"]
            p = utils.p_value(mcnemar_test(labels, after.argmax(axis=1), before.argmax(axis=1))["p_value"])
            points = f"{change['change']:+z.1f} ({change['low']:+z.1f} to {change['high']:+z.1f})"
            rows.append([lever, *(f"`{name}`" for name in names), points, p])
    return table(["Lever", "Without", "With", "Change of PublicTest accuracy, points", "McNemar"], rows)


def speed() -> str:
    """What `make bench` measured last."""
    measured = read_json(SAVED / "speed.json")
    return table(["What", "Measured"], [list(item) for item in measured["results"].items()]) + f"\n{measured['machine']}\n"


BLOCKS = {f.__name__: f for f in (headline, shipped, classes, confusion, removed, files, runs, refits, levers, speed)}


def render(text: str) -> str:
    """Returns a document with every marked place filled from the records.

    Raises:
        KeyError: a mark names no block.
    """
    return _BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)


def main() -> None:
    """Rewrites the documents in place."""
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = render(before)
        path.write_text(after, encoding="utf-8")
        print(f"{name}: {'rewritten' if after != before else 'up to date'}")


if __name__ == "__main__":
    main()
