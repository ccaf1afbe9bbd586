"""What an undisturbed run leaves behind, and whether a disturbed one left the same."""

from __future__ import annotations

from typing import Any

from plugins_for_tests import Place

# What a record says of the outcome; the rest is when and where it was made.
OUTCOME = (
    *("identity", "status", "n_labels", "headline", "headline_is", "subsets", "same_as"),
    *("cluster_names", "cluster_sizes", "versions", "digests", "error"),
)
Outcomes = dict[str, dict[str, Any]]


def outcomes(place: Place) -> Outcomes:
    """What the records say, and their views, by ``method/level/seed``; every file must be whole."""
    return {
        name: found if name.endswith(".views") else {key: found.get(key) for key in OUTCOME}
        for name, found in place.records().items()
    }


def run_to_the_end(
    place: Place, words: str, plugins: tuple[str, ...], calm: Outcomes | None = None
) -> Outcomes:
    """Run what is left; nothing else may be there then, and the records as they were in `calm`."""
    ended = place.run(words, *plugins)
    assert ended.status == 0, ended.text
    assert not place.processes()
    cache = place.folder / "cache"
    drafts = [*place.results.rglob(".*"), *(x for x in cache.rglob(".*") if x.is_dir())]
    assert not drafts, "drafts were left behind"
    assert not list((cache / "checkpoints").rglob("*.pt"))
    found = outcomes(place)
    assert calm is None or found == calm
    return found


def check_kept(place: Place, calm: Outcomes) -> int:
    """Every file of a run that was cut short is that of an undisturbed one; how many there are."""
    found = outcomes(place)
    assert found == {name: calm[name] for name in found}
    return len(found)
