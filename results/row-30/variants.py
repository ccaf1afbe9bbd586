"""Row 30 of `bench verify` with what its source leaves open: a plugin.

Das and Thada do not say how they scaled pixels, and their code and report leave room for a softmax
and for the weights with the smallest held-out loss. What came of it stands in `results/README.md`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

from methods.propagation import KMeansCentroid
from methods.registry import register


@register("kmeans-centroid-nn-as", in_all=False)
@dataclass(eq=False, repr=False)
class KMeansCentroidAs(KMeansCentroid):
    """`kmeans-centroid-nn` whose network has other outputs, pixels or weights.

    Parameters
    ----------
    outputs, white, keep, patience : see `NN`.
    """

    head: str = "nn"
    _: KW_ONLY
    outputs: str = "sigmoid"
    white: float = 1.0
    keep: str = "last"
    patience: int = 8

    def _head_params(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("outputs", "white", "keep", "patience")}
        return super()._head_params() | own
