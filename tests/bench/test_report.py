"""What a person wrote into bench/RESULTS.md outlives the next run."""

from pathlib import Path

from bench.report import write


def test_findings_are_kept_and_all_else_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    write("old\n{findings}\nnumbers\n", page)
    assert page.read_text() == "old\n<!-- findings -->\n<!-- end of findings -->\nnumbers\n"
    page.write_text(page.read_text().replace("<!-- findings -->\n", "<!-- findings -->\nA {brace} and a finding.\n"))
    write("new\n{findings}\n", page)
    assert page.read_text() == "new\n<!-- findings -->\nA {brace} and a finding.\n<!-- end of findings -->\n"
