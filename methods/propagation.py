"""k-means label propagation: clusters hand the labels of a few instances on, a classifier learns.

k-means finds many clusters without labels. A cluster takes a class from its labelled members. Then
a classifier learns from all instances (`kmeans-full`), from those near their cluster's centre
(`kmeans-percentile`), or from one instance for each cluster (`kmeans-centroid`).

References
----------
Das and Thada, Semi-Supervised Learning on Fashion-MNIST dataset (full, percentile, centroid).
Roy, DMML Assignment 3, 2024 (full, percentile, and the centres themselves).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np

from methods.baselines import PixelKMeans
from methods.method import (
    UNLABELLED,
    Arrays,
    Context,
    StageRequest,
    Tags,
    check_choice,
    check_images,
    derive_seed,
)
from methods.registry import register
from methods.toolkit.asking import NOBODY, check_budget, nearest_members, representatives
from methods.toolkit.heads.table import HEADS, ClassifierMethod
from methods.toolkit.stages.kmeans import kmeans, nearest
from methods.toolkit.votes import count_votes

VOTES = ("majority", "nearest")
TRAIN_ON = ("instances", "centres")


def nearest_labelled_members(
    y: np.ndarray, clusters: np.ndarray, distances: np.ndarray, k: int
) -> np.ndarray:
    """As `nearest_members`, among the labelled instances alone."""
    labelled = np.flatnonzero(y != UNLABELLED)
    among = nearest_members(clusters[labelled], distances[labelled], k)
    return np.where(among == NOBODY, NOBODY, labelled[among])


def cluster_classes(
    y: np.ndarray, clusters: np.ndarray, distances: np.ndarray, k: int, vote: str
) -> np.ndarray:
    """The class ``(k,)`` that each cluster takes from its labelled members, -1 if it has none.

    Parameters
    ----------
    y : ``(n,)`` labels, -1 where there is none.
    clusters, distances : as in `nearest_members`.
    vote : ``"nearest"``, the class of the labelled member nearest the centre, or ``"majority"``,
        the most frequent class; in a tie the nearest member's, if it is among the tied, else the
        lowest.
    """
    members = nearest_labelled_members(y, clusters, distances, k)
    nearest_class = np.where(members == NOBODY, UNLABELLED, y[members])
    if vote == "nearest":
        return nearest_class
    voters, votes = nearest_class != UNLABELLED, count_votes(y, clusters, k)
    votes[voters, nearest_class[voters]] += 0.5  # breaks ties, turns no majority over
    return np.where(voters, votes.argmax(1), UNLABELLED)


def fill_from_nearest_cluster(classes: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """`classes` ``(k,)`` with, for every -1, the class of the nearest cluster that has one.

    Nearest by the distance between `centres` ``(k, d)``.
    """
    known = classes != UNLABELLED
    filled = classes.copy()
    if not known.all():
        filled[~known] = classes[known][nearest(centres[~known], centres[known])[0]]
    return filled


def within_percentile(clusters: np.ndarray, distances: np.ndarray, percentile: float) -> np.ndarray:
    """Which instances ``(n,)`` lie within the percentile of their own cluster's distances."""
    keep = np.zeros(len(clusters), dtype=bool)
    by_cluster = np.argsort(clusters, kind="stable")
    for members in np.split(by_cluster, np.flatnonzero(np.diff(clusters[by_cluster])) + 1):
        keep[members] = distances[members] <= np.percentile(distances[members], percentile)
    return keep


@dataclass(eq=False, repr=False)  # writes __init__: every field is a hyperparameter
class KMeansPropagation(ClassifierMethod):
    """What the three methods share; each says with `_training_set` what its classifier learns from.

    Parameters
    ----------
    n_clusters : number of classes.
    k : clusters of k-means; None takes one for each labelled instance, at most `max_clusters`.
    max_clusters : the most clusters where `k` is None.
    vote : how a cluster takes its class: ``"majority"`` of its labelled members or ``"nearest"``,
        that of the labelled member nearest the centre.
    head : the classifier, a name in `HEADS`.
    C, multi_class, lr_max_iter : of logistic regression (``head="lr"``): inverse strength of the
        penalty, ``"ovr"`` or ``"multinomial"``, most iterations.
    mlp_epochs, nn_epochs : of the networks (``head="mlp"``, ``head="nn"``): passes, for ``nn`` the
        most.
    max_iter : most iterations of k-means with k clusters.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the classifier's prediction; without any label, k-means' clusters.
    cluster_labels_ : ``(n,)`` int64, the cluster of each instance.
    cluster_classes_ : ``(k,)`` int64, the class that each cluster took from its labelled members,
        -1 if it has none.
    probabilities_ : ``(n, n_clusters)`` float32.
    """

    tags: ClassVar[Tags] = Tags(without_labels="kmeans", family="k-means propagation")
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"max_iter": 20, "lr_max_iter": 100, "nn_epochs": 5},
        "smoke": {"max_iter": 5, "lr_max_iter": 20, "mlp_epochs": 3, "nn_epochs": 1},
    }

    n_clusters: int = 10
    _: KW_ONLY
    k: int | None = None
    max_clusters: int = 2000
    vote: str = "majority"
    head: str = "lr"
    C: float = 1.0
    multi_class: str = "ovr"
    lr_max_iter: int = 5000
    mlp_epochs: int = 20
    nn_epochs: int = 100
    max_iter: int = 300
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Labels that `select` asked for are those of the instances nearest the centres: then the
        label of that instance becomes its cluster's, whatever `vote` says.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        """
        X, y, context = self._begin(X, y, context)
        labelled = np.flatnonzero(y != UNLABELLED)
        if len(labelled) == 0:
            return self._fit_unlabelled(X, context)
        found = self._cluster(X, len(labelled), context)
        clusters, distances, centres = found["labels"], found["distances"], found["centres"]
        wanted = self._wanted(found, len(labelled))
        asked_for = len(labelled) < len(X) and np.array_equal(labelled, wanted)
        vote = "nearest" if asked_for else self.vote
        self.cluster_labels_ = np.array(clusters)  # a copy: the stage's arrays are memory maps
        self.cluster_classes_ = cluster_classes(y, clusters, distances, len(centres), vote)
        X_train, y_train = self._training_set(X, y, found)
        head = self._new_head(self.head, self._head_params())
        self.head_ = head.fit(X_train, y_train, context)
        self._label(X)
        return self

    def select(self, X: np.ndarray, budget: int, context: Context | None = None) -> np.ndarray:
        """The sorted indices ``(budget,)`` of the instances whose labels the method asks for.

        One for each of the clusters (as many as the budget, at most `max_clusters`, or `k`), the
        instance nearest the centre; what is left of the budget is drawn at random.

        Raises
        ------
        ValueError : the budget is not between 1 and the number of images.
        """
        X = check_images(X)
        self._check_parameters(len(X))
        check_budget(budget, len(X))
        return self._wanted(self._cluster(X, budget, context or Context()), budget)

    def stages(self, n_labels: int) -> list[StageRequest]:
        """k-means with k clusters; without any label, that of the baseline `kmeans`."""
        if n_labels == 0:
            return self._baseline().stages(0)
        k = min(n_labels, self.max_clusters) if self.k is None else self.k
        return [StageRequest(kmeans, {"n_clusters": k, "max_iter": self.max_iter})]

    def _head_params(self) -> dict[str, Any]:
        """The classifier's own parameters, under the names that it has for them."""
        params: dict[str, dict[str, Any]] = {
            "lr": {"C": self.C, "multi_class": self.multi_class, "max_iter": self.lr_max_iter},
            "mlp": {"epochs": self.mlp_epochs},
            "nn": {"epochs": self.nn_epochs},
        }
        return params.get(self.head, {})

    def _training_set(
        self, X: np.ndarray, y: np.ndarray, found: Arrays
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images (or centres in their shape) and classes that the classifier learns from."""
        raise NotImplementedError(f"{type(self).__name__} has to define _training_set(X, y, found)")

    def _propagated(self, y: np.ndarray, found: Arrays) -> np.ndarray:
        """A class ``(n,)`` for every instance: its own label, else that of its cluster."""
        classes = fill_from_nearest_cluster(self.cluster_classes_, found["centres"])
        return np.where(y != UNLABELLED, y, classes[found["labels"]])

    def _cluster(self, X: np.ndarray, n_labels: int, context: Context) -> Arrays:
        return self._ask(self.stages(n_labels)[0], X, context)

    def _wanted(self, found: Arrays, budget: int) -> np.ndarray:
        """What `select` answers when k-means found these clusters."""
        return representatives(found, budget, derive_seed(self.random_state, "select"))

    def _baseline(self) -> PixelKMeans:
        return PixelKMeans(self.n_clusters, random_state=self.random_state)

    def _fit_unlabelled(self, X: np.ndarray, context: Context) -> Self:
        """Without labels there is nothing to propagate: the baseline `kmeans`."""
        self.head_ = HardClusters(self._baseline().fit(X, None, context))
        self.cluster_classes_ = np.full(self.n_clusters, UNLABELLED)
        self._label(X)
        self.cluster_labels_ = self.labels_
        return self

    def _check_parameters(self, n: int) -> None:
        """Raise ValueError for a parameter that is out of range."""
        check_choice("vote", self.vote, VOTES)
        check_choice("head", self.head, HEADS)
        for name, value in (("k", self.k), ("max_clusters", self.max_clusters)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")


class HardClusters:
    """k-means in the place of a classifier: its assignments as probabilities 0 and 1."""

    def __init__(self, baseline: PixelKMeans) -> None:
        self.baseline = baseline

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """``(n, n_clusters)`` float32, 1 for the nearest centre."""
        return np.eye(self.baseline.n_clusters, dtype=np.float32)[self.baseline.predict(X)]


@register("kmeans-full")
@register("kmeans-full-mlp", in_all=False, head="mlp")
@register("kmeans-full-nn", in_all=False, head="nn")
@dataclass(eq=False, repr=False)
class KMeansFull(KMeansPropagation):
    """k-means label propagation: learns from every instance with its cluster's label.

    A cluster without a labelled member takes the class of the nearest cluster that has one.
    Parameters and attributes are those of `KMeansPropagation`.
    """

    def _training_set(
        self, X: np.ndarray, y: np.ndarray, found: Arrays
    ) -> tuple[np.ndarray, np.ndarray]:
        return X, self._propagated(y, found)


@register("kmeans-percentile")
@register("kmeans-percentile-mlp", in_all=False, head="mlp")
@register("kmeans-percentile-nn", in_all=False, head="nn")
@dataclass(eq=False, repr=False)
class KMeansPercentile(KMeansPropagation):
    """k-means label propagation: learns from the labelled instances and those near their centre.

    Labels are propagated as in `KMeansFull`. Other parameters and attributes are those of
    `KMeansPropagation`.

    Parameters
    ----------
    percentile : of the distances in its own cluster, within which an instance is near; above 0, at
        most 100.
    """

    _: KW_ONLY
    percentile: float = 25

    def _training_set(
        self, X: np.ndarray, y: np.ndarray, found: Arrays
    ) -> tuple[np.ndarray, np.ndarray]:
        near = within_percentile(found["labels"], found["distances"], self.percentile)
        keep = near | (y != UNLABELLED)
        return X[keep], self._propagated(y, found)[keep]

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile is {self.percentile}; expected above 0, at most 100")


@register("kmeans-centroid")
@register("kmeans-centroid-mlp", in_all=False, head="mlp")
@register("kmeans-centroid-nn", in_all=False, head="nn")
@dataclass(eq=False, repr=False)
class KMeansCentroid(KMeansPropagation):
    """k-means label propagation: learns from one instance of each cluster, nearest its centre.

    A cluster without a labelled member is left out. Other parameters and attributes are those of
    `KMeansPropagation`.

    Parameters
    ----------
    train_on : ``"instances"``, the labelled instance nearest each centre with its own label, or
        ``"centres"``, the centres themselves with the class of their cluster (Roy 2024).
    """

    _: KW_ONLY
    train_on: str = "instances"

    def _training_set(
        self, X: np.ndarray, y: np.ndarray, found: Arrays
    ) -> tuple[np.ndarray, np.ndarray]:
        centres = found["centres"]
        if self.train_on == "centres":
            known = self.cluster_classes_ != UNLABELLED
            return centres[known].reshape(-1, *X.shape[1:]), self.cluster_classes_[known]
        members = nearest_labelled_members(y, found["labels"], found["distances"], len(centres))
        members = members[members != NOBODY]
        return X[members], y[members]

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        check_choice("train_on", self.train_on, TRAIN_ON)
