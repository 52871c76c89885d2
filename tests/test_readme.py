"""The README's examples of asking the page, run as they stand against a running page."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from page_support import ASTRONAUT, ROOT, running_page
from PIL import Image

from emotion.clips import create_clip

EXAMPLES = re.findall(r"```(python|bash)\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
ASKING = [(language, code) for language, code in EXAMPLES if "gradio_client" in code or "curl" in code]
IN_PROCESS = [code for language, code in EXAMPLES if language == "python" and "gradio_client" not in code]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with the files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "photo.jpg").write_bytes(ASTRONAUT.read_bytes())
    picture = np.asarray(Image.open(ASTRONAUT).convert("RGB"))
    with create_clip(folder / "clip.mp4", 15) as writer:
        for i in range(15):
            writer.write(picture, i / 15)
    return folder


def test_the_readme_shows_how_to_ask_from_python_and_from_a_shell():
    assert [language for language, _ in ASKING].count("python") >= 1 and "bash" in [language for language, _ in ASKING]
    assert all(name in "".join(code for _, code in ASKING) for name in ("/predict\"", "/predict_batch", "/predict_video"))


def test_the_readmes_questions_to_the_page_are_answered(here, tmp_path):
    with running_page(TMPDIR=str(tmp_path)) as (address, _):
        for language, code in ASKING:
            if language == "bash" and not shutil.which("curl"):
                continue  # a machine without curl
            code = code.replace("http://127.0.0.1:7860", address.rstrip("/"))
            command = [sys.executable, "-c", code] if language == "python" else ["bash", "-euc", code]
            result = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120)
            assert result.returncode == 0, result.stderr
            if language == "bash":
                assert "event: complete" in result.stdout and '"happy"' in result.stdout, result.stdout


@pytest.mark.parametrize("code", IN_PROCESS)
def test_the_readmes_python_without_a_page_runs(code, here):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    result = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "happy" in result.stdout
