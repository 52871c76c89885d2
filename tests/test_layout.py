"""Rules that hold for the whole project: what may import what, what installing gives, where paths and numbers may stand."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "emotion").glob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.name)
def test_the_core_imports_neither_page_nor_figures(path):
    roots = {name.split(".")[0] for name in imported(path)}
    assert not roots & {"utils", "gradio", "gradio_app", "page", "matplotlib", "seaborn"}


TENSORFLOW = "export", "fused_norm", "sharpness"


@pytest.mark.parametrize("path", [p for p in MODULES if p.stem not in TENSORFLOW], ids=lambda p: p.name)
def test_only_export_and_what_each_backend_does_its_own_way_may_import_tensorflow(path):
    assert "tensorflow" not in {name.split(".")[0] for name in imported(path)}


SERVING = "labels", "faces", "recognizer", "verdict", "drawing", "explain", "tracking", "clips", "video"


@pytest.mark.parametrize("module", SERVING)
def test_serving_modules_import_without_tensorflow_or_keras(module):
    code = f"import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; import emotion.{module}"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def pins(name: str) -> dict[str, str]:
    found = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= pins(line[3:].strip())
        elif line:
            package, version = line.split("==")
            found[package] = version
    return found


def test_conda_installs_the_very_pins_of_requirements():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip_parts = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip_parts == [["-r requirements.txt"]]
    # Nothing beside Python and pip comes from conda, so no pin can be overridden there.
    assert {re.split(r"[=<>]", part)[0] for part in environment["dependencies"] if isinstance(part, str)} == {"python", "pip"}
    named = "tensorflow gradio opencv-python-headless numpy pandas matplotlib seaborn scikit-learn jupyter"
    assert set(named.split()) <= set(pins("requirements.txt"))


def test_the_app_needs_no_tensorflow_and_every_requirement_gives_its_reason():
    assert not {"tensorflow", "keras", "jupyter"} & set(pins("requirements-app.txt"))
    for name in ("requirements.txt", "requirements-app.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            assert "#" in line or line.startswith("-r "), f"{name}: {line}"


def test_what_runs_here_is_what_is_pinned():
    from importlib.metadata import version

    assert {name: version(name) for name in pins("requirements.txt")} == pins("requirements.txt")


def test_no_tracked_file_holds_a_path_of_one_machine():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    if tracked == [""]:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"(?<![\w.])/(work|root|home/\w+|Users/\w+)/")
    for name in filter(None, tracked):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".json", ".ipynb", ".txt", ".yml", ".toml", ".csv"} and path.is_file():
            assert not pattern.search(path.read_text(encoding="utf-8")), name


def test_every_make_target_is_explained():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    assert {"app", "test", "notebooks", "bench", "report", "lint"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:.*## \w", text, re.MULTILINE), target
