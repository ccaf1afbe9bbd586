"""Images as rows of numbers."""

from __future__ import annotations

import numpy as np

from methods.method import check_images, flatten


def as_rows(X: np.ndarray) -> np.ndarray:
    """A new float32 array ``(n, d)``: pixels in [0, 1] of uint8 images, or a copy of float rows.

    Raises
    ------
    ValueError : neither images nor rows, or rows with values that are not finite.
    """
    X = np.asanyarray(X)
    if X.dtype.kind != "f" or X.ndim != 2:
        return flatten(check_images(X))
    if not np.isfinite(X).all():
        raise ValueError(
            "the rows hold NaN or infinity; expected finite numbers: mend their source"
        )
    return np.array(X, dtype=np.float32)
