"""Eq. 7 against loops straight from the paper, numbers by hand, and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from reconpatch.method.loss import off_diagonal, relative_distances, relaxed_contrastive_loss

Rows = list[list[float]]

# Only results are judged here, not how long they take.
any_time = settings(deadline=None)

# Three patches on a line: 0, 1 and 3.
LINE = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Float64 patches z, duplicates among them, and symmetric similarities w."""
    n = draw(st.integers(2, 8))
    d = draw(st.integers(1, 3))
    z = draw(hnp.arrays(np.float64, (n, d), elements=st.integers(-2, 2).map(float)))
    w = draw(hnp.arrays(np.float64, (n, n), elements=st.floats(0.0, 1.0)))
    return torch.from_numpy(z), torch.from_numpy((w + w.T) / 2)


def random_batch(seed: int, n: int = 6, d: int = 3) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    w = rng.uniform(size=(n, n))
    return torch.from_numpy(rng.normal(size=(n, d))), torch.from_numpy((w + w.T) / 2)


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


def total(z: Tensor, w: Tensor, margin: float = 1.0) -> Tensor:
    return relaxed_contrastive_loss(z, w, margin).total


def gradient(z: Tensor, w: Tensor, margin: float = 1.0) -> Tensor:
    z = z.clone().requires_grad_()
    return torch.autograd.grad(total(z, w, margin), z)[0]


# δ


def test_relative_distances_by_hand() -> None:
    # Means over all three, itself included: 4/3, 1 and 5/3.
    expected = [[0.0, 3 / 4, 9 / 4], [1.0, 0.0, 2.0], [9 / 5, 6 / 5, 0.0]]
    np.testing.assert_allclose(relative_distances(LINE).numpy(), expected, rtol=1e-12)


def test_relative_distances_of_two_patches_are_two_wherever_they_are() -> None:
    # ||z_i - z_j|| / ((0 + ||z_i - z_j||) / 2)
    delta = relative_distances(torch.tensor([[3.0, 4.0], [-100.0, 0.5]]))
    np.testing.assert_allclose(delta.numpy(), [[0.0, 2.0], [2.0, 0.0]], rtol=1e-6)


@any_time
@given(batches())
def test_relative_distances_against_loops(batch: tuple[Tensor, Tensor]) -> None:
    z, _ = batch
    expected = relative_by_loops(z.tolist())
    np.testing.assert_allclose(relative_distances(z).numpy(), expected, atol=1e-12)


@any_time
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-3, 0.5, 7.0, 1e3]))
def test_relative_distances_depend_on_neither_scale_nor_place(seed: int, scale: float) -> None:
    z, _ = random_batch(seed)
    moved = scale * z + scale * torch.tensor([1.0, -2.0, 3.0])
    delta = relative_distances(z).numpy()
    np.testing.assert_allclose(relative_distances(moved).numpy(), delta, rtol=1e-6)


def test_each_row_of_relative_distances_has_the_mean_one() -> None:
    z, _ = random_batch(5, n=9)
    np.testing.assert_allclose(relative_distances(z).mean(dim=1).numpy(), np.ones(9), rtol=1e-12)


def test_coinciding_patches_are_at_distance_0() -> None:
    delta = relative_distances(torch.tensor([[0.0], [0.0], [3.0]]))
    np.testing.assert_allclose(
        delta.numpy(), [[0.0, 0.0, 3.0], [0.0, 0.0, 3.0], [1.5, 1.5, 0.0]], rtol=1e-6
    )
    assert relative_distances(torch.ones(4, 3)).eq(0.0).all()
    # So near that the slope of the square root would be in the millions.
    nearly = torch.tensor([[0.0], [1e-7], [3.0]], dtype=torch.float64)
    assert relative_distances(nearly)[0, 1].item() == 0.0


def test_off_diagonal() -> None:
    matrix = torch.full((2, 2), 5.0, dtype=torch.float64)
    assert off_diagonal(matrix).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert off_diagonal(matrix).dtype == torch.float64
    assert matrix.tolist() == [[5.0, 5.0], [5.0, 5.0]]


# eq. 7


def test_the_loss_by_hand() -> None:
    # δ as above. Pull: 1 (9/16 + 1) + 1/2 (4 + 36/25) = 4.2825, over N = 3.
    # Push at m = 2: (2 - 9/5)^2 + 1/2 (2 - 6/5)^2 = 0.36, over 3; 9/4 is beyond the margin.
    w = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.5], [0.0, 0.5, 0.0]], dtype=torch.float64)
    loss = relaxed_contrastive_loss(LINE, w, margin=2.0)
    assert loss.pull.item() == pytest.approx(1.4275, rel=1e-12)
    assert loss.push.item() == pytest.approx(0.12, rel=1e-12)
    assert loss.total.item() == pytest.approx(1.5475, rel=1e-12)


@any_time
@given(batches(), st.floats(0.1, 3.0))
def test_the_loss_against_loops(batch: tuple[Tensor, Tensor], margin: float) -> None:
    z, w = batch
    loss = relaxed_contrastive_loss(z, w, margin)
    pull, push = loss_by_loops(z.tolist(), w.tolist(), margin)
    assert loss.pull.item() == pytest.approx(pull, abs=1e-9)
    assert loss.push.item() == pytest.approx(push, abs=1e-9)
    assert loss.total.item() == pytest.approx(pull + push, abs=1e-9)


def test_the_diagonal_of_w_carries_no_information() -> None:
    z, w = random_batch(1)
    other = w.clone().fill_diagonal_(0.123)
    assert not torch.equal(w, other)
    assert torch.equal(total(z, w), total(z, other))
    assert torch.equal(gradient(z, w), gradient(z, other))


def test_dissimilar_patches_beyond_the_margin_cost_nothing() -> None:
    nothing_alike = torch.zeros(2, 2)
    two = torch.tensor([[0.0], [1.0]])  # δ = 2
    assert relaxed_contrastive_loss(two, nothing_alike, margin=2.0).total.item() == 0.0
    nearer = relaxed_contrastive_loss(two, nothing_alike, margin=2.5)
    assert nearer.push.item() == pytest.approx(0.25)  # (2.5 - 2)^2 both ways, over 2


def test_a_step_against_the_gradient_pulls_the_similar_and_pushes_the_dissimilar() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    w = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
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
    assert torch.autograd.gradcheck(lambda z: total(z, w, margin), z.requires_grad_())


def test_the_gradient_flows_through_the_mean() -> None:
    # δ does not change with the scale of z, so neither does the loss: z · ∂L/∂z = 0 (Euler).
    z, w = random_batch(2)
    slope = gradient(z, w)
    assert slope.norm() > 0.1
    assert (z * slope).sum().item() == pytest.approx(0.0, abs=1e-10)
    # Nor does it change when all patches move together.
    np.testing.assert_allclose(slope.sum(dim=0).numpy(), np.zeros(3), atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_is_finite_at_duplicates(dtype: torch.dtype) -> None:
    z, w = random_batch(3, n=8)
    z[4:] = z[:4]
    slope = gradient(z.to(dtype), w.to(dtype))
    assert slope.isfinite().all()
    assert slope.norm() > 0.01


def test_a_batch_of_one_and_the_same_patch_has_a_finite_loss_and_no_gradient() -> None:
    _, w = random_batch(4, n=5)
    z = torch.ones(5, 3, dtype=torch.float64)
    loss = relaxed_contrastive_loss(z, w, margin=2.0)
    pull, push = loss_by_loops(z.tolist(), w.tolist(), margin=2.0)
    assert pull == 0.0
    assert loss.pull.item() == 0.0
    assert loss.push.item() == pytest.approx(push)
    assert gradient(z, w).eq(0.0).all()


def test_no_gradient_flows_into_w() -> None:
    z, w = random_batch(6)
    z.requires_grad_()
    w.requires_grad_()
    into_z, into_w = torch.autograd.grad(total(z, w), [z, w], allow_unused=True)
    assert into_z is not None
    assert into_w is None
