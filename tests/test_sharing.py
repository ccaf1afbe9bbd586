"""What the plan says of sharing is true of a whole run, by count."""

from __future__ import annotations

from pathlib import Path

from plugins_for_tests import Place


def test_a_stage_is_computed_as_often_as_the_plan_says(tmp_path: Path) -> None:
    words = "--method sharer,other-sharer --level 0%,5% --jobs 2"
    with Place(tmp_path) as place:
        first = place.run(words, "sharing")
        assert (first.status, first.err) == (0, "")
        assert first.out.count("brightness once for 4 trials\n") == 1
        assert len(place.read("computed").splitlines()) == 1
        assert list(place.statuses().values()) == ["ok"] * 4
        again = place.run(f"{words} --rerun all", "sharing")
        assert again.out.count("brightness once for 4 trials, there already\n") == 1
        assert len(place.read("computed").splitlines()) == 1
