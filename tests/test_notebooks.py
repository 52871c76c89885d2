"""The notebooks as they are committed, their rehearsal from top to bottom, and what they share (`utils`)."""

import ast
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import utils
from emotion.dataset import Split
from emotion.evaluation import evaluate
from emotion.fer_readers import DatasetError
from emotion.training_config import Stage, TrainingConfig

ROOT = Path(__file__).resolve().parent.parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.:/])/(work|root|home|tmp|usr|opt|var|mnt|Users)/\w|[A-Z]:\\Users")
each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def shown_text(cell) -> str:
    """Everything that a cell printed or displayed as text."""
    texts = [output.get("text", "") for output in cell.outputs]
    texts += [output.data.get(kind, "") for output in cell.outputs if "data" in output for kind in ("text/plain", "text/html")]
    return "\n".join(texts)


def test_notebooks_have_numbers_of_their_own_and_stand_in_their_order_in_the_readme():
    numbers = [re.match(r"(\d\d)_", path.name)[1] for path in PATHS]
    assert numbers == [f"{number:02d}" for number in range(1, len(numbers) + 1)]
    linked = re.findall(r"\]\(notebooks/([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [name for name in dict.fromkeys(linked) if name] == [path.name for path in PATHS]


@each_notebook
def test_the_first_cell_says_what_the_notebook_is(path):
    title = read(path).cells[0]
    assert title.cell_type == "markdown" and title.source.startswith(f"# {path.name[:2]} · ")
    for row in ("Question", "Reads", "Writes", "Time"):
        assert re.search(rf"^\| \*\*{row}\*\* \| \S.* \|$", title.source, re.MULTILINE), row


@each_notebook
def test_badge_and_set_up_cell_hold_the_address_of_pyproject(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["project"]["urls"]["Repository"]
    message = "run: python utils.py"
    assert f"](https://colab.research.google.com/assets/colab-badge.svg)]({utils.colab_link(path.name, address)})" in (
        read(path).cells[0].source.replace("[![Open in Colab", "")
    ), message
    assert f'REPOSITORY = "{address}"' in code_cells(path)[0].source, message


def test_all_notebooks_have_the_same_set_up_cell():
    assert len({code_cells(path)[0].source for path in PATHS}) == 1


def run_set_up(folder: Path, address: str, monkeypatch) -> Path:
    """Runs the set-up cell as a notebook in `folder` would, and returns the project that it found."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = {}
    exec(code_cells(PATHS[0])[0].source.replace('REPOSITORY = ""', f'REPOSITORY = "{address}"'), names)
    assert sys.path[0] == str(names["root"])
    return names["root"]


def test_the_set_up_cell_finds_the_project_above_the_notebook(monkeypatch):
    assert run_set_up(ROOT / "notebooks", "", monkeypatch) == ROOT


def test_the_set_up_cell_clones_what_it_does_not_find(tmp_path, monkeypatch):
    origin, bare = tmp_path / "origin", tmp_path / "bare"
    (origin / "emotion").mkdir(parents=True)
    (origin / "emotion" / "labels.py").touch()
    bare.mkdir()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", *command], cwd=origin, check=True)
    found = run_set_up(bare, origin.as_uri(), monkeypatch)
    assert found.parent == bare and (found / "emotion" / "labels.py").is_file()


def test_the_set_up_cell_says_what_to_do_where_there_is_no_project(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="upload it"):
        run_set_up(tmp_path, "", monkeypatch)


@each_notebook
def test_cells_are_short_and_the_recorded_runs_are_loaded(path):
    for cell in code_cells(path):
        assert len(cell.source.splitlines()) <= 15, cell.source
        assert not re.search(r"^RETRAIN = (?!False\b)", cell.source, re.MULTILINE), cell.source


@each_notebook
def test_it_was_executed_from_top_to_bottom_and_kept_its_outputs(path):
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    for output in outputs:
        assert output.output_type != "error", output
        assert output.get("name") != "stderr", output.text
    assert "Rehearsal" not in "".join(map(shown_text, cells))


@each_notebook
def test_it_is_small_and_tells_nothing_of_the_machine(path):
    assert path.stat().st_size < 2_000_000
    for cell in code_cells(path):
        assert not MACHINE_PATH.search(cell.source + shown_text(cell)), cell.source


def test_no_function_is_defined_in_two_notebooks():
    names = Counter()
    for path in PATHS:
        tree = ast.parse("\n".join(cell.source for cell in code_cells(path)))
        names.update({node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)})
    assert [name for name, count in names.items() if count > 1] == []


@each_notebook
def test_every_figure_that_it_saves_lies_in_docs_under_its_name(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    for name in re.findall(r'save_figure\(\w+, "([^"]+)"\)', source):
        assert (ROOT / "docs" / "figures" / f"{name}.png").is_file(), name


def files(*folders: str) -> dict:
    return {p: p.stat().st_mtime_ns for folder in folders for p in (ROOT / folder).glob("*") if p.is_file()}


@each_notebook
def test_the_rehearsal_runs_all_cells_and_leaves_the_project_alone(path, monkeypatch):
    monkeypatch.setenv("FER_SMOKE", "1")
    monkeypatch.delenv("RETRAIN", raising=False)
    before = files("docs/figures", "saved_models", "notebooks")
    notebook = read(path)
    # Raises CellExecutionError with the cell's traceback.
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    assert "Rehearsal" in "".join(shown_text(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert files("docs/figures", "saved_models", "notebooks") == before


# What the notebooks share.


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty project: nothing that `utils` writes or reads lies in the real one."""
    monkeypatch.setattr(utils, "ROOT", tmp_path)
    for name in ("FER_SMOKE", "RETRAIN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write_run(folder: Path, config: TrainingConfig, data, seed: int = 0) -> None:
    """Writes what training leaves of a run, with made-up probabilities."""
    folder.mkdir(parents=True)
    rng, metrics = np.random.default_rng(seed), {}
    for part in utils.PARTS:
        split = getattr(data, part)
        probabilities = rng.dirichlet(np.ones(7), len(split)).astype(np.float32)
        np.save(folder / f"{part}.npy", probabilities)
        metrics[part] = evaluate(split.labels, probabilities, resamples=10)
    record = {"name": config.name, "config": config.to_dict(), "metrics": metrics, "best_epoch": 1, "parameters": 7,
              "minutes": 3.0, "git_commit": "abc"}  # fmt: skip
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "history.csv").write_text("epoch,loss,accuracy,val_loss,val_accuracy\n1,1.9,0.2,1.8,0.3\n")


def test_on_colab_the_named_packages_are_installed_as_pinned(monkeypatch):
    commands = []
    monkeypatch.setattr(utils, "on_colab", lambda: True)
    monkeypatch.setattr(utils.subprocess, "run", lambda command, check: commands.append(command))
    utils.set_up("gradio", "ai_edge_litert", "keras")
    installed = commands[0][5:]
    pinned = (ROOT / "requirements-app.txt").read_text().split() + (ROOT / "requirements.txt").read_text().split()
    assert [pin.partition("==")[0] for pin in installed] == ["gradio", "ai-edge-litert", "keras"] and set(installed) < set(pinned)


def test_outside_colab_a_missing_package_is_named_and_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(utils.subprocess, "run", lambda *_, **__: pytest.fail("installed"))
    with pytest.raises(ModuleNotFoundError, match="no_such_package must be installed"):
        utils.set_up("no_such_package")


def test_a_recorded_run_is_loaded_and_the_reader_is_told(project, drawn, capsys):
    config = TrainingConfig("small", epochs=3, architecture_options={"filters": (4, 8)})
    write_run(project / "saved_models/runs/small", config, drawn)
    run = utils.get_run(config, drawn)
    assert run.private_test.shape == (len(drawn.private_test), 7) and list(run.history.index) == [1]
    assert "recorded run" in capsys.readouterr().out


def test_other_settings_than_the_recorded_ones_are_refused(project, drawn):
    config = TrainingConfig("small", epochs=3)
    write_run(project / "saved_models/runs/small", config, drawn)
    with pytest.raises(ValueError, match=r"epochs \(here 4, recorded 3\)"):
        utils.get_run(replace(config, epochs=4), drawn)


def test_the_run_of_another_notebook_is_never_retrained(project, drawn, monkeypatch):
    config = TrainingConfig("small")
    write_run(project / "saved_models/runs/small", config, drawn)
    monkeypatch.setenv("RETRAIN", "1")
    monkeypatch.setattr("emotion.training.train", lambda *_, **__: pytest.fail("trained"))
    assert utils.load_run(config, drawn).name == "small"


def test_all_recorded_runs_are_loaded_with_their_own_settings_best_first(project, drawn):
    assert utils.recorded_runs(drawn) == []
    for seed, name in enumerate(("one", "two", "three")):
        write_run(project / "saved_models/runs" / name, TrainingConfig(name, epochs=seed + 1), drawn, seed=seed)
    (project / "saved_models/runs/unfinished").mkdir()
    write_run(project / "saved_models/runs/refit", TrainingConfig("refit", refit=True, keep="last"), drawn)
    runs = utils.recorded_runs(drawn)
    accuracies = [run.metrics("public_test")["accuracy"]["value"] for run in runs]
    assert {run.name for run in runs} == {"one", "two", "three"} and accuracies == sorted(accuracies, reverse=True)
    assert [run.name for run in utils.recorded_runs(drawn, "two")] == ["two"]
    with pytest.raises(FileNotFoundError, match="Found none of: absent"):
        utils.recorded_runs(drawn, "two", "absent")


@pytest.mark.parametrize("retrain", [False, True])
def test_a_recorded_search_is_read_and_goes_on_only_when_asked(retrain, project, drawn, monkeypatch, capsys):
    from test_tuning import made_up_fit

    from emotion import training, tuning

    monkeypatch.setattr(training, "fit", made_up_fit)
    monkeypatch.setattr(tuning, "STORAGE", project / "study.jsonl")
    tuning.search(drawn, 2, 8, tuning.STORAGE)
    study = utils.get_study(drawn, trials=3, epochs=8, retrain=retrain)
    assert len(study.trials) == (3 if retrain else 2)
    assert ("gone on with" if retrain else "loaded and not continued") in capsys.readouterr().out


def test_a_missing_record_names_the_command_that_makes_it(project, drawn):
    with pytest.raises(FileNotFoundError, match=r"python -m emotion.training --set name=absent epochs=2"):
        utils.get_run(TrainingConfig("absent", epochs=2), drawn)


def test_the_command_trains_the_very_config(monkeypatch, drawn):
    from emotion import training
    from emotion.augmentation import STANDARD

    options = {"batch_norm": True}
    config = TrainingConfig("a_run", epochs=5, augmentation=STANDARD, architecture_options=options, note="It's a test.")
    trained = []
    monkeypatch.setattr(training, "load_fer2013", lambda path: drawn)
    monkeypatch.setattr(training.cleaning, "check_official", lambda data: None)
    monkeypatch.setattr(training, "train", lambda config, data, folder: trained.append(config) or {"metrics": {}})
    training.main(shlex.split(utils.training_command(config))[3:])
    assert trained == [config]


def test_probabilities_of_other_pictures_are_refused(project, drawn):
    config = TrainingConfig("small")
    write_run(project / "saved_models/runs/small", config, drawn)
    order = np.random.default_rng(0).permutation(len(drawn.private_test))
    with pytest.raises(ValueError, match="must belong to the PrivateTest"):
        utils.get_run(config, replace(drawn, private_test=drawn.private_test.take(order)))


@pytest.mark.parametrize("by_environment", [True, False])
def test_retraining_puts_the_new_run_in_the_records_place(by_environment, project, drawn, monkeypatch):
    config = TrainingConfig("small", epochs=3)
    folder = project / "saved_models/runs/small"
    write_run(folder, config, drawn, seed=0)
    before = np.load(folder / "private_test.npy")
    monkeypatch.setattr("emotion.training.train", lambda config, data, run_dir, verbose: write_run(run_dir, config, data, seed=1))
    if by_environment:
        monkeypatch.setenv("RETRAIN", "1")
    run = utils.get_run(replace(config, epochs=4), drawn, retrain=not by_environment)
    assert run.record["config"]["epochs"] == 4 and not np.allclose(run.private_test, before)
    assert [p.name for p in folder.parent.iterdir()] == ["small"]
    assert np.allclose(np.load(folder / "private_test.npy"), run.private_test)


def test_a_shuffled_jpeg_copy_comes_into_the_recorded_order(project):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (60, 8, 8)).astype(np.uint8)
    images, labels = levels.repeat(6, axis=1).repeat(6, axis=2), rng.integers(0, 7, 60)
    images[1], labels[:2] = images[0], (3, 4)  # one picture, two labels
    split = Split(images, labels, np.arange(60))
    data = replace(utils.draw_data(), public_test=split, private_test=split)
    utils.write_test_order(data)

    def copied(image):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=75)
        return np.asarray(Image.open(file))

    order = rng.permutation(60)
    copy = Split(np.stack([copied(image) for image in images[order]]), labels[order], np.full(60, -1))
    restored = utils.in_recorded_order(replace(data, public_test=copy, private_test=copy)).private_test
    assert restored.labels.tolist() == labels.tolist()
    assert np.abs(restored.images.astype(int) - images).mean() < 10


def test_a_rehearsal_without_the_data_set_draws_faces_and_writes_elsewhere(project, monkeypatch):
    def missing(**_):
        raise DatasetError("not here")

    monkeypatch.setattr(utils, "load_fer2013", missing)
    with pytest.raises(DatasetError):
        utils.load_data()
    monkeypatch.setenv("FER_SMOKE", "1")
    data = utils.load_data()
    assert all(set(split.labels) == set(range(7)) and split.votes is not None for split in data.splits().values())
    assert project not in utils.output("docs/figures/x.png").parents


def test_recall_changes_count_what_flipped_and_bound_it():
    labels = np.repeat(np.arange(7), 100)
    before = np.eye(7)[np.where(np.arange(700) % 100 < 50, labels, (labels + 1) % 7)]
    after = before.copy()
    after[150:180] = np.eye(7)[1]  # thirty more of class 1 are found, nothing else changes
    changes = utils.recall_changes(labels, before, after)
    assert changes.loc["disgust", ["before", "after", "change"]].tolist() == pytest.approx([0.5, 0.8, 0.3])
    assert 0.2 < changes.loc["disgust", "low"] < 0.3 < changes.loc["disgust", "high"] < 0.4
    assert changes.loc["angry", ["change", "low", "high"]].tolist() == [0, 0, 0]
    assert changes.loc["all", "change"] == pytest.approx(30 / 700)


def test_the_table_of_settings_holds_what_differs_in_words():
    plain = TrainingConfig("plain", architecture_options={"dropout": 0.3})
    staged = replace(plain, name="staged", stages=[Stage(0, 0, 0.1), Stage(2, 50, 0.05, norms=True)], note="differs, too")
    table = utils.settings_table(plain, staged, replace(plain, name="wide", architecture_options={"dropout": 0.3, "dense": 512}))
    assert table.to_dict("index") == {
        "learning_rate": {"plain": str(plain.learning_rate), "staged": "see stages", "wide": str(plain.learning_rate)},
        "stages": {
            "plain": "none",
            "staged": "from epoch 1 the head at 0.1; from epoch 3 the last 50 layers at 0.05, normalisation too",
            "wide": "none",
        },
        "architecture_options.dense": {"plain": "none", "staged": "none", "wide": "512"},
    }


def test_worst_mistakes_are_the_surest_wrong_answers():
    labels = np.array([0, 0, 0, 0])
    probabilities = np.full((4, 7), 0.01)
    for row, (answer, share) in enumerate([(1, 0.6), (0, 0.94), (2, 0.9), (3, 0.5)]):
        probabilities[row, answer] = share
    assert utils.worst_mistakes(labels, probabilities, 2).tolist() == [2, 0]


def test_saved_figures_are_small_and_in_docs(project):
    figure = utils.plot_matrix(np.arange(49).reshape(7, 7), "A title")
    utils.save_figure(figure, "matrix")
    with Image.open(project / "docs/figures/matrix.png") as picture:
        assert picture.mode == "P" and picture.width > 500
    assert (project / "docs/figures/matrix.png").stat().st_size < 100_000


@pytest.mark.parametrize("address", ["https://github.com/owner/name", "https://github.com/owner/name.git"])
def test_the_address_is_copied_into_badges_and_set_up_cells(address, project):
    (project / "notebooks").mkdir()
    (project / "pyproject.toml").write_text(f'[project.urls]\nRepository = "{address}"\n')
    copy = project / "notebooks" / PATHS[0].name
    copy.write_text(PATHS[0].read_text(encoding="utf-8"), encoding="utf-8")
    utils.write_address()
    assert f'REPOSITORY = "{address}"' in code_cells(copy)[0].source
    assert f"(https://colab.research.google.com/github/owner/name/blob/main/notebooks/{copy.name})" in read(copy).cells[0].source
