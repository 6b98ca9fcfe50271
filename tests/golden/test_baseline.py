"""The reference tables of `nanoed regress` still hold."""

from pathlib import Path

from nanoed.studies.regress import CASES, judge, read_spread, rows_of

BASELINE = Path(__file__).resolve().parents[2] / "reports" / "baseline"


def test_every_fixed_case_has_a_reference_that_says_how_it_was_made():
    for name in CASES:
        text = (BASELINE / f"{name}.csv").read_text(encoding="utf-8")
        assert text.startswith("# nanoed regress --update")
        assert {row["status"] for row in rows_of(text).values()} == {"ok"}


def test_small_case_is_within_the_spread_over_seeds(small_case, small_run):
    reference = rows_of((BASELINE / "brookite-small.csv").read_text(encoding="utf-8"))
    now = rows_of((small_run.folder / "results.csv").read_text(encoding="utf-8"))
    spread = read_spread(BASELINE / "spread.csv")
    assert spread
    slipped = [v for v in judge(small_case.name, reference, now, spread, share=1.0) if v.slipped]
    assert slipped == []
