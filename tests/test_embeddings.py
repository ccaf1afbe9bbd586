"""Embeddings that fits keep for figures: of which images, of which fits, and what they never do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.core.errors import BenchError
from bench.core.trial import Trial
from bench.data import datasets
from bench.records import projections
from bench.records.scoring import Record
from bench.records.store import Store
from bench.running.job import Job
from bench.running.stages import ArrayStore
from bench.running.worker import Worker
from methods.method import Method, Tags, flatten
from methods.registry import Entry

Entries = dict[str, Entry]
Run = Callable[..., tuple[Record, dict[str, np.ndarray]]]


class Embedder(Method):
    """Guesses; its embedding is what the test says."""

    gives: Callable[[np.ndarray], Any] | None = None

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    def fit(self, X: np.ndarray, y: np.ndarray | None = None, context: Any = None) -> Embedder:
        """Guess."""
        self.labels_ = np.arange(len(X)) % self.n_clusters
        return self

    def transform(self, X: np.ndarray) -> Any:
        """What `gives` makes of the images."""
        assert type(self).gives is not None
        return type(self).gives(X)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Guess."""
        return np.arange(len(X)) % self.n_clusters


class Free(Embedder):
    """The same, without a look at labels."""

    tags = Tags(uses_labels=False)


class Plain(Method):
    """Guesses and has no embedding."""

    def __init__(self, n_clusters: int = 10, random_state: int | None = None) -> None:
        self.n_clusters = n_clusters
        self.random_state = random_state

    fit = Embedder.fit  # type: ignore[assignment]  # sets labels_ and nothing else


@pytest.fixture
def run(tmp_path: Path, cache: Path, entries: Entries, monkeypatch: pytest.MonkeyPatch) -> Run:
    """``run(gives, *levels, **fields)``: fit on digits; the last record and the arrays kept."""
    for name, cls in (("embedder", Embedder), ("free", Free), ("plain", Plain)):
        entries[name] = Entry(name, cls, {}, cls.tags, "here")
    digest = datasets.load("digits").digest

    def carry_out(gives: Callable[[np.ndarray], Any], *levels: str, **fields: Any) -> Any:
        monkeypatch.setattr(Embedder, "gives", staticmethod(gives))
        given = {"method": "embedder", "seed": 0, "protocol": "transductive"} | fields
        trials = [
            Trial(
                dataset="digits",
                dataset_digest=digest,
                selection="stratified",
                schedule="smoke",
                level=level,
                params={"n_clusters": 10},
                **given,
            )
            for level in levels
        ]
        Worker(Job(tuple(trials), "digits", str(tmp_path), str(cache)), lambda event: None).run()
        record = Store(tmp_path).read(trials[-1])
        assert record is not None
        assert record["status"] == "ok"
        kept = ArrayStore(cache / "fits").read(record["fit"])
        assert kept is not None
        return record, kept[0]

    return carry_out


# --- Of which images -----------------------------------------------------------------------------


def test_the_sample_is_fixed_and_spread() -> None:
    """The same images for every method, on every machine: these were drawn once."""
    chosen = projections.sample(70_000)
    assert chosen.dtype == np.int64
    assert len(np.unique(chosen)) == len(chosen) == 3_000
    assert chosen[:5].tolist() == [35, 38, 75, 116, 119]
    assert (np.diff(chosen) > 0).all()
    assert abs(chosen.mean() / 70_000 - 0.5) < 0.02
    assert projections.sample(100).tolist() == list(range(100))


def test_a_fit_keeps_the_embedding_of_the_sample(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projections, "N_POINTS", 500)
    _, arrays = run(lambda X: flatten(X)[:, 20:24], "10%", protocol="inductive")
    fitted = datasets.load("digits").X[: datasets.load("digits").n_train]
    chosen = projections.sample(len(fitted))
    assert arrays["embedding"].shape == (500, 4)
    assert arrays["embedding"].dtype == np.float32
    np.testing.assert_array_equal(arrays["embedding"], flatten(fitted[chosen])[:, 20:24])


# --- Of which fits -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "fields", "there"),
    [
        (["0%"], {}, True),
        (["1%"], {}, True),
        (["10%"], {}, True),
        (["50%"], {}, True),
        (["5%"], {}, False),
        (["100"], {}, False),
        (["10%"], {"seed": 1}, False),
        (["10%"], {"method": "plain"}, False),
        (["5%", "10%"], {"method": "free"}, True),
        (["5%"], {"method": "free"}, True),
        (["5%"], {"method": "free", "seed": 1}, False),
    ],
)
def test_which_fits_keep_one(
    run: Run, levels: list[str], fields: dict[str, Any], there: bool
) -> None:
    _, arrays = run(lambda X: flatten(X)[:, :3], *levels, **fields)
    assert ("embedding" in arrays) == there


# --- What it costs and changes: nothing ----------------------------------------------------------


def _cost(record: Record) -> dict[str, Any]:
    return {x: record["cost"][x] for x in ("fit_seconds", "predict_seconds", "stage_seconds")}  # type: ignore[literal-required]


def test_the_record_is_that_of_a_fit_without(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    def slow(X: np.ndarray) -> np.ndarray:
        time.sleep(0.5)
        return flatten(X)

    with_it, arrays = run(slow, "10%")
    assert "embedding" in arrays
    assert max(_cost(with_it).values()) < 0.4
    without, arrays = run(slow, "10%", method="plain")
    assert "embedding" not in arrays
    timed = ("cost", "fit", "trial", "identity")
    assert {x: v for x, v in with_it.items() if x not in timed} == {
        x: v for x, v in without.items() if x not in timed
    }
    assert with_it.keys() == without.keys()


def _raises(X: np.ndarray) -> np.ndarray:
    raise RuntimeError("it is not fitted\nat all")


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (_raises, "RuntimeError: it is not fitted"),
        (lambda X: np.ones(len(X)), r"transform gives float64 with shape (1797,); expected"),
        (lambda X: np.ones((2, 2)), "shape (2, 2); expected (1797, d) finite numbers"),
        (lambda X: np.full((len(X), 2), "a"), "transform gives <U1"),
        (lambda X: np.ones((len(X), 0)), "transform gives no column"),
        (lambda X: np.full((len(X), 2), np.nan), "numbers without end; expected (1797, d) finite"),
        (lambda X: np.full((len(X), 2), 1e300), "numbers without end"),
        (lambda X: None, "transform gives object with shape ()"),
    ],
)
def test_a_transform_that_fails_is_warned_of_and_loses_no_trial(
    run: Run, capsys: pytest.CaptureFixture[str], gives: Callable[..., Any], said: str
) -> None:
    record, arrays = run(gives, "10%")
    assert record["status"] == "ok"
    assert set(arrays) == {"labels"}
    out = capsys.readouterr().out
    assert "warning: embedder · 10% · seed 0 keeps no embedding: " in out
    assert said in out


# --- How it is kept ------------------------------------------------------------------------------


class Says:
    """A fitted method whose transform says `rows`."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def transform(self, X: np.ndarray) -> np.ndarray:
        return self.rows


ROWS = np.random.default_rng(0).standard_normal((50, 64))
X = np.zeros((50, 4, 4), np.uint8)


@pytest.mark.parametrize(
    ("rows", "dtype"),
    [
        (ROWS, np.float16),
        (ROWS * 1e5, np.float32),  # half precision ends at 65,504
        (ROWS * 1e-7, np.float32),  # and rounds these to a handful of values
        (ROWS[:, : projections.WIDE], np.float32),
        (ROWS.astype(np.float32), np.float16),
        ((ROWS * 10).astype(int), np.float16),
    ],
)
def test_wide_rows_are_kept_in_half_precision_where_that_is_enough(
    rows: np.ndarray, dtype: type
) -> None:
    found = projections.embed(Says(rows), X)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, rows, rtol=1e-3, atol=1e-3 * np.abs(rows).max())


def test_none_is_refused() -> None:
    with pytest.raises(BenchError, match=r"shape \(50,\); expected \(50, d\)"):
        projections.embed(Says(ROWS[:, 0]), X)
