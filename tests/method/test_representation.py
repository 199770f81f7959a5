"""The training of f (eq. 8, the batches, the start) and the representation it leaves behind."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest

from reconpatch.errors import NotEnoughPhotosError, SettingsError
from reconpatch.method import representation
from reconpatch.method.adamp import AdamP
from reconpatch.method.loss import ContrastiveLoss, relaxed_contrastive_loss
from reconpatch.method.representation import (
    Floats,
    Representation,
    TrainingSettings,
    batches,
    initial_weight,
    make_representation,
    principal_directions,
    pseudo_labels,
    random_orthogonal,
    train,
    update_twin,
)
from reconpatch.method.similarity import Reals, contextual_similarity

SMALL = TrainingSettings(dim=4, k=3, batch_size=16, steps=5, learning_rate=1e-2)
Init = Literal["orthogonal", "pca", "identity"]
INITS: tuple[Init, ...] = ("orthogonal", "pca", "identity")


def changed(settings: TrainingSettings, **changes: Any) -> TrainingSettings:
    return TrainingSettings(**{**settings.to_dict(), **changes})


def random_patches(n: int, c: int, seed: int = 0) -> Floats:
    """Correlated features, each of its own scale and place."""
    rng = np.random.default_rng(seed)
    p = rng.normal(size=(n, c)) @ rng.normal(size=(c, c))
    return (p * rng.uniform(0.1, 5.0, c) + rng.uniform(-3.0, 3.0, c)).astype(np.float32)


def two_clusters(n: int = 40) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Two groups that differ in two features, among six of noise."""
    rng = np.random.default_rng(0)
    second = np.arange(n) % 2 == 1
    p = rng.normal(size=(n, 8))
    p[:, :2] = rng.normal(size=(n, 2)) * 0.1 + np.where(second, 3.0, -3.0)[:, None]
    return p.astype(np.float32), second


def separation(r: Floats, second: npt.NDArray[np.bool_]) -> float:
    """Mean distance between the groups, over the mean distance within them."""
    distances = np.linalg.norm(r[:, None] - r[None, :], axis=2)
    same = second[:, None] == second[None, :]
    others = ~np.eye(len(r), dtype=bool)
    return float(distances[~same].mean() / distances[same & others].mean())


def weight_of(f: Representation) -> Floats:
    assert f.weight is not None
    return f.weight


def assert_equal_bits(a: Representation, b: Representation) -> None:
    np.testing.assert_array_equal(weight_of(a), weight_of(b))
    assert (a.bias is None) == (b.bias is None)
    if a.bias is not None and b.bias is not None:
        np.testing.assert_array_equal(a.bias, b.bias)


# Representation


def test_a_representation_by_hand() -> None:
    f = Representation(
        np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.0]], np.float32),
        np.array([10.0, 20.0, 30.0], np.float32),
    )
    p = np.array([[[1.0, 1.0], [2.0, 0.5]]], np.float32)
    assert f(p).tolist() == [[[13.0, 19.0, 33.0], [13.0, 19.5, 36.0]]]
    assert Representation(f.weight)(p).tolist() == [[[3.0, -1.0, 3.0], [3.0, -0.5, 6.0]]]
    assert f(p).dtype == np.float32


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True), (False, False)])
@pytest.mark.parametrize("weights", [(True, True), (True, False), (False, True), (False, False)])
def test_two_representations_in_turn_are_one(
    weights: tuple[bool, bool], biases: tuple[bool, bool]
) -> None:
    rng = np.random.default_rng(0)
    between, last = (5 if weights[0] else 4), (3 if weights[1] else 0) or (5 if weights[0] else 4)
    first, second = (
        Representation(
            rng.standard_normal((rows, columns), np.float32) if weight else None,
            rng.standard_normal(rows, np.float32) if bias else None,
        )
        for rows, columns, weight, bias in zip(
            (between, last), (4, between), weights, biases, strict=True
        )
    )
    p = random_patches(7, 4)
    both = second.after(first)
    np.testing.assert_allclose(both(p), second(first(p)), atol=1e-5)
    assert (both.weight is None) == (not any(weights))
    assert (both.bias is None) == (not any(biases))
    for part in (both.weight, both.bias):
        assert part is None or part.dtype == np.float32


def test_patchcore_is_the_identity() -> None:
    f, log = make_representation(random_patches(3, 5), "patchcore", SMALL, seed=0)
    p = random_patches(7, 5)
    assert f(p) is p
    assert log is None


# the methods


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("bias", [True, False])
def test_untrained_is_reconpatch_before_its_first_step(init: Init, bias: bool) -> None:
    p = random_patches(30, 6)
    settings = changed(SMALL, init=init, bias=bias, steps=0, epochs=0)
    untrained, nothing = make_representation(p, "untrained", settings, seed=3)
    trained, log = make_representation(p, "reconpatch", settings, seed=3)
    assert_equal_bits(untrained, trained)
    assert (untrained.bias is not None) == bias
    assert nothing is None
    assert log is not None
    assert (log.steps, log.movement) == (0, 0.0)
    assert log.loss_first == log.loss_last == (0.0, 0.0)

    one_step, _ = make_representation(p, "reconpatch", changed(settings, steps=1), seed=3)
    assert not np.array_equal(weight_of(one_step), weight_of(untrained))


@pytest.mark.parametrize("kind", ["random", "neighbours"])
@pytest.mark.parametrize("init", INITS)
def test_the_seed_decides_every_bit(kind: str, init: str) -> None:
    p = random_patches(50, 6)
    settings = changed(SMALL, batches=kind, init=init)
    first, _ = make_representation(p, "reconpatch", settings, seed=1)
    again, _ = make_representation(p, "reconpatch", settings, seed=1)
    other, _ = make_representation(p, "reconpatch", settings, seed=2)
    assert_equal_bits(first, again)
    assert not np.array_equal(weight_of(first), weight_of(other))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match="'magic': give one of reconpatch, untrained, patchc"):
        make_representation(random_patches(30, 3), "magic", SMALL, seed=0)  # type: ignore[arg-type]


def test_k_patches_are_too_few_and_one_more_is_enough() -> None:
    with pytest.raises(NotEnoughPhotosError, match=r"give 3 patches, .* more than k = 3"):
        make_representation(random_patches(3, 4), "reconpatch", SMALL, seed=0)
    f, _ = make_representation(random_patches(4, 4), "reconpatch", SMALL, seed=0)
    assert np.isfinite(weight_of(f)).all()


# eq. 8


def test_update_twin_by_hand() -> None:
    student = [np.array([[2.0]], np.float32), np.array([[0.0]], np.float32)]
    twin = [np.array([[1.0]], np.float32), np.array([[8.0]], np.float32)]
    update_twin(twin, student, gamma=0.75)  # 0.75 * 1 + 0.25 * 2, 0.75 * 8 + 0
    assert [weight.item() for weight in twin] == [1.25, 6.0]
    student[0][:] = 4.0
    update_twin(twin, student, gamma=0.75)  # 0.75 * 1.25 + 0.25 * 4, 0.75 * 6
    assert [weight.item() for weight in twin] == [1.9375, 4.5]
    assert [weight.item() for weight in student] == [4.0, 0.0]


def test_the_twin_starts_as_the_student_and_follows_eq_8(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[Floats], list[Floats], list[Floats]]] = []

    def values(weights: Sequence[Floats]) -> list[Floats]:
        return [weight.copy() for weight in weights]

    def watch(twin: Sequence[Floats], student: Sequence[Floats], gamma: float) -> None:
        before = values(twin)
        update_twin(twin, student, gamma)
        seen.append((before, values(twin), values(student)))

    monkeypatch.setattr(representation, "update_twin", watch)
    settings = changed(SMALL, steps=2, gamma=0.9)
    p = random_patches(30, 6)
    start, _ = make_representation(p, "untrained", settings, seed=5)
    make_representation(p, "reconpatch", settings, seed=5)

    (theta0, _, theta1), (_, twin2, theta2) = seen
    assert len(theta0) == 2  # the weights of f and of g
    np.testing.assert_array_equal(theta0[0], weight_of(start))
    for start_, first, second, twin in zip(theta0, theta1, theta2, twin2, strict=True):
        np.testing.assert_allclose(twin, 0.81 * start_ + 0.09 * first + 0.1 * second, atol=1e-6)
    assert not np.array_equal(theta1[0], theta2[0])


# pseudo-labels


@pytest.mark.parametrize(("gamma", "moves"), [(1.0, False), (0.0, True)])
def test_pseudo_labels_are_made_by_the_twin(
    gamma: float, moves: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Reals] = []

    def watch(z_bar: Reals, settings: TrainingSettings) -> Reals:
        seen.append(z_bar)
        return pseudo_labels(z_bar, settings)

    monkeypatch.setattr(representation, "pseudo_labels", watch)
    p = random_patches(16, 6)
    make_representation(p, "reconpatch", changed(SMALL, gamma=gamma), seed=0)
    # Every batch holds all 16 patches, in another order.
    first, last = (z_bar[z_bar[:, 0].argsort()] for z_bar in (seen[0], seen[-1]))
    assert np.allclose(first, last, atol=1e-5) is not moves


def test_pseudo_labels_by_hand() -> None:
    # Two patches at distance 2, k = 1: each is its only neighbour, w_ctx = 0 between them.
    z = np.array([[0.0, 3.0], [0.0, 5.0]])
    settings = TrainingSettings(k=1, alpha=0.5, sigma=2.0, scale="none")
    assert pseudo_labels(z, settings)[0, 1].item() == pytest.approx(0.5 * math.exp(-4 / 2))
    # On the unit sphere they are the same patch.
    assert pseudo_labels(z, changed(settings, scale="unit"))[0, 1].item() == pytest.approx(0.5)
    # The mean of 0, 4, 4, 0 is 2, so their squared distance is 2 of it.
    mean = pseudo_labels(z, changed(settings, scale="mean"))
    assert mean[0, 1].item() == pytest.approx(0.5 * math.exp(-2 / 2))


@pytest.mark.parametrize("scale", ["unit", "mean", "none"])
def test_pseudo_labels_against_loops(scale: str) -> None:
    z = np.random.default_rng(0).normal(size=(9, 3))
    rows = z / np.linalg.norm(z, axis=1, keepdims=True) if scale == "unit" else z
    squared = np.array([[((a - b) ** 2).sum() for b in rows] for a in rows])
    if scale == "mean":
        squared = squared / squared.mean()
    # k = 5 gives neighbourhoods of 5 and, for eq. 4, of 5 // 2 = 2.
    contextual = contextual_similarity(squared, 5, k_reciprocal=2, include_self=True)
    expected = 0.3 * np.exp(-squared / 0.7) + 0.7 * contextual
    settings = changed(TrainingSettings(alpha=0.3, sigma=0.7), scale=scale)
    np.testing.assert_allclose(pseudo_labels(z, settings), expected, atol=1e-12)


def test_only_without_a_scale_do_pseudo_labels_depend_on_that_of_z() -> None:
    z = np.random.default_rng(1).normal(size=(12, 4))
    for scale, depends in (("unit", False), ("mean", False), ("none", True)):
        settings = changed(TrainingSettings(), scale=scale)
        same = np.allclose(pseudo_labels(z, settings), pseudo_labels(5 * z, settings))
        assert same is not depends


def test_pseudo_labels_of_a_batch_of_no_more_than_k_patches_and_of_equal_ones() -> None:
    settings = TrainingSettings(k=5)
    assert pseudo_labels(np.eye(2), settings).shape == (2, 2)
    for scale in ("unit", "mean", "none"):
        w = pseudo_labels(np.zeros((7, 3)), changed(settings, scale=scale))
        assert np.isfinite(w).all()


# training


def cluster_settings(patches: int) -> TrainingSettings:
    """Neighbourhoods as large as a cluster, all patches in a batch, and labels that never change.

    With γ = 1 the twin stays where it started, so every step meets the same pseudo-labels.
    """
    return TrainingSettings(
        dim=8, k=patches // 2, batch_size=patches, steps=40, learning_rate=1e-2, gamma=1.0
    )


def test_training_lowers_the_loss_of_fixed_pseudo_labels() -> None:
    p, _ = two_clusters()
    settings = cluster_settings(len(p))
    _, log = make_representation(p, "reconpatch", settings, seed=0)
    assert log is not None
    assert sum(log.loss_last) < 0.8 * sum(log.loss_first)
    # Where no step is long enough to count, the loss stays: the labels are fixed indeed.
    settings = changed(settings, learning_rate=1e-9, steps=10)
    _, still = make_representation(p, "reconpatch", settings, seed=0)
    assert still is not None
    assert sum(still.loss_last) == pytest.approx(sum(still.loss_first), rel=1e-4)


def test_training_separates_two_clusters_better_than_the_untrained_f() -> None:
    p, second = two_clusters()
    settings = cluster_settings(len(p))
    untrained, _ = make_representation(p, "untrained", settings, seed=0)
    trained, _ = make_representation(p, "reconpatch", settings, seed=0)
    assert separation(trained(p), second) > 1.5 * separation(untrained(p), second)


def test_the_log_holds_the_loss_of_the_first_and_last_tenth_and_the_movement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses: list[tuple[float, float]] = []

    def watch(z: Reals, w: Reals, margin: float) -> ContrastiveLoss:
        loss = relaxed_contrastive_loss(z, w, margin)
        losses.append((loss.pull, loss.push))
        return loss

    monkeypatch.setattr(representation, "relaxed_contrastive_loss", watch)
    p = random_patches(60, 6)
    settings = changed(SMALL, steps=20)
    start, _ = make_representation(p, "untrained", settings, seed=4)
    f, log = make_representation(p, "reconpatch", settings, seed=4)

    assert log is not None
    assert log.steps == len(losses) == 20
    assert log.loss_first == pytest.approx(np.mean(losses[:2], axis=0))
    assert log.loss_last == pytest.approx(np.mean(losses[-2:], axis=0))
    moved = np.linalg.norm(weight_of(f) - weight_of(start)) / np.linalg.norm(weight_of(start))
    assert log.movement == pytest.approx(moved, rel=1e-5)
    assert json.loads(json.dumps(log.to_dict())) == {
        "steps": 20,
        "loss_first": list(log.loss_first),
        "loss_last": list(log.loss_last),
        "movement": log.movement,
    }


def test_the_start_stays_and_progress_counts_the_steps() -> None:
    p = random_patches(40, 6)
    start = initial_weight(p, SMALL)
    before, told = start.copy(), list[tuple[int, int]]()
    f, _ = train(start, p, SMALL, seed=0, progress=lambda done, steps: told.append((done, steps)))
    np.testing.assert_array_equal(start, before)
    assert not np.array_equal(f, before)
    assert told == [(step, 5) for step in range(1, 6)]


def test_the_learning_rate_falls_along_a_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    step = AdamP.step

    def watch(optimiser: AdamP, gradients: Sequence[Floats], learning_rate: float) -> None:
        used.append(learning_rate)
        step(optimiser, gradients, learning_rate)

    monkeypatch.setattr(AdamP, "step", watch)
    make_representation(random_patches(40, 6), "reconpatch", changed(SMALL, steps=4), seed=0)
    assert used == pytest.approx(
        [1e-2, 1e-2 * (2 + math.sqrt(2)) / 4, 5e-3, 1e-2 * (2 - math.sqrt(2)) / 4]
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"include_self": False, "projection_dim": 5, "margin": 1.5, "alpha": 0.3},
        {"init": "pca", "scale": "mean", "batches": "neighbours", "k": 2},
        {"init": "identity", "scale": "none", "sigma": 50.0, "gamma": 0.9},
    ],
)
def test_a_training_goes_the_way_of_the_same_in_torch(changes: dict[str, Any]) -> None:
    """The gradients by autograd, the steps by timm's AdamP, the neighbourhoods as matrices."""
    torch_training = pytest.importorskip("reconpatch.method.torch_training")
    p = random_patches(200, 12)
    settings = changed(SMALL, **{"dim": 8, "k": 5, "batch_size": 64, "steps": 30, **changes})
    start = initial_weight(p, settings)
    told: list[int] = []
    f, log = train(start, p, settings, seed=2)
    expected, its_log = torch_training.train(
        start, p, settings, seed=2, device="cpu", progress=lambda done, _: told.append(done)
    )
    assert told == list(range(1, 31))
    moved = np.abs(f - start).max()
    assert moved > 0.03
    # Sums of float32 in another order; a neighbour taken for another would show in the third digit.
    np.testing.assert_allclose(f, expected, atol=1e-4 * moved)
    for ours, theirs in zip(log.to_dict().values(), its_log.to_dict().values(), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_training_that_diverges_is_refused() -> None:
    p = random_patches(40, 6)
    p[3, 2] = np.nan
    with pytest.raises(SettingsError, match=r"diverged with learning_rate 0\.01: give a smaller"):
        make_representation(p, "reconpatch", SMALL, seed=0)


def test_training_on_patches_that_are_all_the_same_stays_finite() -> None:
    for init, kind in itertools.product(INITS, ("random", "neighbours")):
        settings = changed(SMALL, init=init, batches=kind)
        f, log = make_representation(np.ones((40, 6), np.float32), "reconpatch", settings, seed=0)
        assert np.isfinite(weight_of(f)).all()
        assert log is not None
        assert math.isfinite(log.movement)


def test_projection_and_bias_take_the_shapes_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[list[tuple[int, ...]]] = []

    def watch(twin: Sequence[Floats], student: Sequence[Floats], gamma: float) -> None:
        shapes.append([weight.shape for weight in student])

    monkeypatch.setattr(representation, "update_twin", watch)
    p = random_patches(40, 6)
    for projection_dim, bias in ((0, True), (2, False)):
        settings = changed(SMALL, steps=1, projection_dim=projection_dim, bias=bias)
        f, _ = make_representation(p, "reconpatch", settings, seed=0)
        assert (f.bias is not None) == bias
        assert f.bias is None or not f.bias.any()  # no distance depends on it
    assert shapes == [[(4, 6), (4, 4)], [(4, 6), (2, 4)]]


# the start of f


@pytest.mark.parametrize("dim", [3, 6, 9])
def test_the_orthogonal_start_is_orthogonal(dim: int) -> None:
    weight = initial_weight(random_patches(20, 6), changed(SMALL, dim=dim))
    product = weight @ weight.T if dim <= 6 else weight.T @ weight
    np.testing.assert_allclose(product, np.eye(min(dim, 6)), atol=1e-6)


def test_a_random_orthogonal_matrix_is_the_normal_one_it_was_drawn_from_by_gram_and_schmidt() -> (
    None
):
    drawn = np.random.default_rng(4).standard_normal((3, 2))
    first = drawn[:, 0] / np.linalg.norm(drawn[:, 0])
    second = drawn[:, 1] - (drawn[:, 1] @ first) * first
    expected = np.stack([first, second / np.linalg.norm(second)], axis=1)
    found = random_orthogonal(3, 2, np.random.default_rng(4))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32


def standardised(p: Floats) -> npt.NDArray[np.float64]:
    wide = p.astype(np.float64)
    scaled: npt.NDArray[np.float64] = (wide - wide.mean(axis=0)) / wide.std(axis=0)
    return scaled


def test_principal_directions_by_hand() -> None:
    # x and y of standard deviations 2 and 5 that nearly move together: along the diagonal first.
    p = np.array([[2, 5], [-2, -5], [2, 5], [-2, -5], [2, 5], [-2, -5], [2, -5], [-2, 5]])
    directions = principal_directions(p.astype(np.float32), 2)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(np.abs(directions), [[half / 2, half / 5]] * 2, rtol=1e-5)
    assert directions[0].min() > 0.0
    assert np.sign(directions[1]).sum() == 0.0


def test_principal_directions_against_a_singular_value_decomposition() -> None:
    p = random_patches(200, 7)
    std = p.std(axis=0, dtype=np.float64)
    rows = principal_directions(p, 5) * std
    np.testing.assert_allclose(rows @ rows.T, np.eye(5), atol=1e-5)
    _, values, expected = np.linalg.svd(standardised(p))
    assert np.diff(values).max() < -0.1  # no two directions are interchangeable
    np.testing.assert_allclose(np.abs((rows * expected[:5]).sum(axis=1)), np.ones(5), atol=1e-4)


def test_all_principal_components_keep_the_distances_of_standardised_features() -> None:
    p = random_patches(50, 6)
    r = p @ principal_directions(p, 6).T
    s = standardised(p)
    kept = np.linalg.norm(r[:, None] - r[None, :], axis=2)
    expected = np.linalg.norm(s[:, None] - s[None, :], axis=2)
    np.testing.assert_allclose(kept, expected, atol=1e-4)


def test_the_sign_of_a_principal_direction_is_that_of_its_largest_entry() -> None:
    p = random_patches(100, 5)
    rows = principal_directions(p, 5) * p.std(axis=0)
    assert (rows[np.arange(5), np.abs(rows).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize("value", [0.0, 0.3, -1e4])
@pytest.mark.parametrize("dim", [3, 6])
def test_a_constant_feature_gets_no_weight(value: float, dim: int) -> None:
    p = random_patches(1000, 6)
    p[:, 2] = value
    directions = principal_directions(p, dim)
    assert (directions[:, 2] == 0.0).all()
    varying = [0, 1, 3, 4, 5]
    expected = principal_directions(p[:, varying], dim)
    kept = directions[: len(expected)][:, varying]
    np.testing.assert_allclose(np.abs(kept), np.abs(expected), atol=1e-4)


def test_a_pca_start_of_more_dimensions_than_features_is_filled_with_zeros() -> None:
    p = random_patches(50, 6)
    weight = initial_weight(p, changed(SMALL, dim=9, init="pca"))
    np.testing.assert_array_equal(weight[:6], principal_directions(p, 6))
    assert (weight[6:] == 0.0).all()


@pytest.mark.parametrize(("dim", "rows"), [(4, 4), (0, 6), (6, 6), (9, 6)])
def test_the_identity_start_takes_the_features_as_they_are(dim: int, rows: int) -> None:
    p = random_patches(50, 6)
    settings = changed(SMALL, dim=dim, init="identity")
    f, _ = make_representation(p, "untrained", settings, seed=0)
    np.testing.assert_array_equal(f(p)[:, :rows], p[:, :rows])
    assert f(p).shape == (50, dim or 6)
    assert (f(p)[:, rows:] == 0.0).all()


@pytest.mark.parametrize("init", INITS)
def test_no_dimensions_asked_for_are_as_many_as_the_features_have(init: Init) -> None:
    f, _ = make_representation(
        random_patches(50, 6), "reconpatch", changed(SMALL, dim=0, init=init), seed=0
    )
    assert weight_of(f).shape == (6, 6)


# batches


def take(p: Floats, settings: TrainingSettings, n: int) -> Iterator[npt.NDArray[np.int64]]:
    return itertools.islice(batches(p, settings, np.random.default_rng(0)), n)


@pytest.mark.parametrize(("patches", "size"), [(40, 16), (48, 16), (16, 16), (31, 16)])
def test_a_random_pass_meets_each_patch_at_most_once(patches: int, size: int) -> None:
    settings = changed(SMALL, batch_size=size)
    per_pass = patches // size
    drawn = list(take(np.zeros((patches, 2), np.float32), settings, 3 * per_pass))
    passes = [np.concatenate(drawn[i : i + per_pass]) for i in range(0, len(drawn), per_pass)]
    assert [len(met) for met in passes] == [per_pass * size] * 3
    for met in passes:
        assert len(set(met.tolist())) == len(met)
        assert set(met.tolist()) <= set(range(patches))
    assert not np.array_equal(passes[0], passes[1])


@pytest.mark.parametrize("kind", ["random", "neighbours"])
@pytest.mark.parametrize("patches", [4, 7, 8, 15])
@pytest.mark.parametrize("pool_size", [2, 16384])
def test_fewer_patches_than_a_batch_holds_are_taken_whole(
    kind: str, patches: int, pool_size: int
) -> None:
    settings = changed(SMALL, batches=kind, companions=7, pool_size=pool_size)
    for batch in take(random_patches(patches, 3), settings, 4):
        assert sorted(batch.tolist()) == list(range(patches))


def with_all_companions(p: Floats, batch: npt.NDArray[np.int64], companions: int) -> list[int]:
    """The patches of a batch whose nearest others, found one by one, are all in it too."""
    squared = ((p[:, None].astype(np.float64) - p[None, :]) ** 2).sum(axis=2)
    np.fill_diagonal(squared, -1.0)
    nearest = np.argsort(squared, axis=1)[:, : 1 + companions]
    members = set(batch.tolist())
    return [i for i in members if set(nearest[i].tolist()) <= members]


@pytest.mark.parametrize(
    ("size", "companions", "seeds"), [(12, 3, 3), (10, 3, 2), (16, 7, 2), (8, 20, 1), (6, 1, 3)]
)
def test_neighbour_batches_hold_seeds_and_their_true_neighbours(
    size: int, companions: int, seeds: int
) -> None:
    p = np.random.default_rng(2).normal(size=(60, 4)).astype(np.float32)
    settings = changed(SMALL, batch_size=size, batches="neighbours", companions=companions)
    per_pass = len(p) // seeds
    drawn = list(take(p, settings, per_pass))
    # A batch too small for a seed with all its companions holds as many as there is room for.
    reachable = min(companions, size - 1)
    complete = [with_all_companions(p, batch, reachable) for batch in drawn]
    for batch, whole in zip(drawn, complete, strict=True):
        assert len(set(batch.tolist())) == len(batch) == size
        assert len(whole) >= seeds
    # Each patch is a seed once in a pass.
    assert set(itertools.chain.from_iterable(complete)) == set(range(60))

    by_chance = take(p, changed(settings, batches="random"), 5)
    assert min(len(with_all_companions(p, batch, reachable)) for batch in by_chance) < seeds


def test_a_seed_stays_in_its_batch_among_any_number_of_duplicates() -> None:
    p = np.repeat(random_patches(4, 3), 15, axis=0)
    settings = changed(SMALL, batch_size=12, batches="neighbours", companions=3)
    drawn = list(take(p, settings, 20))
    for batch in drawn:
        assert len(set(batch.tolist())) == len(batch) == 12
    assert set(np.concatenate(drawn).tolist()) == set(range(60))


def test_neighbours_are_searched_in_a_pool_that_is_drawn_anew_every_pass() -> None:
    p = random_patches(200, 3)
    settings = changed(
        SMALL, batch_size=10, batches="neighbours", companions=4, pool_size=20, k=3
    )  # 2 seeds a batch, 10 batches a pass
    drawn = list(take(p, settings, 20))
    first, second = (set(np.concatenate(part).tolist()) for part in (drawn[:10], drawn[10:]))
    assert len(first) == len(second) == 20
    assert first != second


# settings


def test_total_steps_by_hand() -> None:
    settings = TrainingSettings(epochs=3, batch_size=100)
    assert settings.total_steps(1000) == 30
    assert settings.total_steps(1001) == 30  # a pass is of whole batches
    assert settings.total_steps(7) == 3
    assert changed(settings, steps=17).total_steps(1000) == 17
    assert changed(settings, epochs=0).total_steps(1000) == 0


REFUSED: dict[str, tuple[Any, ...]] = {
    "dim": (-1, math.nan),
    "projection_dim": (-1,),
    "init": ("random", ""),
    "relevant_power": (-0.1, 2.1, math.nan),
    "relevant_shrink": (-0.1, 1.1, math.nan),
    "basis": (-1,),
    "contrast_power": (-0.1, 1.1, math.nan),
    "contrast_gain": (-0.1, 1.1, math.nan),
    "contrast_shrink": (0, 1.1, math.nan),
    "contrast_share": (0, 101, math.nan),
    "made": (0,),
    "epochs": (-1,),
    "steps": (-1,),
    "batch_size": (1, 0),
    "batches": ("sorted",),
    "companions": (0,),
    "pool_size": (1,),
    "learning_rate": (0, -1e-5, 10, math.nan, math.inf),
    "weight_decay": (-1e-9, 1, math.nan),
    "k": (0, 1024),
    "alpha": (-0.01, 1.01, math.nan),
    "sigma": (0, -1, math.nan, math.inf),
    "scale": ("max",),
    "margin": (0, -1, math.nan, math.inf),
    "gamma": (-0.1, 1.1, math.nan),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values]
)
def test_a_value_out_of_its_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is .*: give "):
        changed(TrainingSettings(), **{name: value})


def test_every_setting_but_the_switches_has_a_range() -> None:
    switches = {"bias", "include_self"}
    assert set(REFUSED) | switches == set(TrainingSettings().to_dict())


@pytest.mark.parametrize(
    "allowed",
    [
        {"dim": 0, "projection_dim": 0, "epochs": 0, "steps": 0, "companions": 1, "pool_size": 2},
        {"batch_size": 2, "k": 1},
        {"k": 1023},
        {"alpha": 0.0, "gamma": 0.0, "weight_decay": 0.0},
        {"init": "relevant_components", "relevant_power": 0.0, "relevant_shrink": 1.0},
        {"alpha": 1.0, "gamma": 1.0, "weight_decay": 0.999, "learning_rate": 9.9},
    ],
)
def test_the_ends_of_the_ranges_are_allowed(allowed: dict[str, Any]) -> None:
    settings = changed(TrainingSettings(), **allowed)
    assert {name: settings.to_dict()[name] for name in allowed} == allowed
