"""Eq. 7 against loops straight from the paper and numbers by hand, its gradient likewise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reconpatch.method.loss import distances, relaxed_contrastive_loss
from reconpatch.method.similarity import Reals

Rows = list[list[float]]

# Only results are judged here, not how long they take.
any_time = settings(deadline=None)

# Three patches on a line: 0, 1 and 3.
LINE = np.array([[0.0], [1.0], [3.0]])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Reals, Reals]:
    """Float64 patches z, duplicates among them, and symmetric similarities w."""
    n = draw(st.integers(2, 8))
    d = draw(st.integers(1, 3))
    z = draw(hnp.arrays(np.float64, (n, d), elements=st.integers(-2, 2).map(float)))
    w = draw(hnp.arrays(np.float64, (n, n), elements=st.floats(0.0, 1.0)))
    return z, (w + w.T) / 2


def random_batch(seed: int, n: int = 6, d: int = 3) -> tuple[Reals, Reals]:
    rng = np.random.default_rng(seed)
    w = rng.uniform(size=(n, n))
    return rng.normal(size=(n, d)), (w + w.T) / 2


def relative_by_loops(z: Rows) -> Rows:
    """δ_ij, with 0 where all patches of the batch coincide."""
    distances = [[math.dist(x, y) for y in z] for x in z]
    means = [sum(row) / len(z) for row in distances]
    return [
        [d / mean if mean else 0.0 for d in row] for row, mean in zip(distances, means, strict=True)
    ]


def loss_by_loops(z: Rows, w: Rows, margin: float) -> tuple[float, float]:
    """The two parts of eq. 7, term by term; the diagonal is left out."""
    delta = relative_by_loops(z)
    pairs = [(i, j) for i in range(len(z)) for j in range(len(z)) if i != j]
    pull = sum(w[i][j] * delta[i][j] ** 2 for i, j in pairs)
    push = sum((1 - w[i][j]) * max(margin - delta[i][j], 0.0) ** 2 for i, j in pairs)
    return pull / len(z), push / len(z)


def gradient(z: Reals, w: Reals, margin: float = 1.0) -> Reals:
    return relaxed_contrastive_loss(z, w, margin).gradient


def relative_distances(z: Reals) -> Reals:
    return distances(z).relative


# δ


def test_relative_distances_by_hand() -> None:
    # Means over all three, itself included: 4/3, 1 and 5/3.
    expected = [[0.0, 3 / 4, 9 / 4], [1.0, 0.0, 2.0], [9 / 5, 6 / 5, 0.0]]
    np.testing.assert_allclose(relative_distances(LINE), expected, rtol=1e-12)


def test_relative_distances_of_two_patches_are_two_wherever_they_are() -> None:
    # ||z_i - z_j|| / ((0 + ||z_i - z_j||) / 2)
    delta = relative_distances(np.array([[3.0, 4.0], [-100.0, 0.5]]))
    np.testing.assert_allclose(delta, [[0.0, 2.0], [2.0, 0.0]], rtol=1e-6)


@any_time
@given(batches())
def test_relative_distances_against_loops(batch: tuple[Reals, Reals]) -> None:
    z, _ = batch
    expected = relative_by_loops(z.tolist())
    np.testing.assert_allclose(relative_distances(z), expected, atol=1e-12)


@any_time
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.5, 7.0, 1e3]))
def test_relative_distances_depend_on_neither_scale_nor_place(seed: int, scale: float) -> None:
    z, _ = random_batch(seed)
    moved = scale * z + scale * np.array([1.0, -2.0, 3.0])
    delta = relative_distances(z)
    np.testing.assert_allclose(relative_distances(moved), delta, rtol=1e-6)


def test_each_row_of_relative_distances_has_the_mean_one() -> None:
    z, _ = random_batch(5, n=9)
    np.testing.assert_allclose(relative_distances(z).mean(axis=1), np.ones(9), rtol=1e-12)


def test_coinciding_patches_are_at_distance_0() -> None:
    delta = relative_distances(np.array([[0.0], [0.0], [3.0]]))
    np.testing.assert_allclose(
        delta, [[0.0, 0.0, 3.0], [0.0, 0.0, 3.0], [1.5, 1.5, 0.0]], rtol=1e-6
    )
    assert not relative_distances(np.ones((4, 3))).any()
    # So near that the slope of the square root would be in the millions.
    nearly = np.array([[0.0], [1e-7], [3.0]])
    assert relative_distances(nearly)[0, 1] == 0.0


# eq. 7


def test_the_loss_by_hand() -> None:
    # δ as above. Pull: 1 (9/16 + 1) + 1/2 (4 + 36/25) = 4.2825, over N = 3.
    # Push at m = 2: (2 - 9/5)^2 + 1/2 (2 - 6/5)^2 = 0.36, over 3; 9/4 is beyond the margin.
    w = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]])
    loss = relaxed_contrastive_loss(LINE, w, margin=2.0)
    assert loss.pull == pytest.approx(1.4275, rel=1e-12)
    assert loss.push == pytest.approx(0.12, rel=1e-12)
    assert loss.total == pytest.approx(1.5475, rel=1e-12)


@any_time
@given(batches(), st.floats(0.1, 3.0))
def test_the_loss_against_loops(batch: tuple[Reals, Reals], margin: float) -> None:
    z, w = batch
    loss = relaxed_contrastive_loss(z, w, margin)
    pull, push = loss_by_loops(z.tolist(), w.tolist(), margin)
    assert loss.pull == pytest.approx(pull, abs=1e-9)
    assert loss.push == pytest.approx(push, abs=1e-9)
    assert loss.total == pytest.approx(pull + push, abs=1e-9)


def test_the_diagonal_of_w_carries_no_information() -> None:
    z, w = random_batch(1)
    other = w.copy()
    np.fill_diagonal(other, 0.123)
    one, two = (relaxed_contrastive_loss(z, weights, 1.0) for weights in (w, other))
    assert one.total == two.total
    np.testing.assert_array_equal(one.gradient, two.gradient)


def test_dissimilar_patches_beyond_the_margin_cost_nothing() -> None:
    nothing_alike = np.zeros((2, 2))
    two = np.array([[0.0], [1.0]])  # δ = 2
    assert relaxed_contrastive_loss(two, nothing_alike, margin=2.0).total == 0.0
    nearer = relaxed_contrastive_loss(two, nothing_alike, margin=2.5)
    assert nearer.push == pytest.approx(0.25)  # (2.5 - 2)^2 both ways, over 2


def test_a_step_against_the_gradient_pulls_the_similar_and_pushes_the_dissimilar() -> None:
    z = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    w = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    before = relative_distances(z)
    after = relative_distances(z - 0.01 * gradient(z, w, margin=2.0))
    assert after[0, 1] < before[0, 1]
    assert after[0, 2] > before[0, 2]


# gradients


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("margin", [0.7, 1.0, 2.5])
def test_the_gradient_against_finite_differences(n: int, margin: float) -> None:
    # A gradient that stopped at the mean would differ: finite differences move the mean too.
    z, w = random_batch(n, n=n)
    expected = np.zeros_like(z)
    for place in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-5
        ahead, behind = (
            sum(loss_by_loops((z + s).tolist(), w.tolist(), margin)) for s in (step, -step)
        )
        expected[place] = (ahead - behind) / 2e-5
    # They err by the square of the step, and by rounding over the step.
    np.testing.assert_allclose(gradient(z, w, margin), expected, atol=1e-7)


@pytest.mark.parametrize(("dtype", "digits"), [(np.float64, 1e-12), (np.float32, 1e-4)])
@pytest.mark.parametrize("margin", [0.7, 1.5])
def test_the_gradient_against_that_of_torch(dtype: type, digits: float, margin: float) -> None:
    torch = pytest.importorskip("torch", reason="it works out the gradient by itself")
    from reconpatch.method import torch_training

    z, w = (array.astype(dtype) for array in random_batch(7, n=40, d=9))
    z[30:] = z[:10]  # duplicates, which rounding holds apart a little in float32 alone
    leaf = torch.tensor(z, requires_grad=True)
    parts = torch_training.relaxed_contrastive_loss(leaf, torch.tensor(w), margin)
    parts.sum().backward()
    loss = relaxed_contrastive_loss(z, w, margin)
    assert (loss.pull, loss.push) == pytest.approx(tuple(parts.tolist()), rel=digits)
    assert loss.gradient.dtype == dtype
    np.testing.assert_allclose(loss.gradient, leaf.grad, atol=digits)


def test_the_gradient_flows_through_the_mean() -> None:
    # δ does not change with the scale of z, so neither does the loss: z · ∂L/∂z = 0 (Euler).
    z, w = random_batch(2)
    slope = gradient(z, w)
    assert np.linalg.norm(slope) > 0.1
    assert (z * slope).sum() == pytest.approx(0.0, abs=1e-10)
    # Nor does it change when all patches move together, by a bias for one.
    np.testing.assert_allclose(slope.sum(axis=0), np.zeros(3), atol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_is_finite_at_duplicates(dtype: type) -> None:
    z, w = random_batch(3, n=8)
    z[4:] = z[:4]
    slope = gradient(z.astype(dtype), w.astype(dtype))
    assert np.isfinite(slope).all()
    assert np.linalg.norm(slope) > 0.01


def test_a_batch_of_one_and_the_same_patch_has_a_finite_loss_and_no_gradient() -> None:
    _, w = random_batch(4, n=5)
    z = np.ones((5, 3))
    loss = relaxed_contrastive_loss(z, w, margin=2.0)
    pull, push = loss_by_loops(z.tolist(), w.tolist(), margin=2.0)
    assert pull == loss.pull == 0.0
    assert loss.push == pytest.approx(push)
    assert not loss.gradient.any()
