"""The linear probe and self-training on features."""

from __future__ import annotations

import numpy as np
import pytest
from fixed_fits import sample
from sklearn.linear_model import LogisticRegression

from methods.graphs import Poisson
from methods.method import UNLABELLED, Context, flatten
from methods.probes import LinearProbe, SelfTraining
from methods.toolkit import features
from methods.toolkit.asking import nearest_members
from methods.toolkit.stages.kmeans import kmeans

SMOKE = LinearProbe.schedules["smoke"] | {"random_state": 0}
PIXELS = {"features": "pixels", "random_state": 0}


def scaled(X: np.ndarray) -> np.ndarray:
    rows = X.reshape(len(X), -1) / 255
    return rows / np.sqrt(np.square(rows).mean())


def test_the_probe_is_the_logistic_regression_of_scikit_learn() -> None:
    X, y, _ = sample()
    fitted = LinearProbe(**PIXELS, tol=1e-6).fit(X, y)
    labelled = y != UNLABELLED
    theirs = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
    theirs.fit(scaled(X)[labelled], y[labelled])
    np.testing.assert_allclose(fitted.probabilities_, theirs.predict_proba(scaled(X)), atol=2e-3)
    np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)


def test_self_training_learns_from_what_it_is_sure_of() -> None:
    """Its rounds by hand: what is above the threshold gets a label, then all is learnt anew."""
    X, y, _ = sample()
    fitted = SelfTraining(**PIXELS, tol=1e-6, threshold=0.8, n_rounds=3).fit(X, y)
    rows, taught = scaled(X), y.copy()
    for _ in range(3):
        model = LogisticRegression(C=1.0, tol=1e-8, max_iter=5000)
        model.fit(rows[taught != UNLABELLED], taught[taught != UNLABELLED])
        p = model.predict_proba(rows)
        sure = (taught == UNLABELLED) & (p.max(1) > 0.8)
        if not sure.any():
            break
        taught[sure] = p[sure].argmax(1)
    model.fit(rows[taught != UNLABELLED], taught[taught != UNLABELLED])
    assert (taught != UNLABELLED).sum() > (y != UNLABELLED).sum()
    same = fitted.labels_ == model.predict(rows)
    assert same.mean() > 0.98


def test_a_class_without_labels_is_possible() -> None:
    X, y, _ = sample()
    y = np.where(y == 3, UNLABELLED, y)
    for cls in (LinearProbe, SelfTraining):
        fitted = cls(**PIXELS).fit(X, y)
        assert fitted.probabilities_.shape == (len(X), 10)
        assert (fitted.probabilities_[:, 3] == 0).all()


@pytest.mark.parametrize("cls", [LinearProbe, SelfTraining])
def test_labels_are_needed(cls: type[LinearProbe]) -> None:
    X, _, _ = sample()
    with pytest.raises(ValueError, match=f"{cls.__name__} learns from labelled instances"):
        cls(**PIXELS).fit(X)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"features": "sift"}, "features is 'sift'; expected one of simclr, autoencoder, pixels"),
        ({"C": 0.0}, "C is 0.0; expected above 0"),
        ({"threshold": 1.5}, "threshold is 1.5; expected 0 or more, below 1"),
        ({"n_rounds": 0}, "n_rounds is 0; expected at least 1"),
    ],
)
def test_refuses(wrong: dict[str, object], message: str) -> None:
    X, y, _ = sample()
    with pytest.raises(ValueError, match=message):
        SelfTraining(**wrong).fit(X, y)


# --- Labels that are asked for -------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 30, 60])
def test_it_asks_for_the_images_nearest_the_centres_of_its_features(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fewer clusters than labels the rest is drawn; the seed decides which."""
    X, _, _ = sample()
    monkeypatch.setattr(features, "MOST_CLUSTERS", 40)
    chosen, again = (Poisson(**PIXELS).select(X, budget) for _ in range(2))
    np.testing.assert_array_equal(chosen, again)
    assert len(np.unique(chosen)) == budget
    asked = {"n_clusters": min(budget, 40), "max_iter": 100}
    grouped = Context().stage(kmeans, flatten(X), random_state=0, **asked)
    nearest = nearest_members(grouped["labels"], grouped["distances"], min(budget, 40))
    assert set(nearest) <= set(chosen)


def test_it_asks_by_the_features_that_it_learns_from() -> None:
    X, _, _ = sample()
    by_pixels, by_simclr = (
        LinearProbe(**SMOKE | {"features": name}).select(X, 30) for name in ("pixels", "simclr")
    )
    assert set(by_pixels) != set(by_simclr)


@pytest.mark.parametrize("budget", [0, 10_000])
def test_a_budget_that_cannot_be_spent(budget: int) -> None:
    X, _, _ = sample()
    with pytest.raises(ValueError, match=f"budget is {budget}; expected 1 to"):
        LinearProbe(**PIXELS).select(X, budget)
