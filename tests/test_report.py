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
