"""SCAN: images whose features are nearest neighbours belong to the same cluster.

SimCLR gives features, features give neighbours, and a linear head learns to assign an image and its
neighbours to the same cluster, with confidence and with all clusters in use. Then the whole network
may be trained on that loss (fine-tuning), and on its own confident predictions (self-labelling).

`SCAN` has parameters, phases and objective, `SSSCAN` adds labels; the stages are at the end.

References
----------
Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify Images
without Labels, ECCV 2020; section 2 has the phases in their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import clone

from methods.method import (
    UNLABELLED,
    Arrays,
    Context,
    Method,
    StageRequest,
    Tags,
    check_images,
    check_labels,
    check_like_fitted,
    derive_seed,
    stage,
)
from methods.registry import register
from methods.scan.assignments import (
    HISTORY,
    ClusterNetwork,
    Training,
    assignment_summary,
    check_parameters,
    history_rows,
    labelled_loss,
    majority_classes,
    most_confident,
    pair_loss,
    pseudo_labels,
    scan_loss,
    self_labelling_loss,
    train_assignments,
)
from methods.toolkit.augment import STRONG, WEAK, views
from methods.toolkit.stages.neighbours import neighbours
from methods.toolkit.stages.simclr import simclr
from methods.toolkit.training import autocast, generator, image_tensor, load_weights, weight_arrays


@register("scan")
@register("scan-finetune", finetune=True)
@register("scan-selflabel", selflabel=True)
@dataclass(eq=False, repr=False)  # writes __init__: every field is a hyperparameter
class SCAN(Method):
    """SCAN: neighbours in SimCLR's features share a cluster; ignores labels.

    ``scan`` trains a linear head on frozen features, ``scan-finetune`` then the whole network on
    the same loss and strong views, ``scan-selflabel`` then the whole network on itself: a confident
    prediction on a weak view is the target of a strong view of the same image. Where nothing is
    confident (any more), self-labelling stops, and says so.

    Parameters
    ----------
    n_clusters : number of clusters K; may be larger than the number of classes.
    finetune : whether the whole network is trained after the head.
    selflabel : whether it is trained on itself after that; implies `finetune`.
    pretrain_epochs, pretrain_batch_size, pretrain_lr, temperature, feature_dim, projection_dim,
        width : of the stage `simclr`.
    n_neighbors : neighbours of each image, one of which is drawn in every step.
    entropy_weight : weight of the entropy of the mean assignment, see `scan_loss`.
    epochs, batch_size, lr : passes, images per step and learning rate (Adam) of the head.
    finetune_epochs, finetune_batch_size, finetune_lr : the same of the fine-tuning.
    selflabel_epochs, selflabel_batch_size, selflabel_lr : the same of the self-labelling.
    selflabel_threshold : a prediction is confident where its probability is above this.
    random_state : seed.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the most probable cluster of each image.
    probabilities_ : ``(n, n_clusters)`` float32, the soft assignments.
    confident_ : ``(n_clusters, 9)`` int64, the images that are most confidently in each cluster,
        the surest first; -1 where it has fewer.
    effective_clusters_ : exp of the entropy of the clusters' sizes: K where all are equally large.
    collapsed_ : whether that is below half of `n_clusters`. A collapse is logged and printed.
    history_ : one dict per epoch and phase: ``phase``, ``epoch`` and the columns of `HISTORY`.
    network_ : the trained `ClusterNetwork`.

    References
    ----------
    Van Gansbeke et al., SCAN, ECCV 2020. The frozen encoder: Salama, Semantic Image Clustering with
    SCAN, keras.io, 2021.
    """

    tags: ClassVar[Tags] = Tags(uses_labels=False)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"pretrain_epochs": 8, "width": 32, "epochs": 20, "batch_size": 512, "lr": 1e-3}
        | {"finetune_epochs": 2, "finetune_batch_size": 512, "selflabel_epochs": 2},
        "smoke": {"pretrain_epochs": 3, "pretrain_batch_size": 64, "pretrain_lr": 0.1, "width": 4}
        | {"feature_dim": 32, "projection_dim": 16, "n_neighbors": 5, "epochs": 20, "lr": 0.01}
        | {"finetune_epochs": 1, "selflabel_epochs": 1, "selflabel_threshold": 0.5},
    }

    n_clusters: int = 10
    _: KW_ONLY
    finetune: bool = False
    selflabel: bool = False
    pretrain_epochs: int = 500
    pretrain_batch_size: int = 512
    pretrain_lr: float = 0.4
    temperature: float = 0.1
    feature_dim: int = 512
    projection_dim: int = 128
    width: int = 64
    n_neighbors: int = 20
    entropy_weight: float = 5.0
    epochs: int = 100
    batch_size: int = 128
    lr: float = 1e-4
    finetune_epochs: int = 100
    finetune_batch_size: int = 128
    finetune_lr: float = 1e-4
    selflabel_epochs: int = 200
    selflabel_batch_size: int = 1000
    selflabel_lr: float = 1e-4
    selflabel_threshold: float = 0.99
    random_state: int | None = None

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8, h and w at least 8; ``y`` is not used.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        FloatingPointError : a loss or an assignment is not finite.
        """
        X, _ = self._checked(X, y)
        context = context or Context()
        return self._adopt(self._seeded()._ask(X, context), X, context)

    def _train_head(self, X: np.ndarray, y: np.ndarray, seed: int, context: Context) -> Arrays:
        """A linear head on frozen features, on the loss of `_objective`."""
        shared = {"random_state": self.random_state}
        pretrained = context.stage(simclr, X, **shared, **self._pretraining())
        found = context.stage(neighbours, pretrained["features"], **shared, k=self.n_neighbors)
        network = ClusterNetwork(X.shape[1:], self.width, self.feature_dim, self.n_clusters)
        load_weights(network.encoder, pretrained, "encoder.")
        features = torch.from_numpy(np.array(pretrained["features"]))
        network.head.start_(features, generator(seed, "head"))
        head, x = network.head.to(context.device), features.to(context.device)
        args = (found["indices"], y, self._objective, seed, context)
        loss = pair_loss(head, lambda rows, step: x[rows], *args)
        training = Training(self.epochs, self.batch_size, self.lr)
        history = train_assignments("head", head, loss, len(X), training, seed, context)
        return {
            **weight_arrays(network),
            "indices": found["indices"],
            "probabilities": network.probabilities(features),
            "history.simclr": pretrained["loss"][:, None],
            "history.head": history,
        }

    def _finetune(
        self, X: np.ndarray, y: np.ndarray, start: Arrays, seed: int, context: Context
    ) -> Arrays:
        """The whole network on the same loss, from the weights of `start`."""
        images, network = image_tensor(X, context.device), self._network(X, start, context)

        def inputs(rows: torch.Tensor, step: int) -> torch.Tensor:
            return views(images[rows], STRONG, generator(seed, "views", step))

        loss = pair_loss(network, inputs, start["indices"], y, self._objective, seed, context)
        training = Training(self.finetune_epochs, self.finetune_batch_size, self.finetune_lr)
        history = train_assignments("finetune", network, loss, len(X), training, seed, context)
        return _outcome(network, images, {**start, "history.finetune": history}, context)

    def _label_itself(self, X: np.ndarray, start: Arrays, seed: int, context: Context) -> Arrays:
        """The whole network on its own confident predictions, from the weights of `start`."""
        if not (start["probabilities"].max(1) > self.selflabel_threshold).any():
            return {**start, "history.selflabel": np.empty((0, len(HISTORY)))}
        images, network = image_tensor(X, context.device), self._network(X, start, context)

        def loss(rows: torch.Tensor, step: int) -> tuple[torch.Tensor | None, torch.Tensor]:
            weak = views(images[rows], WEAK, generator(seed, "weak", step))
            with torch.no_grad(), autocast(context):
                weak_logits = network.eval()(weak).float()
            targets = pseudo_labels(weak_logits, self.selflabel_threshold)
            if (targets == UNLABELLED).all():
                return None, weak_logits  # batch norm sees no strong view either
            strong = views(images[rows], STRONG, generator(seed, "strong", step))
            with autocast(context):
                logits = network.train()(strong).float()
            return self_labelling_loss(logits, targets), weak_logits

        training = Training(self.selflabel_epochs, self.selflabel_batch_size, self.selflabel_lr)
        history = train_assignments("selflabel", network, loss, len(X), training, seed, context)
        return _outcome(network, images, {**start, "history.selflabel": history}, context)

    def _objective(
        self, anchors: torch.Tensor, others: torch.Tensor, y: torch.Tensor, n_classes: int
    ) -> torch.Tensor:
        """The loss from the logits of images and of their neighbours, and the images' labels."""
        return scan_loss(anchors, others, self.entropy_weight)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The most probable cluster ``(n,)`` int64 of each image."""
        return self.predict_proba(X).argmax(1)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """The soft assignments ``(n, n_clusters)`` float32."""
        features = torch.from_numpy(self.transform(X))
        return self.network_.probabilities(features)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """The features ``(n, feature_dim)`` float32 of images of the fitted shape."""
        images = image_tensor(check_like_fitted(self, X), self._inference.device)
        return self.network_.features(images, self._inference).numpy()

    def stages(self, n_labels: int) -> list[StageRequest]:
        """SimCLR and the label-free phases, each of which goes on from the one before.

        The neighbours are a stage on features, whose key nobody knows before there are features.
        """
        stages = [StageRequest(simclr, self._pretraining()), self._request(label_free_scan)]
        if self.finetune or self.selflabel:
            stages.append(self._request(finetuned_scan, "finetune"))
        if self.selflabel:
            stages.append(self._request(self_labelled_scan, "finetune", "selflabel"))
        return stages

    def _request(self, function: Callable[..., Arrays], *phases: str) -> StageRequest:
        """A stage with no parameters but those that its phases use, so that methods share it."""
        params = self.get_params(deep=False)
        params["pretraining_seed"] = params.pop("random_state")
        unused = tuple({"finetune", "selflabel", "label_weight"} - set(phases))
        params = {name: x for name, x in params.items() if not name.startswith(unused)}
        return StageRequest(function, params | dict.fromkeys(phases, True))

    def _pretraining(self) -> dict[str, Any]:
        """The parameters of the stage `simclr`."""
        renamed = {x: getattr(self, f"pretrain_{x}") for x in ("epochs", "batch_size", "lr")}
        same = ("temperature", "feature_dim", "projection_dim", "width")
        return renamed | {name: getattr(self, name) for name in same}

    def _ask(self, X: np.ndarray, context: Context, place: int = -1) -> Arrays:
        """What the label-free stage at `place` returns: -1 is the last, -2 the one before it."""
        request = SCAN.stages(self, 0)[place]
        return context.stage(request.function, X, random_state=self.random_state, **request.params)

    def _seeded(self) -> Self:
        """This method with a seed; where there is none it is drawn here, once for all stages."""
        if self.random_state is not None:
            return self
        return clone(self).set_params(random_state=derive_seed(None, "scan"))

    def _network(self, X: np.ndarray, fitted: Arrays, context: Context) -> ClusterNetwork:
        network = ClusterNetwork(X.shape[1:], self.width, self.feature_dim, self.n_clusters)
        load_weights(network, fitted)
        return network.to(context.device).eval()

    def _checked(self, X: np.ndarray, y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels as `fit` uses them; a ValueError for what it cannot use."""
        X = check_images(X)
        check_parameters(self.get_params(deep=False), len(X))
        return X, check_labels(y, len(X), self.n_clusters)

    def _adopt(self, fitted: Arrays, X: np.ndarray, context: Context) -> Self:
        """Set the fitted attributes from what a stage returned; log how training went."""
        self._inference = Context(context.device, context.precision)
        self.image_shape_ = X.shape[1:]
        self.network_ = self._network(X, fitted, context)
        self.probabilities_ = np.array(fitted["probabilities"])
        self.labels_ = self.probabilities_.argmax(1)
        self.confident_ = most_confident(self.probabilities_)
        result = assignment_summary(self.probabilities_)
        self.effective_clusters_ = result["effective_clusters"]
        self.collapsed_ = result["collapsed"]
        self.history_ = list(history_rows(fitted))
        trained = [row for row in self.history_ if row["phase"] != "simclr"]  # a stage logs its own
        for row in [*trained, {"phase": "result", **result}]:
            context.log(**row)
        if self.collapsed_:
            print(
                f"SCAN collapsed: its {self.n_clusters} clusters are as unequal as "
                f"{self.effective_clusters_:.1f} of one size; try another lr or entropy_weight"
            )
        if self.selflabel:
            self._say_if_it_stopped(context)
        return self

    def _say_if_it_stopped(self, context: Context) -> None:
        """Log and print that self-labelling ended because nothing was confident."""
        rows = [row for row in self.history_ if row["phase"] == "selflabel"]
        trained = sum(row["loss"] is not None for row in rows)
        if trained < self.selflabel_epochs:
            message = (
                f"self-labelling stopped after {trained} of {self.selflabel_epochs} epochs: no "
                f"prediction is above the threshold of {self.selflabel_threshold}"
            )
            context.log(phase="selflabel", note=message)
            print(message)


@register("ss-scan")
@dataclass(eq=False, repr=False, kw_only=True)
class SSSCAN(SCAN):
    """SCAN with labels: cross entropy on labelled images joins its loss; cluster j is class j.

    Neighbours known to be of another class are removed. The encoder stays frozen unless `finetune`.
    Without labels it is the `SCAN` of the same parameters.

    With more clusters than classes (0 to ``max(y)``), cluster j learns class j modulo the number of
    classes; in the end each cluster takes the class of most of its labelled members.

    Parameters
    ----------
    label_weight : weight of the cross entropy. All others: see `SCAN`.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the class of each image's most probable cluster.
    cluster_labels_ : ``(n,)`` int64, that cluster.
    cluster_classes_ : ``(n_clusters,)`` int64, the class of each cluster (j of j without labels).
    same_as_ : the method that it is without labels, else None. All others: see `SCAN`.
    """

    tags: ClassVar[Tags] = Tags(needs_every_class=True)

    label_weight: float = 1.0

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used; a class from 0 to ``max(y)``
            without a labelled image.
        FloatingPointError : a loss or an assignment is not finite.
        """
        X, y = self._checked(X, y)
        context = context or Context()
        seeded = self._seeded()
        self.same_as_ = None
        if (y == UNLABELLED).all():
            finetuned = "scan-finetune" if self.finetune else "scan"
            self.same_as_ = "scan-selflabel" if self.selflabel else finetuned
            fitted = seeded._ask(X, context)
        else:
            seed = derive_seed(seeded.random_state, "ss-scan")
            fitted = seeded._train_head(X, y, seed, context)
            if self.finetune or self.selflabel:
                fitted = seeded._finetune(X, y, fitted, seed, context)
            if self.selflabel:
                fitted = seeded._label_itself(X, fitted, seed, context)
        self.cluster_labels_ = self._adopt(fitted, X, context).labels_
        self.cluster_classes_ = majority_classes(self.cluster_labels_, y, self.n_clusters)
        self.labels_ = self.cluster_classes_[self.cluster_labels_]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class ``(n,)`` int64 of each image's most probable cluster."""
        clusters = super().predict(X)
        return self.cluster_classes_[clusters]

    def stages(self, n_labels: int) -> list[StageRequest]:
        """SimCLR; without labels, all of `SCAN`'s."""
        return super().stages(n_labels)[: 1 if n_labels else None]

    def _objective(
        self, anchors: torch.Tensor, others: torch.Tensor, y: torch.Tensor, n_classes: int
    ) -> torch.Tensor:
        label_free = super()._objective(anchors, others, y, n_classes)
        return label_free + self.label_weight * labelled_loss(anchors, y, n_classes)

    def _checked(self, X: np.ndarray, y: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        X, y = super()._checked(X, y)
        missing = sorted(set(range(y.max() + 1)) - set(y.tolist()))
        if missing:
            raise ValueError(
                f"no labelled image of class {', '.join(map(str, missing))}; SS-SCAN learns from "
                "labels which cluster is which class: label at least one image of every class, or "
                "none at all"
            )
        return X, y


@stage(version=1)
def label_free_scan(
    X: np.ndarray, *, random_state: int, context: Context, pretraining_seed: int, **params: Any
) -> Arrays:
    """The stage that is `SCAN` without fine-tuning: a linear head on frozen features.

    Parameters
    ----------
    X : uint8 images ``(n, height, width[, channels])``.
    pretraining_seed : the seed with which the other shared stages are asked for.
    params : the parameters of `SCAN` that have to do with this phase or one before it.

    Returns
    -------
    The weights of the `ClusterNetwork` (as `weight_arrays` names them); ``"probabilities"``
    ``(n, K)`` float32; ``"indices"`` ``(n, k)`` int64, the neighbours; ``"history.<phase>"``
    ``(epochs, 4)`` float64 for each phase so far, with the columns of `HISTORY` (SimCLR has the
    first alone).
    """
    method = SCAN(random_state=pretraining_seed, **params)
    return method._train_head(X, check_labels(None, len(X), 0), random_state, context)


@stage(version=1)
def finetuned_scan(
    X: np.ndarray, *, random_state: int, context: Context, pretraining_seed: int, **params: Any
) -> Arrays:
    """The stage that goes on from `label_free_scan`: the whole network, on the same loss."""
    method = SCAN(random_state=pretraining_seed, **params)
    start, y = method._ask(X, context, place=-2), check_labels(None, len(X), 0)
    return method._finetune(X, y, start, random_state, context)


@stage(version=1)
def self_labelled_scan(
    X: np.ndarray, *, random_state: int, context: Context, pretraining_seed: int, **params: Any
) -> Arrays:
    """The stage that goes on from `finetuned_scan`: the whole network, on its own predictions."""
    method = SCAN(random_state=pretraining_seed, **params)
    return method._label_itself(X, method._ask(X, context, place=-2), random_state, context)


def _outcome(
    network: ClusterNetwork, images: torch.Tensor, known: Arrays, context: Context
) -> Arrays:
    """What a phase returns that trained the whole network: what is `known`, brought up to date."""
    probabilities = network.probabilities(network.features(images, context))
    return {**known, **weight_arrays(network), "probabilities": probabilities}
