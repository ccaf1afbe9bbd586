"""SCAN: images whose features are nearest neighbours belong to the same cluster.

SimCLR gives features, features give neighbours, and a linear head learns to assign an image and its
neighbours to the same cluster, with confidence and with all clusters in use. Then the whole network
may be trained on that loss (fine-tuning), and on its own confident predictions (self-labelling).

Symbols: images ``x`` ``(n, c, h, w)``, features ``z`` ``(n, d)``, soft assignments ``p``
``(n, K)``, whose logits the network gives, labels ``y`` ``(n,)`` with -1 = unlabelled.

References
----------
Van Gansbeke, Vandenhende, Georgoulis, Proesmans and Van Gool, SCAN: Learning to Classify Images
without Labels, ECCV 2020; section 2 has the phases in their order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn

from methods.method import (
    UNLABELLED,
    Context,
    Method,
    StageRequest,
    Tags,
    check_labels,
    check_like_fitted,
    derive_seed,
    require_every_class,
)
from methods.registry import register
from methods.scan.losses import labelled_loss, pseudo_labels, scan_loss, self_labelling_loss
from methods.scan.network import ClusterHead, ClusterNetwork
from methods.scan.phases import (
    BatchLoss,
    Training,
    assignment_summary,
    check_parameters,
    majority_classes,
    most_confident,
    train_phase,
)
from methods.toolkit.augment import STRONG, WEAK, drawn_views
from methods.toolkit.draws import Draws, generator
from methods.toolkit.fast.cuda_graphs import UNTIMED, Kind
from methods.toolkit.stages.neighbours import NeighbourLists, neighbours
from methods.toolkit.stages.simclr import simclr
from methods.toolkit.training import autocast, image_tensor, load_weights

# What the seeds of the phases are derived from: the names that they had when records were made.
SEEDS = {
    "head": "label_free_scan",
    "finetune": "finetuned_scan",
    "selflabel": "self_labelled_scan",
}
Inputs = Callable[[torch.Tensor, Draws], torch.Tensor]


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

    Two things differ from the authors' code: neighbours are those of the encoder's features instead
    of the contrastive head's outputs, and the targets of self-labelling come from the network in
    evaluation mode, so that the other images of a batch have no say in them.

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
    collapsed_ : whether that is below half of `n_clusters`. A collapse is logged, and warned of.
    history_ : one dict per epoch and phase: ``phase``, ``epoch``, ``loss`` and, except of SimCLR,
        what `told` says of the assignments.
    network_ : the trained `ClusterNetwork`.

    References
    ----------
    Van Gansbeke et al., SCAN, ECCV 2020. The frozen encoder: Salama, Semantic Image Clustering with
    SCAN, keras.io, 2021, whose head sees the features of images augmented anew; here those of the
    images as they are, computed once.
    """

    tags: ClassVar[Tags] = Tags(uses_labels=False, family="scan", columns="clusters", resumes=True)
    _captured: ClassVar[Kind | None] = UNTIMED
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
        """Fit images ``X`` ``(n, h, w[, c])`` uint8, h and w at least 8.

        `SCAN` does not use ``y``; for `SSSCAN` it holds the labels ``(n,)``, -1 = unlabelled.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used; with some labels, a class
            from 0 to ``max(y)`` without any.
        FloatingPointError : a loss or an assignment is not finite.
        """
        X, y, context = self._begin(X, y, context)
        pretrained = self._ask(self.stages(0)[0], X, context)
        near = StageRequest(neighbours, {"k": self.n_neighbors})
        indices = self._ask(near, pretrained["features"], context)["indices"]  # (n, k)
        network = ClusterNetwork(X.shape[1:], self.width, self.feature_dim, self.n_clusters)
        load_weights(network.encoder, pretrained, "encoder.")
        network.to(context.device)
        z = torch.from_numpy(np.array(pretrained["features"]))
        losses = enumerate(pretrained["loss"].tolist(), start=1)
        self.history_ = [{"phase": "simclr", "epoch": e, "loss": loss} for e, loss in losses]
        self._train_head(network, z, indices, y, context)
        images = image_tensor(X, context.device)
        if self.finetune or self.selflabel:
            self._finetune(network, images, indices, y, context)
            z = network.features(images, context)
        if self.selflabel and self._is_confident(network.probabilities(z)):
            self._label_itself(network, images, y, context)
            z = network.features(images, context)
        self.network_, self.probabilities_ = network, network.probabilities(z)
        self.labels_ = self.probabilities_.argmax(1)
        self._say_how_it_went(context)
        return self

    def _train_head(
        self,
        network: ClusterNetwork,
        z: torch.Tensor,
        indices: np.ndarray,
        y: np.ndarray,
        context: Context,
    ) -> None:
        """A linear head on frozen features ``z``, on the loss of `objective`."""
        seed = self._seed("head", y)
        self._start(network.head, z, y, generator(seed, "head"))
        z = z.to(context.device)
        loss = self._pair_loss(network.head, lambda rows, _: z[rows], indices, y, context)
        training = Training(self.epochs, self.batch_size, self.lr)
        self._train("head", network.head, loss, len(z), training, seed, context, self._captured)

    def _start(
        self, head: ClusterHead, z: torch.Tensor, y: np.ndarray, draws: torch.Generator
    ) -> None:
        """Where the training of the head starts: at random."""
        head.start_(z, draws)

    def _finetune(
        self,
        network: ClusterNetwork,
        images: torch.Tensor,
        indices: np.ndarray,
        y: np.ndarray,
        context: Context,
    ) -> None:
        """The whole network on the same loss, on strong views."""
        seed = self._seed("finetune", y)

        def inputs(rows: torch.Tensor, draws: Draws) -> torch.Tensor:
            return drawn_views(images[rows], STRONG, draws)

        loss = self._pair_loss(network, inputs, indices, y, context)
        training = Training(self.finetune_epochs, self.finetune_batch_size, self.finetune_lr)
        self._train("finetune", network, loss, len(images), training, seed, context, self._captured)

    def _label_itself(
        self, network: ClusterNetwork, images: torch.Tensor, y: np.ndarray, context: Context
    ) -> None:
        """The whole network on its own confident predictions (section 2.3)."""
        seed = self._seed("selflabel", y)

        def loss(rows: torch.Tensor, draws: Draws) -> tuple[torch.Tensor | None, torch.Tensor]:
            weak = drawn_views(images[rows], WEAK, draws, "weak")
            with torch.no_grad(), autocast(context):
                weak_logits = network.eval()(weak).float()  # (b, K)
            targets = pseudo_labels(weak_logits, self.selflabel_threshold)  # (b,)
            if (targets == UNLABELLED).all():
                return None, weak_logits  # batch norm sees no strong view either
            strong = drawn_views(images[rows], STRONG, draws, "strong")
            with autocast(context):
                logits = network.train()(strong).float()
            return self_labelling_loss(logits, targets), weak_logits

        training = Training(self.selflabel_epochs, self.selflabel_batch_size, self.selflabel_lr)
        self._train("selflabel", network, loss, len(images), training, seed, context)

    def _pair_loss(
        self,
        module: nn.Module,
        inputs: Inputs,
        indices: np.ndarray,
        y: np.ndarray,
        context: Context,
    ) -> BatchLoss:
        """The loss of a batch of instances, each paired with one of its neighbours.

        `module` gives logits for the `inputs` of rows ``(m,)``.
        """
        lists = NeighbourLists.of(indices, y).to(context.device)
        labels, n_classes = torch.from_numpy(y).to(context.device), int(y.max()) + 1

        def loss(rows: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
            partners = lists.draw(rows, draws)  # (b,)
            with autocast(context):
                logits = module(inputs(torch.cat([rows, partners]), draws))
            anchors, others = logits.float().chunk(2)  # (b, K) each
            return self.objective(anchors, others, labels[rows], n_classes), anchors

        return loss

    def objective(
        self, anchors: torch.Tensor, others: torch.Tensor, y: torch.Tensor, n_classes: int
    ) -> torch.Tensor:
        """The loss of head and fine-tuning: equation 2.

        Parameters
        ----------
        anchors, others : logits ``(b, K)`` of instances and of a neighbour of each.
        y, n_classes : labels ``(b,)`` of the instances, and how many classes there are.
        """
        return scan_loss(anchors, others, self.entropy_weight)

    def _train(self, phase: str, module: nn.Module, loss: BatchLoss, n: int, *args: Any) -> None:
        self.history_ += train_phase(phase, module, loss, n, self.n_clusters, *args)

    def _seed(self, phase: str, y: np.ndarray) -> int:
        return derive_seed(self.random_state, SEEDS[phase])

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
        """SimCLR, whatever is labelled.

        `neighbours` is not announced: its key depends on features that do not exist when the plan
        is made.
        """
        renamed = {x: getattr(self, f"pretrain_{x}") for x in ("epochs", "batch_size", "lr")}
        same = ("temperature", "feature_dim", "projection_dim", "width")
        return [StageRequest(simclr, renamed | {name: getattr(self, name) for name in same})]

    def _check_parameters(self, n: int) -> None:
        check_parameters(self.get_params(deep=False), n)

    def _is_confident(self, probabilities: np.ndarray) -> bool:
        """Whether there is anything to learn from in self-labelling."""
        return bool((probabilities.max(1) > self.selflabel_threshold).any())

    def _say_how_it_went(self, context: Context) -> None:
        """Summarise, log and warn: of collapsed clusters, and where nothing was confident."""
        self.confident_ = most_confident(self.probabilities_)
        result = assignment_summary(self.probabilities_)
        self.effective_clusters_ = result["effective_clusters"]
        self.collapsed_ = result["collapsed"]
        context.log(phase="result", **result)
        if self.collapsed_:
            warnings.warn(
                f"SCAN collapsed: its {self.n_clusters} clusters are as unequal as "
                f"{self.effective_clusters_:.1f} of one size; try another lr or entropy_weight",
                stacklevel=3,
            )
        own = [row for row in self.history_ if row["phase"] == "selflabel"]
        trained = sum(row["loss"] is not None for row in own)
        if self.selflabel and trained < self.selflabel_epochs:
            message = (
                f"self-labelling stopped after {trained} of {self.selflabel_epochs} epochs: no "
                f"prediction is above the threshold of {self.selflabel_threshold}"
            )
            context.log(phase="selflabel", note=message)
            warnings.warn(message, stacklevel=3)


@register("ss-scan")
@dataclass(eq=False, repr=False, kw_only=True)
class SSSCAN(SCAN):
    """SCAN with labels: cross entropy on labelled images joins its loss; cluster j is class j.

    Neighbours known to be of another class are removed, and the head starts with a lean towards the
    means of the labelled images: from random weights few labels are learnt by heart, while the
    clusters around them keep the numbers they began with. The encoder stays frozen unless
    `finetune`. Without labels it is the `SCAN` of the same parameters.

    With more clusters than classes (0 to ``max(y)``), cluster j learns class j modulo the number of
    classes; in the end each cluster takes the class of most of its labelled members.

    Parameters
    ----------
    label_weight : weight of the cross entropy.
    start_weight : how much the head leans at the start, see `ClusterHead.lean_`; 0 is SCAN's own
        start. All others: see `SCAN`.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the class of each image's most probable cluster.
    cluster_labels_ : ``(n,)`` int64, that cluster.
    cluster_classes_ : ``(n_clusters,)`` int64, the class of each cluster (j of j without labels).
    All others: see `SCAN`.
    """

    tags: ClassVar[Tags] = Tags(
        needs_every_class=True,
        without_labels="scan",
        family="scan",
        columns="clusters",
        resumes=True,
    )

    _captured: ClassVar[Kind | None] = None  # its loss asks which labels there are

    version: ClassVar[int] = 2  # the head starts with a lean

    label_weight: float = 1.0
    start_weight: float = 3.0

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """As `SCAN.fit`; then every cluster takes a class."""
        super().fit(X, y, context)
        y = check_labels(y, len(X), self.n_clusters)
        self.cluster_labels_ = self.labels_
        self.cluster_classes_ = majority_classes(self.cluster_labels_, y, self.n_clusters)
        self.labels_ = self.cluster_classes_[self.cluster_labels_]
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """The class ``(n,)`` int64 of each image's most probable cluster."""
        clusters = super().predict(X)
        return self.cluster_classes_[clusters]

    def objective(
        self, anchors: torch.Tensor, others: torch.Tensor, y: torch.Tensor, n_classes: int
    ) -> torch.Tensor:
        """Equation 2, and the cross entropy of the labelled instances; see `SCAN.objective`."""
        label_free = super().objective(anchors, others, y, n_classes)
        return label_free + self.label_weight * labelled_loss(anchors, y, n_classes)

    def _start(
        self, head: ClusterHead, z: torch.Tensor, y: np.ndarray, draws: torch.Generator
    ) -> None:
        super()._start(head, z, y, draws)
        if (y != UNLABELLED).any():
            head.lean_(z, torch.from_numpy(y), self.start_weight)

    def _seed(self, phase: str, y: np.ndarray) -> int:
        without_labels = (y == UNLABELLED).all()
        return (
            super()._seed(phase, y) if without_labels else derive_seed(self.random_state, "ss-scan")
        )

    def _begin(
        self, X: np.ndarray, y: np.ndarray | None, context: Context | None
    ) -> tuple[np.ndarray, np.ndarray, Context]:
        X, y, context = super()._begin(X, y, context)
        why = "SS-SCAN learns from labels which cluster is which class"
        require_every_class(y, int(y.max()) + 1, why)
        return X, y, context
