import json

import pytest

from benchmarks import report


@pytest.mark.parametrize("name", report.DOCUMENTS)
def test_every_number_in_the_documents_is_the_records_number(name):
    text = (report.ROOT / name).read_text(encoding="utf-8")
    assert "<!-- report:" in text
    assert report.render(text) == text, f"run: make report ({name} departs from the records)"


def test_what_stands_outside_the_marks_is_left_alone(monkeypatch):
    monkeypatch.setitem(report.BLOCKS, "shipped", lambda: "new\n")
    text = "before\n<!-- report:shipped -->\nold 50 %\n<!-- /report -->\nafter"
    assert report.render(text) == "before\n<!-- report:shipped -->\nnew\n<!-- /report -->\nafter"


def test_a_refit_is_shown_beside_its_twin_and_not_among_the_runs(monkeypatch, tmp_path):
    def scored(*parts, n=9):
        share = {"value": 0.5, "low": 0.4, "high": 0.6}
        tests = {part: {"accuracy": share, "macro_f1": share, "ece": 0.1, "n": n} for part in parts}
        return {"metrics": tests, "selective": {part: {"answered": share, "accuracy": share} for part in parts}}

    both, one = scored("public_test", "private_test"), scored("private_test", n=8)
    for name, scores in (("judged", both), ("fitted_again", one)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        text = json.dumps({"name": name, "parameters": 7, "minutes": 1, **scores})
        (tmp_path / "runs" / name / "record.json").write_text(text)
    (tmp_path / "emotion_model.json").write_text(json.dumps(one | {"twin": {"name": "judged", **both}}))
    monkeypatch.setattr(report, "SAVED", tmp_path)
    monkeypatch.setattr("emotion.experiments.TWINS", {"fitted_again": "judged"})
    assert "`judged`" in report.runs() and "fitted_again" not in report.runs()
    assert report.refits().count("`fitted_again` | 50.0% (40.0% to 60.0%) | 50.0%") == 1
    assert report.shipped().splitlines()[-1] == "| Pictures | 9 | 9 | 8 |"
