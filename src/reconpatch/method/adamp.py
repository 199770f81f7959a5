"""AdamP, the paper's optimiser: Adam whose steps do not lengthen weights whose length is idle.

Reference: Heo et al., "AdamP: Slowing Down the Slowdown for Momentum Optimizers on Scale-invariant
Weights", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_BETA1, _BETA2 = 0.9, 0.999
_EPSILON = 1e-8
# Below this cosine to its gradient, times the root of its size, a weight counts as scale-invariant.
_DELTA = 0.1
# Share of the weight decay that a scale-invariant weight gets: its length decides nothing.
_DECAY_SHARE = 0.1


class AdamP:
    """Moves matrices along their gradients, in place.

    Args:
        weights: float32 matrices, changed by every step.
        weight_decay: 0 or more, times the learning rate in every step.
    """

    def __init__(self, weights: Sequence[Floats], *, weight_decay: float) -> None:
        self._weights = weights
        self._weight_decay = weight_decay
        self._steps = 0
        self._mean = [np.zeros_like(weight) for weight in weights]  # of the gradients
        self._square = [np.zeros_like(weight) for weight in weights]  # mean of their squares

    def step(self, gradients: Sequence[Floats], learning_rate: float) -> None:
        """Take one step.

        Args:
            gradients: of the loss by each of the weights, in their shapes.
            learning_rate: above 0.
        """
        self._steps += 1
        rate = learning_rate / (1.0 - _BETA1**self._steps)
        spread = 1.0 / math.sqrt(1.0 - _BETA2**self._steps)
        for weight, gradient, mean, square in zip(
            self._weights, gradients, self._mean, self._square, strict=True
        ):
            mean *= _BETA1
            mean += (1.0 - _BETA1) * gradient
            square *= _BETA2
            square += (1.0 - _BETA2) * np.square(gradient)
            scale = np.sqrt(square)
            scale *= spread
            scale += _EPSILON
            change = np.divide(mean, scale, out=scale)
            share = _project(change, weight, gradient)
            weight *= 1.0 - learning_rate * self._weight_decay * share
            change *= rate
            weight -= change


def _project(change: Floats, weight: Floats, gradient: Floats) -> float:
    """Take what lengthens a scale-invariant weight out of its change, in place.

    A loss that does not depend on a weight's length has a gradient at right angles to it: tried are
    every row by itself and the matrix as a whole.

    Returns:
        The share of the weight decay that is left.
    """
    for rows in (len(weight), 1):
        w, g, c = (matrix.reshape(rows, -1) for matrix in (weight, gradient, change))
        lengths = np.maximum(np.sqrt(np.einsum("rc,rc->r", w, w)), _EPSILON)
        others = np.maximum(np.sqrt(np.einsum("rc,rc->r", g, g)), _EPSILON)
        cosines = np.abs(np.einsum("rc,rc->r", w, g)) / (lengths * others)
        if cosines.max() < _DELTA / math.sqrt(w.shape[1]):
            along = np.einsum("rc,rc->r", w, c) / lengths**2
            change -= (along[:, None] * w).reshape(change.shape)
            return _DECAY_SHARE
    return 1.0
