"""Spread and match: labels spread over a graph of contrastive features, then consistency training.

Our own method, of known parts, one configuration for every number of labels:

1. SimCLR learns features from all images (the stage that SCAN and the graph methods share).
2. Every image gets a class, and how sure that is. With labels: Poisson MBO spreads them over the
   nearest-neighbour graph of the features, with the classes' shares among the labels as priors.
   Without: several clustering heads learn the SCAN loss, and the one with the lowest loss counts.
3. SimCLR's network goes on to learn from the labelled images, and by consistency between views of
   all images (FixMatch). The images that are surest of their class are taught beside the labelled
   ones: half and half while labels are few, then ever less, as some of them have the wrong class,
   and in a long training only at first. Without labels they are all that is taught.
4. Few steps see few of many labels, so the last layer is learnt again, on the features of all
   labelled images: there it is a logistic regression, which has one solution. While labels are few
   they say less than what was spread: then it learns the classes that were spread to all images.

References
----------
Chen et al., SimCLR, ICML 2020. Calder et al., Poisson Learning, ICML 2020. Van Gansbeke et al.,
SCAN, ECCV 2020. Sohn et al., FixMatch, NeurIPS 2020. Kang et al., Decoupling Representation and
Classifier for Long-Tailed Recognition, ICLR 2020 (classifier re-training).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch

from methods.graphs import PoissonMBO
from methods.method import (
    UNLABELLED,
    Context,
    StageRequest,
    Tags,
    check_choice,
    derive_seed,
)
from methods.registry import register
from methods.scan.losses import scan_loss
from methods.scan.network import ClusterHead
from methods.scan.phases import Training, train_phase
from methods.toolkit.draws import Draws, generator
from methods.toolkit.fast.cuda_graphs import UNTIMED
from methods.toolkit.graph import SHARED_NEIGHBOURS
from methods.toolkit.heads.logistic import new_probe
from methods.toolkit.heads.outputs import PREDICT_BATCH, NetworkPredictor
from methods.toolkit.heads.table import ClassifierMethod
from methods.toolkit.matching import Classifier, Lesson, MatchingMethod, Pool, match
from methods.toolkit.nets.resnet import he_
from methods.toolkit.stages.neighbours import NeighbourLists, neighbours
from methods.toolkit.training import image_tensor, in_batches


@register("spread-and-match")
@dataclass(eq=False, repr=False, kw_only=True)
class SpreadAndMatch(MatchingMethod, ClassifierMethod, PoissonMBO):
    """Poisson MBO on SimCLR's features, FixMatch from SimCLR's weights, the last layer learnt anew.

    Parameters
    ----------
    seed_share : share of the images that become seeds, the surest of each class; 0 for none.
    seed_labels : up to how many labels the seeds are half of what is taught, and the last layer
        learns the classes that were spread to all images. With more labels the seeds' share falls,
        see `seeds_in`, and the last layer learns the labels.
    seed_time : share of the steps in which the seeds are taught too; all of them without labels.
    warm_start : whether the network starts with SimCLR's weights, and not at random.
    steps, batch_size, mu, lr, weight_decay, threshold, weight : of the consistency training, see
        `Matching`; its last weights count.
    relearn : whether the last layer is learnt again, where there are labels.
    C, lr_tol, lr_max_iter : of that, see `LogisticRegression`.
    n_heads, head_epochs, head_batch_size, head_lr : clustering heads without labels, and how each
        is trained.
    entropy_weight : of their loss, see `scan_loss`.
    All others: see `PoissonMBO`; `features` are SimCLR's alone, whose network is trained on.

    Attributes
    ----------
    labels_ : ``(n,)`` int64, the network's most probable class, for labelled images too.
    probabilities_ : ``(n, n_clusters)`` float32; 0 for a class that had no label, if one had some.
    seeds_ : the indices of the seeds, int64.
    head_ : the trained network.
    """

    version: ClassVar[int] = 5
    tags: ClassVar[Tags] = Tags(family="consistency", resumes=True)
    schedules: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": PoissonMBO.schedules["quick"]
        | {
            "steps": 300,
            "seed_time": 1.0,
            "mu": 2,
            "batch_size": 64,
            "lr": 0.005,
            "lr_max_iter": 100,
            "head_epochs": 20,
            "head_batch_size": 512,
            "head_lr": 1e-3,
        },
        "smoke": PoissonMBO.schedules["smoke"]
        | {"steps": 10, "mu": 2, "seed_time": 1.0, "lr_max_iter": 20}
        | {"head_epochs": 5, "head_lr": 0.01, "n_heads": 2},
    }

    simclr_epochs: int = 40
    steps: int = 4000
    batch_size: int = 128
    mu: int = 2
    lr: float = 2e-3
    seed_share: float = 0.2
    seed_labels: int = 50
    seed_time: float = 0.25
    warm_start: bool = True
    relearn: bool = True
    C: float = 1.0
    lr_tol: float = 1e-4
    lr_max_iter: int = 5000
    n_heads: int = 5
    head_epochs: int = 100
    head_batch_size: int = 128
    head_lr: float = 1e-4
    entropy_weight: float = 5.0

    def fit(
        self, X: np.ndarray, y: np.ndarray | None = None, context: Context | None = None
    ) -> Self:
        """Fit images ``X`` ``(n, h, w[, c])`` uint8 with labels ``y`` ``(n,)``, -1 = unlabelled.

        Height and width are at least 8.

        Raises
        ------
        ValueError : images, labels or a parameter that cannot be used.
        FloatingPointError : a loss that is logged is not finite.
        """
        X, y, context = self._begin(X, y, context)
        if (y == UNLABELLED).all():
            self.scores_ = self._cluster(X, context)
        else:
            super().fit(X, y, context)
        spread = self.scores_.argmax(1)
        self.seeds_ = surest(self.scores_, self.seed_share, y)
        context.log(seeds=len(self.seeds_))
        network = self._match(X, self._lessons(y, spread), context)
        labelled = y != UNLABELLED
        if self.relearn and labelled.any():
            few = labelled.sum() <= self.seed_labels
            classes = np.where(labelled, y, spread)
            # The graph may give some images to a class that had no label.
            taught = labelled | (few & np.isin(classes, y[labelled]))
            self._learn_last_layer_again(network, X[taught], classes[taught], context)
        seen = np.unique(y[labelled]) if labelled.any() else np.arange(self.n_clusters)
        self.head_ = NetworkPredictor(network, seen, self.n_clusters, self._inference)
        self._label(X)
        return self

    def _lessons(self, y: np.ndarray, spread: np.ndarray) -> list[Lesson]:
        """First the labelled images and the seeds, these with the classes spread to them."""
        labelled = np.flatnonzero(y != UNLABELLED)
        n_seeds = seeds_in(self.batch_size, len(labelled), self.seed_labels)
        if len(self.seeds_) == 0:
            n_seeds = 0
        pools = [
            Pool(labelled, y[labelled], self.batch_size - n_seeds),
            Pool(self.seeds_, spread[self.seeds_], n_seeds),
        ]
        started = Lesson(round(self.seed_time * self.steps), [pool for pool in pools if pool.size])
        alone = Lesson(self.steps, [Pool(labelled, y[labelled], self.batch_size)])
        return [started, alone] if len(labelled) else [started]

    def _match(self, X: np.ndarray, lessons: list[Lesson], context: Context) -> Classifier:
        """SimCLR's network, trained on the images of `lessons` and by consistency."""
        seed = derive_seed(self.random_state, "spread-and-match")
        network = Classifier(X.shape[1:], self.width, self.feature_dim, self.n_clusters)
        he_(network, generator(seed, "weights"))
        if self.warm_start:
            network[0].load_state_dict(self.encoder_.state_dict())
        network.to(context.device)
        images = image_tensor(X, context.device)
        return match(network, images, lessons, self._matching(), seed, context)

    @torch.no_grad()
    def _learn_last_layer_again(
        self, network: Classifier, X: np.ndarray, y: np.ndarray, context: Context
    ) -> None:
        """Make it the logistic regression on the features of images ``X`` of classes ``y``.

        Features are scaled such that their mean square is 1. A class without an image gets
        probability 0.
        """
        images = image_tensor(X, context.device)
        rows = in_batches(network.features, images, self._inference, PREDICT_BATCH).cpu().numpy()
        scale = float(1 / np.sqrt(np.square(rows).mean() or 1.0))
        learnt = new_probe(self, "lr_tol").fit(rows * scale, y, context)
        last = network.last
        last.weight.zero_()
        last.bias.fill_(-torch.inf)
        last.weight[learnt.classes_] = torch.from_numpy(learnt.coef_ * scale).to(last.weight)
        last.bias[learnt.classes_] = torch.from_numpy(learnt.intercept_).to(last.bias)

    def _cluster(self, X: np.ndarray, context: Context) -> np.ndarray:
        """Soft assignments ``(n, K)`` of the clustering head with the lowest loss."""
        features = self._stage_features(X, context)
        k = min(SHARED_NEIGHBOURS, len(X) - 1)
        indices = self._ask(StageRequest(neighbours, {"k": k}), features, context)["indices"]
        z = torch.from_numpy(features).to(context.device)
        partners = torch.from_numpy(np.array(indices)).to(context.device)
        found: list[tuple[float, torch.Tensor]] = []
        for number in range(self.n_heads):
            head = self._train_head(z, indices, number, context)
            with torch.inference_mode():
                logits = head(z)
                losses = [scan_loss(logits, logits[p], self.entropy_weight) for p in partners.T]
            found.append((float(torch.stack(losses).mean()), logits.softmax(1).cpu()))
            context.log(head=number, loss=found[-1][0])
        return min(found, key=lambda one: one[0])[1].double().numpy()

    def _train_head(
        self, z: torch.Tensor, indices: np.ndarray, number: int, context: Context
    ) -> ClusterHead:
        """A clustering head on features ``z``, on the SCAN loss of pairs of neighbours."""
        seed = derive_seed(self.random_state, f"head {number}")
        head = ClusterHead(z.shape[1], self.n_clusters)
        head.start_(z.cpu(), generator(seed, "head"))
        head.to(context.device)
        unlabelled = np.full(len(z), UNLABELLED)
        lists = NeighbourLists.of(indices, unlabelled).to(context.device)

        def loss(rows: torch.Tensor, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
            others = lists.draw(rows, draws)
            logits = head(z[rows])
            return scan_loss(logits, head(z[others]), self.entropy_weight), logits

        training = Training(self.head_epochs, self.head_batch_size, self.head_lr)
        name = f"head-{number}"
        train_phase(name, head, loss, len(z), self.n_clusters, training, seed, context, UNTIMED)
        return head

    def _check_parameters(self, n: int) -> None:
        super()._check_parameters(n)
        check_choice("features", self.features, ("simclr",))
        new_probe(self, "lr_tol")
        for name in ("seed_share", "seed_time"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected 0 to 1")
        for name in ("seed_labels", "n_heads", "head_epochs", "head_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")


def surest(scores: np.ndarray, share: float, y: np.ndarray) -> np.ndarray:
    """The unlabelled images surest of their class: of each class the same share, sorted.

    How sure an image is, is the difference of its two largest scores ``(n, K)``. Without a label
    anywhere at least one image of each class is a seed.
    """
    highest = np.sort(scores, 1)
    margin, spread = highest[:, -1] - highest[:, -2], scores.argmax(1)
    least = int((y == UNLABELLED).all())
    found = []
    for j in range(scores.shape[1]):
        members = np.flatnonzero((spread == j) & (y == UNLABELLED))
        n_seeds = max(least, round(share * len(members)))
        found.append(members[np.argsort(-margin[members], kind="stable")[:n_seeds]])
    return np.sort(np.concatenate(found))


def seeds_in(batch_size: int, n_labels: int, seed_labels: int) -> int:
    """How many of the `batch_size` images that are taught in a step are seeds.

    With κ = `seed_labels`: half of them with up to κ labels, with more κ of κ + `n_labels` parts,
    rounded. All of them without labels.
    """
    if n_labels == 0:
        return batch_size
    return round(batch_size * seed_labels / (seed_labels + max(n_labels, seed_labels)))
