"""f in closed form against made defects, beside loops over patches and numbers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reconpatch.method import contrastive_components as cc
from reconpatch.method.contrastive_components import (
    NO_PART,
    Contrast,
    ContrastiveComponents,
    DefectPatches,
    Moments,
    confirmed_share,
    contrastive_components,
    principal_basis,
)
from reconpatch.method.representation import TrainingSettings, make_representation


def rng(seed=0):
    return np.random.default_rng(seed)


def normal(shape, seed):
    return rng(seed).standard_normal(shape).astype(np.float32)


def moments_of(*photos):
    found = Moments(photos[0].shape[-1])
    for features in photos:
        found.add(features)
    return found


# Moments


def test_moments_by_hand():
    # Patches 1, 3 and 5, 7: mean (3, 5); deviations (-2, -2), (2, 2).
    found = moments_of(np.array([[[1, 3]]], np.float32), np.array([[[5, 7]]], np.float32))
    np.testing.assert_allclose(found.mean, [3, 5])
    np.testing.assert_allclose(found.covariance, [[4, 4], [4, 4]])


def test_moments_of_photos_are_those_of_all_their_patches():
    photos = [normal((2, 5, 4), seed=0), normal((1, 7, 4), seed=1)]
    flat = np.concatenate([p.reshape(-1, 4) for p in photos]).astype(np.float64)
    found = moments_of(*photos)
    np.testing.assert_allclose(found.mean, flat.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.covariance, np.cov(flat.T, bias=True), atol=1e-5)


def test_far_from_the_origin_no_digits_are_lost():
    near = normal((1, 500, 3), seed=2) * np.float32([1, 0.1, 0])
    far = moments_of(near + np.float32(4096))  # at which floats are 2 ** -11 apart
    assert far.mean[0] == pytest.approx(4096 + near[0, :, 0].mean(dtype=np.float64), abs=1e-3)
    expected = np.cov(near[0].astype(np.float64).T, bias=True)
    np.testing.assert_allclose(far.covariance, expected, atol=1e-3)
    assert not far.covariance[2].any(), "a channel that is the same everywhere has no variance"


def test_moments_of_nothing_are_zero():
    found = Moments(2)
    assert not found.mean.any()
    assert not found.covariance.any()


# principal_basis


BLOCKS = [(3, False), (2, True), (4, False), (3, True)]
OUTPUT = np.repeat([output for _, output in BLOCKS], [channels for channels, _ in BLOCKS])


def some_features(n=300, seed=3):
    """(n, 12) correlated features, away from the origin, whose blocks differ widely in scale."""
    mixed = normal((n, 12), seed) @ normal((12, 12), seed + 1)
    return (5 + mixed * np.repeat(np.float32([1, 40, 0.1, 3]), [3, 2, 4, 3])).astype(np.float32)


def scaled_blocks(features):
    """Features around their mean, each block of channels divided by its own deviation in all."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    start = 0
    for channels, _ in BLOCKS:
        block = centred[:, start : start + channels]
        block /= np.sqrt((block**2).sum(axis=1).mean())
        start += channels
    return centred


def basis_of(features, dim, outputs):
    return principal_basis(moments_of(features[None]), BLOCKS, dim, outputs)


def test_the_principal_basis_is_that_of_a_singular_value_decomposition():
    features = some_features()
    basis = basis_of(features, dim=5, outputs=3)
    assert {part.dtype for part in basis} == {np.dtype(np.float32)}
    scaled = scaled_blocks(features)
    _, _, directions = np.linalg.svd(scaled, full_matrices=False)
    coordinates = features @ basis.weight.T + basis.bias
    expected = scaled @ directions[:5].T
    signs = np.sign((coordinates * expected).sum(axis=0))  # those of the decomposition are any
    np.testing.assert_allclose(coordinates, expected * signs, atol=2e-3)


def test_all_directions_keep_the_distances_of_the_scaled_features():
    features = some_features(40)
    basis = basis_of(features, dim=12, outputs=2)
    coordinates, scaled = features @ basis.weight.T + basis.bias, scaled_blocks(features)
    for i in range(1, 40):
        expected = np.linalg.norm(scaled[i] - scaled[0])
        assert np.linalg.norm(coordinates[i] - coordinates[0]) == pytest.approx(expected, rel=1e-3)


def test_the_outputs_directions_are_those_of_the_outputs_alone():
    features = some_features()
    basis = basis_of(features, dim=12, outputs=3)
    scaled = scaled_blocks(features)[:, OUTPUT]
    _, _, directions = np.linalg.svd(scaled, full_matrices=False)
    found = (features @ basis.weight.T + basis.bias) @ basis.outputs.T
    expected = scaled @ directions[:3].T
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=2e-3)


def test_a_level_counts_the_same_whatever_the_size_of_its_numbers():
    features = some_features()
    larger = features.copy()
    larger[:, 3:5] *= 1000
    one, other = (f @ b.weight.T + b.bias for f in (features, larger) for b in [basis_of(f, 4, 2)])
    np.testing.assert_allclose(np.abs(other), np.abs(one), atol=5e-3)


def test_a_block_that_never_changes_gets_no_weight():
    features = some_features()
    features[:, 5:9] = 7.7
    basis = basis_of(features, dim=8, outputs=5)
    assert not basis.weight[:, 5:9].any()
    assert all(np.isfinite(part).all() for part in basis)


def test_fewer_output_channels_than_directions_leave_zeros():
    basis = basis_of(some_features(), dim=12, outputs=6)
    assert basis.outputs.shape == (6, 12)
    assert basis.outputs[:5].any(axis=1).all()
    assert not basis.outputs[5:].any()


def test_signs_do_not_depend_on_the_decomposition(monkeypatch):
    features, eigh = some_features(), np.linalg.eigh
    one = basis_of(features, 4, 2)

    def turned_round(matrix):
        values, vectors = eigh(matrix)
        return values, -vectors

    monkeypatch.setattr(np.linalg, "eigh", turned_round)
    for found, expected in zip(basis_of(features, 4, 2), one, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


# contrastive_components


def slow_nearest(patch, part, rows, parts):
    """The row of another part that is nearest to a patch."""
    others = [j for j in range(len(rows)) if parts[j] != part]
    return rows[min(others, key=lambda j: float(((patch - rows[j]) ** 2).sum()))]


def slow_moment(differences):
    found = np.zeros((differences[0].shape[0],) * 2)
    for d in differences:
        found += np.outer(d, d)
    return found / len(differences)


def slow_good(patches, parts):
    """C_g by loops, all patches searched among all."""
    x = patches.astype(np.float64)
    return slow_moment(
        [p - slow_nearest(p, part, x, parts) for p, part in zip(x, parts, strict=True)]
    )


def slow_pushed(defects, patches, parts, *, energy=None):
    """C_d by loops: every defect counts the same, however many patches it covers.

    With an energy, however faint it is as well.
    """
    x = patches.astype(np.float64)
    of_each = [
        slow_moment([p - slow_nearest(p, d.part, x, parts) for p in d.features.astype(np.float64)])
        for d in defects
    ]
    if energy is not None:
        of_each = [energy * moment / np.trace(moment) for moment in of_each]
    return sum(of_each) / len(defects)


def slow_distance(weight, patches, parts):
    """Mean distance of a patch to its nearest on another part, after f."""
    x = patches.astype(np.float64) @ weight.T.astype(np.float64)
    return np.mean(
        [
            np.linalg.norm(p - slow_nearest(p, part, x, parts))
            for p, part in zip(x, parts, strict=True)
        ]
    )


def a_case(n=90, k=6, seed=4):
    """Patches of five parts, and defects of one, two, ... patches away from them."""
    patches = normal((n, k), seed) * np.float32([3, 2.5, 2, 1.5, 1, 0.5])[:k]
    parts = rng(seed + 1).integers(0, 5, n)
    defects = [
        DefectPatches(normal((i + 1, k), seed + 2 + i) * 4 + np.float32(1), i % 5) for i in range(6)
    ]
    return patches, parts, defects


DEFAULTS = {"power": 0.25, "gain": 0.25, "shrink": 0.05, "share": 0.5}


def components(patches, parts, defects, dim, outputs=None, seed=0, **changes):
    k = patches.shape[1]
    outputs = np.eye(k, dtype=np.float32)[:1] if outputs is None else outputs
    return contrastive_components(
        patches, parts, Contrast(defects, outputs), dim=dim, rng=rng(seed), **DEFAULTS | changes
    )


def test_f_keeps_what_defects_differ_in_and_forgets_what_good_patches_do():
    # Good patches of two parts differ along axis 1 alone; defects differ from them along axis 2.
    shared = 50 * normal((200, 1), seed=0)
    patches = np.concatenate([np.c_[shared, 5 * normal((200, 1), seed), 0.1 * normal((200, 1), 9)]
                              for seed in (1, 2)])  # fmt: skip
    parts = np.repeat([0, 1], 200)
    defects = [DefectPatches(patches[i : i + 3] + np.float32([0, 0, 4]), 0) for i in range(20)]
    f = components(patches, parts, defects, dim=2, power=0.5)
    assert f.shape == (2, 3)
    np.testing.assert_allclose(f[0] / np.linalg.norm(f[0]), [1, 0, 0], atol=1e-6)  # the outputs
    assert abs(f[1, 2]) > 20 * abs(f[1, 1])


@pytest.mark.parametrize("block", [1, 7, 1024])
@pytest.mark.parametrize("power", [0.0, 0.25, 0.5])
def test_components_are_those_of_the_loops(monkeypatch, block, power):
    monkeypatch.setattr(cc, "_BLOCK", block)
    patches, parts, defects = a_case()
    f = components(patches, parts, defects, dim=4, power=power)[1:].astype(np.float64)
    good, pushed = slow_good(patches, parts), slow_pushed(defects, patches, parts)
    shrunk = 0.95 * good + 0.05 * np.eye(6) * np.trace(good) / 6
    values, vectors = np.linalg.eigh(shrunk)
    root = vectors @ np.diag(values**-power) @ vectors.T
    values, vectors = np.linalg.eigh(root @ pushed @ root)
    for row, value, vector in zip(f, values[::-1][:3], vectors.T[::-1][:3], strict=True):
        expected = (value / values[-1]) ** 0.25 * (vector @ root)
        expected *= np.linalg.norm(f[0]) / np.linalg.norm(vectors[:, -1] @ root)  # on one scale
        np.testing.assert_allclose(row, expected * np.sign(row @ expected), atol=1e-4)


def test_half_a_power_is_the_generalised_eigenvalue_problem():
    # Before the gain F C_g F' is the identity, and F C_d F' has falling values on its diagonal.
    patches, parts, defects = a_case()
    f = components(patches, parts, defects, dim=7, power=0.5, gain=0.0, shrink=1e-6)[1:]
    f = f.astype(np.float64)
    good = f @ slow_good(patches, parts) @ f.T
    np.testing.assert_allclose(good / good[0, 0], np.eye(6), atol=1e-3)
    pushed = f @ slow_pushed(defects, patches, parts) @ f.T
    values = np.diag(pushed)
    np.testing.assert_allclose(pushed, np.diag(values), atol=1e-3 * values[0])
    assert (np.diff(values) < 0).all()


def test_the_gain_scales_each_component_by_its_eigenvalue():
    patches, parts, defects = a_case()
    plain, scaled = (
        components(patches, parts, defects, dim=7, power=0.5, gain=gain, shrink=1e-6)[1:]
        for gain in (0.0, 1.0)
    )
    ratio = np.linalg.norm(scaled, axis=1) / np.linalg.norm(plain, axis=1)
    values = np.diag(plain @ slow_pushed(defects, patches, parts) @ plain.T)
    np.testing.assert_allclose(ratio / ratio[0], values / values[0], rtol=1e-3)


@pytest.mark.parametrize("share", [0.5, 3.0])
def test_the_halves_are_on_one_scale(share):
    patches, parts, defects = a_case()
    outputs = 17 * normal((2, 6), seed=8)
    f = components(patches, parts, defects, dim=5, outputs=outputs, share=share)
    assert slow_distance(f[:2], patches, parts) == pytest.approx(1.0, rel=1e-4)
    assert slow_distance(f[2:], patches, parts) == pytest.approx(share, rel=1e-4)
    np.testing.assert_allclose(f[:2] / f[0, 0], outputs / outputs[0, 0], rtol=1e-4)


def test_every_defect_counts_the_same():
    patches, parts, (one, *_) = a_case()
    other = DefectPatches(np.float32([[0, 0, 0, 0, 0, 9]]), 1)
    many = replace(other, features=np.repeat(other.features, 50, axis=0))
    few, crowd = (components(patches, parts, [one, d], dim=3) for d in (other, many))
    np.testing.assert_allclose(np.abs(crowd), np.abs(few), atol=1e-5)


def test_a_defect_is_compared_with_other_parts_than_its_own():
    # The defect lies on a patch of its own part; its nearest on the other part is 6 along axis 2.
    patches = np.float32([[0, 0], [1, 0], [0, 6], [1, 6]])
    parts = np.array([0, 0, 1, 1])
    defects = [DefectPatches(np.float32([[0, 0]]), 0)]
    f = components(patches, parts, defects, dim=2, power=0.0)
    np.testing.assert_allclose(np.abs(f[1] / f[1, 1]), [0, 1], atol=1e-6)


def test_no_scale_of_the_patches_matters():
    patches, parts, defects = a_case()
    larger = [replace(d, features=d.features * np.float32(100)) for d in defects]
    one = components(patches, parts, defects, dim=4)
    other = components(patches * np.float32(100), parts, larger, dim=4)
    np.testing.assert_allclose(np.abs(other) * 100, np.abs(one), rtol=1e-3, atol=1e-5)


def test_the_same_seed_gives_the_same_weight_and_more_patches_are_drawn_from(monkeypatch):
    monkeypatch.setattr(cc, "PATCHES", 60)
    monkeypatch.setattr(cc, "ROWS", 20)
    case = a_case()
    one = components(*case, dim=4, seed=3)
    np.testing.assert_array_equal(components(*case, dim=4, seed=3), one)
    assert not np.array_equal(components(*case, dim=4, seed=4), one)
    assert one.shape == (4, 6)
    assert one.dtype == np.float32


def test_rows_of_one_part_alone_are_given_one_of_another(monkeypatch):
    monkeypatch.setattr(cc, "ROWS", 1)
    patches, parts = np.float32([[0, 0], [3, 4]]), np.array([0, 1])
    for seed in range(4):
        found = cc._OtherParts.of(patches, parts, np.arange(2), rng(seed))
        assert sorted(found.parts.tolist()) == [0, 1]
        np.testing.assert_array_equal(found.differences(patches, parts), [[-3, -4], [3, 4]])
        np.testing.assert_allclose(found.mean_distance(patches, parts, np.eye(2)), 5.0)


def test_copies_leave_fewer_rows_than_were_wanted():
    patches = np.repeat(np.float32([[0, 0], [3, 4], [6, 8]]), 20, axis=0)
    parts = np.arange(60) % 2
    found = cc._OtherParts.of(patches, parts, np.arange(60), rng())
    assert len(found.rows) <= 4
    f = components(patches, parts, [DefectPatches(np.float32([[1, 9]]), 0)], dim=2)
    assert np.isfinite(f).all()


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("moved", [0.0, 2.0])
def test_good_patches_that_are_all_the_same_leave_nothing_to_forget(power, moved):
    patches = np.full((40, 3), 0.5, np.float32)
    defects = [DefectPatches(patches[:2] + np.float32([0, moved, 0]), 0)]
    f = components(patches, np.arange(40) % 4, defects, dim=2, power=power)
    assert np.isfinite(f).all()
    assert np.abs(f).max() <= 1.0
    distance = np.linalg.norm(f[1:] @ np.float32([0, moved, 0]))
    assert distance == pytest.approx(0.5 * moved, rel=1e-5)


def test_more_dimensions_than_directions_are_those_there_are():
    patches, parts, defects = a_case()
    assert components(patches, parts, defects, dim=40).shape == (1 + 6, 6)


# Confirmed defects


def confirmed_case(count, seed=40):
    return [DefectPatches(normal((i + 2, 6), seed + i) * 3 - 1, NO_PART) for i in range(count)]


def test_the_share_of_confirmed_defects_grows_with_their_number():
    shares = [confirmed_share(n) for n in (0, 1, 8, 24, 10**6)]
    assert shares == [0.0, 1 / 9, 0.5, 0.75, pytest.approx(1.0, abs=1e-4)]


@pytest.mark.parametrize("count", [1, 4])
def test_confirmed_defects_are_mixed_in_by_their_share(count):
    patches, parts, defects = a_case()
    confirmed = confirmed_case(count)
    contrast = Contrast(defects, np.eye(6, dtype=np.float32)[:1], confirmed)
    f = contrastive_components(
        patches, parts, contrast, dim=7, rng=rng(), **DEFAULTS | {"power": 0.5, "shrink": 1e-6}
    )[1:]
    share = count / (count + 8)
    made = slow_pushed(defects, patches, parts)
    pushed = (1 - share) * made / np.trace(made)
    pushed = pushed + slow_pushed(confirmed, patches, parts, energy=share)
    # Generalised eigenvectors of the mixture: both of its moments are diagonal after f.
    for moment in (pushed, slow_good(patches, parts)):
        after = f @ moment @ f.T
        size = np.sqrt(np.outer(np.diag(after), np.diag(after)))
        np.testing.assert_allclose(after / size, np.eye(6), atol=2e-3)
    made_alone = slow_pushed(defects, patches, parts)  # which the same f does not make diagonal
    after = f @ made_alone @ f.T
    assert np.abs(after / np.sqrt(np.outer(np.diag(after), np.diag(after))) - np.eye(6)).max() > 0.1


def test_confirmed_defects_alone_are_learned_from_where_made_ones_show_nothing():
    patches, parts, _ = a_case()
    nothing = DefectPatches(patches[:1].copy(), 1 if parts[0] == 0 else 0)
    outputs, confirmed = np.eye(6, dtype=np.float32)[:1], confirmed_case(3)
    one, other = (
        contrastive_components(
            patches, parts, Contrast(made, outputs, confirmed), dim=4, rng=rng(), **DEFAULTS
        )
        for made in ([], [nothing])
    )
    assert not np.allclose(one, components(patches, parts, [], dim=4))
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_one_search_serves_several_contrasts():
    patches, parts, defects = a_case()
    outputs, confirmed = np.eye(6, dtype=np.float32)[:1], confirmed_case(3)
    of_patches = ContrastiveComponents(patches, parts, dim=4, rng=rng(), **DEFAULTS)
    for known in (confirmed, [], confirmed[1:]):
        contrast = Contrast(defects, outputs, known)
        alone = contrastive_components(patches, parts, contrast, dim=4, rng=rng(), **DEFAULTS)
        np.testing.assert_array_equal(of_patches(contrast), alone)


# What a fit makes of it


def settings(**changes):
    values = {"dim": 4, "basis": 6, "init": "contrastive", "epochs": 0, "bias": False}
    return TrainingSettings(**values | changes)


def test_f_is_what_the_settings_say_and_untrained_its_principal_half():
    patches, parts, defects = a_case()
    contrast = Contrast(defects, np.eye(6, dtype=np.float32)[:2])
    f, log = make_representation(
        patches, "reconpatch", settings(), seed=3, parts=parts, contrast=contrast
    )
    expected = components(patches, parts, defects, dim=4, outputs=contrast.outputs, seed=3,
                          share=settings().contrast_share)  # fmt: skip
    np.testing.assert_array_equal(f.weight, expected)
    assert log is not None
    assert log.steps == 0
    bare, log = make_representation(
        patches, "untrained", settings(), seed=3, parts=parts, contrast=contrast
    )
    np.testing.assert_array_equal(bare.weight, contrast.outputs)
    assert log is None


def test_steps_of_the_loss_start_from_there():
    patches, parts, defects = a_case()
    contrast = Contrast(defects, np.eye(6, dtype=np.float32)[:2])
    given = {"parts": parts, "contrast": contrast, "seed": 3}
    f, log = make_representation(patches, "reconpatch", settings(steps=3, batch_size=32), **given)
    start, _ = make_representation(patches, "reconpatch", settings(), **given)
    assert log is not None
    assert log.steps == 3
    assert 0 < np.abs(f.weight - start.weight).max() < 0.01
