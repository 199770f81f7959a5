"""AdamP against numbers by hand and against timm's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from reconpatch.method.adamp import AdamP


def test_the_first_step_by_hand() -> None:
    # Adam's first step is the learning rate times the sign of the gradient. The gradient is along
    # the weight, so nothing is projected, and all of the weight decay counts.
    weight = np.array([[3.0, -4.0]], np.float32)
    AdamP([weight], weight_decay=0.5).step([weight / 10], 0.01)
    np.testing.assert_allclose(weight, [[3 * 0.995 - 0.01, -4 * 0.995 + 0.01]], rtol=1e-6)


def test_a_step_by_hand_at_right_angles_to_the_weight() -> None:
    # Signs (1, 1), of which what lies along the weight (3, -4) / 5, -1/5 of it, is taken away:
    # (1 + 3/25, 1 - 4/25); the weight decay is a tenth.
    weight = np.array([[3.0, -4.0]], np.float32)
    AdamP([weight], weight_decay=0.5).step([np.array([[4.0, 3.0]], np.float32)], 0.01)
    np.testing.assert_allclose(weight, [[3 * 0.9995 - 0.0112, -4 * 0.9995 - 0.0084]], rtol=1e-6)


def test_the_second_step_by_hand() -> None:
    # Gradients 1 and 3 along the weight. Means: 0.1, then 0.39, of weight 1 - 0.9^2; of squares:
    # 0.001, then 0.009999, of weight 1 - 0.999^2.
    weight = np.array([[100.0]], np.float32)
    optimiser = AdamP([weight], weight_decay=0.0)
    for gradient in (1.0, 3.0):
        optimiser.step([np.array([[gradient]], np.float32)], 1.0)
    second = (0.39 / 0.19) / math.sqrt(0.009999 / 0.001999)
    assert weight.item() == pytest.approx(100 - 1 - second, abs=1e-4)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["any", "rows at right angles", "whole at a right angle"])
def test_steps_are_those_of_timm(kind: str, weight_decay: float) -> None:
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("timm.optim").AdamP
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 30)).astype(np.float32)
    weights = [start.copy(), np.asfortranarray(start[:, ::-1])]
    leaves = [torch.tensor(weight.copy()) for weight in weights]
    ours, other = (
        AdamP(weights, weight_decay=weight_decay),
        theirs(leaves, lr=1.0, weight_decay=weight_decay),
    )
    for step in range(1, 8):
        gradients = []
        for weight in weights:
            gradient = rng.normal(size=weight.shape) * 10.0 ** rng.integers(-3, 3)
            if kind.startswith("rows"):
                along = (gradient * weight).sum(axis=1) / np.square(weight).sum(axis=1)
                gradient -= along[:, None] * weight
            elif kind.startswith("whole"):
                gradient -= (gradient * weight).sum() / np.square(weight).sum() * weight
            gradients.append(gradient.astype(np.float32))
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = torch.tensor(gradient)
        other.param_groups[0]["lr"] = 0.1 / step
        other.step()
        ours.step(gradients, 0.1 / step)
        for weight, leaf in zip(weights, leaves, strict=True):
            np.testing.assert_allclose(weight, leaf, atol=1e-5)  # of float32, a few roundings
