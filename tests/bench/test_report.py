"""What a person wrote into bench/RESULTS.md outlives the next run."""

from pathlib import Path

from bench.report import judge_books, write


def test_findings_are_kept_and_all_else_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    write("old\n{findings}\nnumbers\n", page)
    assert page.read_text() == "old\n<!-- findings -->\n<!-- end of findings -->\nnumbers\n"
    page.write_text(page.read_text().replace("<!-- findings -->\n", "<!-- findings -->\nA {brace} and a finding.\n"))
    write("new\n{findings}\n", page)
    assert page.read_text() == "new\n<!-- findings -->\nA {brace} and a finding.\n<!-- end of findings -->\n"


def test_the_books_are_judged_by_the_median_of_their_rounds_and_not_at_all_if_not_measured() -> None:
    lite, postgres = judge_books({"SQLite": [0.4, 0.9, 0.45], "PostgreSQL": [1.4, 1.6, 1.7]})
    assert (lite.met, postgres.met) == (True, False)
    assert "0.45 ms (0.40 to 0.90 by round); 0.90 x the target" in lite.row()
    (absent,) = judge_books({"PostgreSQL": None})
    assert absent.met is None
    assert "not judged: it is not installed" in absent.row()
