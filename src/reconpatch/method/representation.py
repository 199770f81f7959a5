"""The learned representation: r = f(p), trained by relaxed contrastive learning (eq. 1 to 8).

                 ┌── f ── g ──────────── z ──┐
    patches p ───┤                           ├── relaxed contrastive loss (7) ── AdamP ──> f, g
                 └── f̄ ── ḡ ── z̄ ── w (1-6) ─┘
                     └── θ̄ <- γ θ̄ + (1 - γ) θ (8)

f and g are linear. After training only f is kept.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from reconpatch.errors import NotEnoughPhotosError, SettingsError
from reconpatch.method.adamp import AdamP
from reconpatch.method.contrastive_components import Contrast, contrastive_components
from reconpatch.method.loss import relaxed_contrastive_loss
from reconpatch.method.relevant_components import relevant_components, signed
from reconpatch.method.similarity import (
    Reals,
    contextual_similarity,
    mixed_similarity,
    pairwise_similarity,
    squared_distances,
)

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]
Method = Literal["reconpatch", "untrained", "patchcore"]
Init = Literal["orthogonal", "pca", "identity", "relevant_components", "contrastive"]
INITS: tuple[Init, ...] = typing.get_args(Init)
METHODS: tuple[Method, ...] = ("reconpatch", "untrained", "patchcore")


@dataclass(frozen=True, eq=False)
class Representation:
    """f as it is stored and applied: r = p Wᵀ + c, or r = p + c where there is no W (PatchCore).

    No distance depends on c; a fit chooses it so that the good patches' mean is the origin.

    Attributes:
        weight: (D, C) float32, or None for the identity.
        bias: (D,) float32, or None for none.
    """

    weight: Floats | None = None
    bias: Floats | None = None

    def __call__(self, p: Floats) -> Floats:
        """Represent patch features: (..., C) float32 -> (..., D) float32."""
        r = p if self.weight is None else p @ self.weight.T
        return r if self.bias is None else r + self.bias

    def after(self, first: Representation) -> Representation:
        """Compose with another representation: p to self(first(p)), summed in float64."""
        weight, bias = first.weight, first.bias
        if self.weight is not None:
            weight = self.weight
            if first.weight is not None:
                weight = (weight.astype(np.float64) @ first.weight).astype(np.float32)
            if bias is not None:
                bias = (self.weight.astype(np.float64) @ bias).astype(np.float32)
        if bias is None or self.bias is None:
            return Representation(weight, self.bias if bias is None else bias)
        return Representation(weight, bias + self.bias)


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of f. What the paper does not say is a parameter here; see docs/method.md.

    Attributes:
        dim: D, dimensions of r = f(p); 0 takes C, those of p.
        projection_dim: dimensions of z = g(r); 0 takes D. [not said]
        bias: whether f and g have a bias; no step moves it from 0. [not said]
        init: what f starts from. "orthogonal": a random (semi-)orthogonal matrix; "pca": the
            leading principal directions of the standardised patch features; "identity": the
            first D of p's own dimensions, so that training starts at PatchCore;
            "relevant_components": the directions in which a patch and the nearest one on another
            part differ are made small, see `reconpatch.method.relevant_components`;
            "contrastive": half of D principal directions of the levels' outputs, half directions in
            which made defects differ from good patches and good patches from one another do not,
            see `reconpatch.method.contrastive_components`. [not said]
        basis: leading principal directions of p, all levels on one scale, in which f is learned;
            0 for p itself. "contrastive" needs some.
        contrast_power: how far "contrastive" whitens what good patches differ in, 0 to 1: 0.5
            whitens their differences.
        contrast_gain: how much more the strongest contrastive components count, 0 for not at all.
        contrast_shrink: share of the identity in the differences' second moment.
        contrast_share: how much the contrastive half counts beside the principal one, in distances
            of good patches.
        made: defects made on the good photos for "contrastive" to learn from.
        relevant_power: how far "relevant_components" goes: 0 is the identity, 1 whitens those
            differences.
        relevant_shrink: share of the identity in their covariance, of the same trace.
        epochs: passes over all patches; with `steps` above 0, it is the steps that count.
        steps: optimiser steps in all; 0 leaves it to the epochs.
        batch_size: N, patches in a batch. [not said]
        batches: "random": N patches drawn from all; "neighbours": N / (1 + companions) patches,
            each with its nearest in a pool, so that the contextual similarity meets true
            neighbours. [not said]
        companions: nearest patches drawn with each patch, in "neighbours" batches.
        pool_size: patches among which those are searched, drawn anew every pass.
        learning_rate, weight_decay: of AdamP; the rate falls along a cosine to 0.
        k: size of the neighbourhoods of eq. 2; those of eq. 4 take k // 2.
        include_self: whether a patch counts among its own k neighbours. [not said]
        alpha: α of eq. 6.
        sigma: σ of eq. 1, in the units that `scale` leaves. [not said]
        scale: "unit": each z̄ is L2-normalised; "mean": squared distances are divided by their
            mean over the batch; "none": as they come. [not said]
        margin: m of eq. 7.
        gamma: γ of eq. 8. [not said]
    """

    dim: int = 512
    projection_dim: int = 0
    bias: bool = True
    init: Init = "orthogonal"
    relevant_power: float = 0.5
    relevant_shrink: float = 0.02
    basis: int = 0
    contrast_power: float = 0.25
    contrast_gain: float = 0.25
    contrast_shrink: float = 0.05
    contrast_share: float = 1.0
    made: int = 512
    epochs: int = 120
    steps: int = 0
    batch_size: int = 1024
    batches: Literal["random", "neighbours"] = "random"
    companions: int = 7
    pool_size: int = 16384
    learning_rate: float = 1e-5
    weight_decay: float = 1e-2
    k: int = 5
    include_self: bool = True
    alpha: float = 0.5
    sigma: float = 1.0
    scale: Literal["unit", "mean", "none"] = "unit"
    margin: float = 1.0
    gamma: float = 0.999

    def __post_init__(self) -> None:
        _check(self.dim >= 0, "dim", self.dim, "0 (as many as the patch features) or more")
        _check(
            self.projection_dim >= 0, "projection_dim", self.projection_dim, "0 (as dim) or more"
        )
        _check(self.epochs >= 0, "epochs", self.epochs, "0 or more passes over all patches")
        _check(self.steps >= 0, "steps", self.steps, "0 (let the epochs decide) or more steps")
        _check(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more patches")
        _check(self.companions >= 1, "companions", self.companions, "1 or more patches")
        _check(self.pool_size >= 2, "pool_size", self.pool_size, "2 or more patches")
        _check(1 <= self.k < self.batch_size, "k", self.k, "1 to batch_size - 1 neighbours")
        _check(
            0 < self.learning_rate < 10,
            "learning_rate",
            self.learning_rate,
            "a number above 0 and below 10",
        )
        _check(0 <= self.weight_decay < 1, "weight_decay", self.weight_decay, "0 or more, below 1")
        _check(0 <= self.alpha <= 1, "alpha", self.alpha, "0 to 1")
        _check(0 < self.sigma < math.inf, "sigma", self.sigma, "a finite number above 0")
        _check(0 < self.margin < math.inf, "margin", self.margin, "a finite number above 0")
        _check(0 <= self.gamma <= 1, "gamma", self.gamma, "0 to 1")
        _check(
            self.init in INITS,
            "init",
            self.init,
            f"{', '.join(INITS[:-1])} or {INITS[-1]}",
        )
        _check(self.basis >= 0, "basis", self.basis, "0 (p itself) or more principal directions")
        if self.init == "contrastive":
            _check(self.dim >= 2, "dim", self.dim, "2 or more, half of them contrastive")
            _check(self.basis >= self.dim, "basis", self.basis, f"dim ({self.dim}) or more")
        _check(self.made >= 1, "made", self.made, "1 or more made defects to learn from")
        _check(0 <= self.contrast_power <= 1, "contrast_power", self.contrast_power, "0 to 1")
        _check(0 <= self.contrast_gain <= 1, "contrast_gain", self.contrast_gain, "0 to 1")
        _check(0 < self.contrast_shrink <= 1, "contrast_shrink", self.contrast_shrink, "0 to 1")
        _check(0 < self.contrast_share <= 100, "contrast_share", self.contrast_share, "0 to 100")
        _check(0 <= self.relevant_power <= 2, "relevant_power", self.relevant_power, "0 to 2")
        _check(0 <= self.relevant_shrink <= 1, "relevant_shrink", self.relevant_shrink, "0 to 1")
        _check(self.scale in ("unit", "mean", "none"), "scale", self.scale, "unit, mean or none")
        _check(
            self.batches in ("random", "neighbours"),
            "batches",
            self.batches,
            "random or neighbours",
        )

    @property
    def principal(self) -> int:
        """How many of the D dimensions "contrastive" takes from principal directions."""
        return self.dim // 2

    def total_steps(self, patches: int) -> int:
        """Optimiser steps for this many training patches; a pass is of whole batches."""
        return self.steps or self.epochs * (patches // min(self.batch_size, patches))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class TrainingLog:
    """What the training did, for the file and for `info`.

    Attributes:
        steps: optimiser steps taken.
        loss_first, loss_last: the two parts of the loss (eq. 7), pull and push, each the mean over
            the first and over the last tenth of the steps.
        movement: ||Δf|| / ||f0||, how far the weight of f moved from where it started.
    """

    steps: int
    loss_first: tuple[float, float]
    loss_last: tuple[float, float]
    movement: float

    def to_dict(self) -> dict[str, Any]:
        """The log as JSON-ready values."""
        return asdict(self)


def _check(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise SettingsError(f"{name} is {value}: give {allowed}")


class Trainer(Protocol):
    """What takes the steps: `train`, or the same with torch on a GPU."""

    def __call__(
        self,
        start: Floats,
        patches: Floats,
        settings: TrainingSettings,
        *,
        seed: int,
        progress: Progress | None,
    ) -> tuple[Floats, TrainingLog]:
        """See `train`."""


def make_representation(
    patches: Floats,
    method: Method,
    settings: TrainingSettings,
    *,
    seed: int,
    parts: npt.NDArray[np.int64] | None = None,
    contrast: Contrast | None = None,
    trainer: Trainer | None = None,
    progress: Progress | None = None,
) -> tuple[Representation, TrainingLog | None]:
    """Make f for the patch features of all good photos, by one of the three methods.

    "reconpatch" trains f; "untrained" is the same f before its first step, and of a "contrastive"
    one its principal directions alone; "patchcore" is the identity. The last two are the baselines
    that the first is measured against.

    Args:
        patches: (P, C) float32; of a "contrastive" f without steps float16 will do.
        method: one of the three.
        settings: see `TrainingSettings`.
        seed: decides all that is random.
        parts: (P,) the part that each patch is of; None takes each patch for a part of its own.
        contrast: what a "contrastive" f is learned against.
        trainer: takes the steps; `train` where it is None.
        progress: called with (steps so far, steps in all).
    """
    if method == "patchcore":
        return Representation(), None
    if method not in METHODS:
        raise SettingsError(f"method is {method!r}: give one of {', '.join(METHODS)}")
    if len(patches) <= settings.k:
        raise NotEnoughPhotosError(
            f"the good photos give {len(patches)} patches, and training needs more than k = "
            f"{settings.k}: use more photos or a larger input size"
        )
    if settings.init == "contrastive" and method == "untrained":
        assert contrast is not None
        return Representation(contrast.outputs), None
    weight, log = initial_weight(patches, settings, parts, contrast, seed=seed), None
    if method == "reconpatch":
        weight, log = (trainer or train)(weight, patches, settings, seed=seed, progress=progress)
    return Representation(weight, np.zeros(len(weight), np.float32) if settings.bias else None), log


def train(
    start: Floats,
    patches: Floats,
    settings: TrainingSettings,
    *,
    seed: int,
    progress: Progress | None = None,
) -> tuple[Floats, TrainingLog]:
    """Train f by relaxed contrastive learning; g and the twins are dropped at the end.

    The biases of f and g have the gradient 0, since the loss sees differences alone: they stay 0.

    Args:
        start: (D, C) float32 weight to start from.
        patches: (P, C) float32 patch features of good photos.
        settings: see `TrainingSettings`.
        seed: decides the start of g, and the batches.
        progress: called with (steps so far, steps in all).

    Returns:
        The (D, C) float32 weight of f, and what the training did.

    Raises:
        SettingsError: the training diverged.
    """
    plan = training_plan(start, patches, settings, seed)
    f, g = student = [start.copy(), plan.g]  # θ: z = g(f(p))
    twin = [f.copy(), g.copy()]  # θ̄: z̄ = ḡ(f̄(p))
    optimiser = AdamP(student, weight_decay=settings.weight_decay)
    history = np.zeros((len(plan.rates), 2))
    with np.errstate(all="ignore"):  # the end looks whether all is finite
        for step, (indices, rate) in enumerate(zip(plan.batches, plan.rates, strict=True)):
            p = patches[indices]  # (N, C)
            w = pseudo_labels(p @ twin[0].T @ twin[1].T, settings)  # (N, N)
            r = p @ f.T  # (N, D)
            loss = relaxed_contrastive_loss(r @ g.T, w, settings.margin)
            by_z = loss.gradient
            optimiser.step([(by_z @ g).T @ p, by_z.T @ r], rate)
            update_twin(twin, student, settings.gamma)
            history[step] = loss.pull, loss.push
            if progress is not None:
                progress(step + 1, len(plan.rates))
    return f, training_log(start, f, history, settings)


class TrainingPlan(NamedTuple):
    """What a training takes besides f, the same wherever its steps run.

    Attributes:
        g: (D', D) float32 weight that g starts from.
        batches: indices of the patches of each step.
        rates: learning rate of each step: a cosine from the one set down to 0.
    """

    g: Floats
    batches: Iterator[npt.NDArray[np.int64]]
    rates: list[float]


def training_plan(
    start: Floats, patches: Floats, settings: TrainingSettings, seed: int
) -> TrainingPlan:
    """Plan the steps from a start of f; the arguments are those of `train`."""
    of_g, of_batches = np.random.default_rng(seed).spawn(2)
    dim = len(start)
    steps = settings.total_steps(len(patches))
    return TrainingPlan(
        random_orthogonal(settings.projection_dim or dim, dim, of_g),
        itertools.islice(batches(patches, settings, of_batches), steps),
        [settings.learning_rate * (1 + math.cos(math.pi * t / steps)) / 2 for t in range(steps)],
    )


def training_log(
    start: Floats, weight: Floats, history: npt.NDArray[np.float64], settings: TrainingSettings
) -> TrainingLog:
    """Sum up a training from the (steps, 2) parts of its loss.

    Raises:
        SettingsError: the weight is not finite after them.
    """
    if len(history) and not np.isfinite(weight).all():
        raise SettingsError(
            f"training diverged with learning_rate {settings.learning_rate:g}: give a smaller one"
        )
    tenth = max(1, len(history) // 10)
    first, last = (
        part.mean(axis=0) if len(part) else (0.0, 0.0)
        for part in (history[:tenth], history[-tenth:])
    )
    return TrainingLog(
        steps=len(history),
        loss_first=(float(first[0]), float(first[1])),
        loss_last=(float(last[0]), float(last[1])),
        movement=float(np.linalg.norm(weight - start)) / max(float(np.linalg.norm(start)), 1e-12),
    )


def pseudo_labels(z_bar: Reals, settings: TrainingSettings) -> Reals:
    """Compute the similarities w (eq. 6) for a batch of the twin's z̄: (N, D) -> (N, N)."""
    if settings.scale == "unit":
        lengths = np.linalg.norm(z_bar, axis=1, keepdims=True)
        z_bar = z_bar / np.maximum(lengths, 1e-12)
    squared = squared_distances(z_bar)
    if settings.scale == "mean":
        squared /= max(float(squared.mean()), 1e-12)
    k = min(settings.k, len(z_bar) - 1)
    contextual = contextual_similarity(
        squared, k, k_reciprocal=max(1, k // 2), include_self=settings.include_self
    )
    return mixed_similarity(
        pairwise_similarity(squared, settings.sigma), contextual, settings.alpha
    )


def update_twin(twin: Sequence[Floats], student: Sequence[Floats], gamma: float) -> None:
    """θ̄ <- γ θ̄ + (1 - γ) θ (eq. 8), in place."""
    for slow, fast in zip(twin, student, strict=True):
        slow *= gamma
        slow += (1.0 - gamma) * fast


def initial_weight(
    patches: Floats,
    settings: TrainingSettings,
    parts: npt.NDArray[np.int64] | None = None,
    contrast: Contrast | None = None,
    *,
    seed: int = 0,
) -> Floats:
    """Compute the (D, C) weight that f starts from."""
    channels = patches.shape[1]
    dim = settings.dim or channels
    if settings.init == "orthogonal":
        return random_orthogonal(dim, channels, np.random.default_rng(seed))
    if settings.init == "contrastive":
        assert contrast is not None
        return contrastive_components(
            patches,
            np.arange(len(patches)) if parts is None else parts,
            contrast,
            dim=settings.dim,
            power=settings.contrast_power,
            gain=settings.contrast_gain,
            shrink=settings.contrast_shrink,
            share=settings.contrast_share,
            rng=np.random.default_rng(seed),
        )
    start = np.eye(dim, channels, dtype=np.float32)
    if settings.init == "pca":
        start[:] = 0.0  # more dimensions than features: nothing left to hold
        directions = principal_directions(patches, dim)
        start[: len(directions)] = directions
    elif settings.init == "relevant_components":
        start[:channels] = relevant_components(
            patches,
            np.arange(len(patches)) if parts is None else parts,
            dim=min(dim, channels),
            power=settings.relevant_power,
            shrink=settings.relevant_shrink,
            rng=np.random.default_rng(seed),
        )
    return start


def principal_directions(patches: Floats, dim: int) -> Floats:
    """(min(D, C), C) leading principal directions of the standardised features, unstandardised.

    Row d maps p to the d-th principal component of (p - mean) / std, up to a constant; distances in
    all C components are those of the standardised features. A feature that is the same in all
    patches has no scale of its own and gets no weight.
    """
    mean = patches.mean(axis=0)
    std = patches.std(axis=0, dtype=np.float64)
    std[std <= 1e-6 * np.abs(mean)] = np.inf  # constant, up to the rounding of float32
    centred = (patches - mean) / std.astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / len(patches)
    _, vectors = np.linalg.eigh(covariance)  # ascending
    return np.asarray(signed(vectors[:, ::-1].T[:dim]) / std, dtype=np.float32)


def batches(
    patches: Floats, settings: TrainingSettings, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the indices of batches without end; every batch has min(N, P) patches."""
    n = min(settings.batch_size, len(patches))
    if settings.batches == "neighbours":
        yield from _neighbour_batches(patches, n, settings, rng)
    while True:
        order = rng.permutation(len(patches))
        for start in range(0, len(order) - n + 1, n):
            yield order[start : start + n]


def _neighbour_batches(
    patches: Floats, n: int, settings: TrainingSettings, rng: np.random.Generator
) -> Iterator[npt.NDArray[np.int64]]:
    """Batches of seeds and the patches nearest to them in a pool, each patch at most once."""
    group = min(1 + settings.companions, n)
    per_batch = n // group
    while True:
        pool = rng.permutation(len(patches))[: max(settings.pool_size, n)]
        p = patches[pool]
        norms = np.einsum("pc,pc->p", p, p)
        seeds = rng.permutation(len(pool))
        for start in range(0, len(seeds) - per_batch + 1, per_batch):
            chosen = seeds[start : start + per_batch]
            distance = norms - 2.0 * (p[chosen] @ p.T)
            distance[np.arange(per_batch), chosen] = -np.inf  # first, even among its duplicates
            members = np.unique(np.argpartition(distance, group - 1, axis=1)[:, :group])
            # Seeds close to each other share companions: fill up with random ones.
            rest = np.setdiff1d(rng.permutation(len(pool))[: 2 * n], members)
            members = np.concatenate([members, rng.permutation(rest)])[:n]
            yield pool[members]


def random_orthogonal(rows: int, columns: int, rng: np.random.Generator) -> Floats:
    """A matrix with orthonormal rows or, of more rows than columns, columns; all are as likely."""
    tall = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(tall)
    q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # else the signs would be LAPACK's choice
    return np.ascontiguousarray(q if rows >= columns else q.T, dtype=np.float32)
