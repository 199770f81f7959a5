"""Steps of the loss on a residual: r = (I + U) W0 p, with U small and a contextual term of large N.

    graph: thousands of patches, the k nearest of each among them ── contextual similarity (2-5)
      └── batch: seeds, what the graph ties them to, random others ── w (6) ── loss (7) ── U

What this changes of the steps in `reconpatch.representation`: U starts at 0 and can be drawn back
to 0, so that f stays near its start; the neighbours of the contextual similarity are searched among
thousands of patches instead of a batch, which costs little, since each row has few columns that are
not 0; sigma comes from the data's own distances; there is no g, which would take up the change in
f's place.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from reconpatch.loss import relaxed_contrastive_loss
from reconpatch.representation import Representation
from reconpatch.similarity import squared_distances

if TYPE_CHECKING:
    import torch

_BLOCK = 1024  # rows of the graph whose distances are held at a time


@dataclass(frozen=True)
class ResidualSettings:
    """How U is made.

    Attributes:
        graph: N of eq. 2 to 5, patches whose neighbours are searched among each other.
        refresh: steps after which the graph is drawn anew, of other patches and by the twin.
        other_parts: neighbours are patches of other parts only.
        k: size of the neighbourhoods, the patch itself included; those of eq. 4 take k // 2.
        alpha: of eq. 6.
        sigma: of eq. 1: the median squared distance to the "nearest" other patch or to the "kth",
            taken as a share of the mean squared distance, since the scale of z̄ is free.
        margin: m of eq. 7.
        batch: patches of a step.
        steps: in all.
        rate: how far a step moves U, as a share of the identity's norm; falls along a cosine to 0.
        decay: U is drawn back so much that it never grows beyond 1 / decay of the identity's norm.
        gamma: of eq. 8.
    """

    graph: int = 8192
    refresh: int = 100
    other_parts: bool = True
    k: int = 5
    alpha: float = 0.5
    sigma: Literal["nearest", "kth"] = "nearest"
    margin: float = 1.0
    batch: int = 512
    steps: int = 200
    rate: float = 2e-3
    decay: float = 0.0
    gamma: float = 0.99


class Graph(NamedTuple):
    """The sparse contextual similarity of N patches, before eq. 5 makes it symmetric.

    Attributes:
        patches: (N,) indices into all patches.
        columns: (N, J) what each row is tied to, as indices into the graph; some come twice.
        values: (N, J) their shares of ŵ (eq. 4), which add up where a column comes twice.
        sigma: as a share of the mean squared distance.
    """

    patches: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    sigma: float


def residual_f(
    patches: np.ndarray, parts: np.ndarray, start: np.ndarray, settings: ResidualSettings, seed: int
) -> tuple[Representation, dict[str, Any]]:
    """f = (I + U) W0 for (P, C) patches of (P,) parts, from W0 (D, C); and what training did."""
    import torch

    rng = np.random.default_rng(seed)
    scale = math.sqrt(len(start))  # the identity's norm
    u = torch.zeros(len(start), len(start), requires_grad=True)
    twin, momentum = torch.zeros_like(u), torch.zeros_like(u)
    losses = []
    for step in range(settings.steps):
        if step % settings.refresh == 0:
            chosen = np.sort(rng.permutation(len(patches))[: settings.graph])
            p0 = patches[chosen] @ start.T
            with torch.no_grad():
                z_bar = (torch.from_numpy(p0) @ (torch.eye(len(u)) + twin).T).numpy()
            graph = contextual_graph(z_bar, chosen, parts[chosen], settings)
            spread = torch.from_numpy(np.cov(p0, rowvar=False).astype(np.float32))
        members = batch_of(graph, settings.batch, rng)
        p = torch.from_numpy(p0[members])
        w = pseudo_labels(p + p @ twin.T, total_spread(twin, spread), graph, members, settings)
        loss = relaxed_contrastive_loss(p + p @ u.T, w, settings.margin)
        (gradient,) = torch.autograd.grad(loss.total, u)
        with torch.no_grad():
            momentum = 0.9 * momentum + gradient
            rate = settings.rate * (1 + math.cos(math.pi * step / settings.steps)) / 2
            u -= rate * scale * momentum / momentum.norm().clamp(min=1e-12)
            u *= 1 - rate * settings.decay
            twin.lerp_(u, 1 - settings.gamma)
        losses.append([loss.pull.item(), loss.push.item()])
    moved = u.detach().numpy()
    tenth = max(1, settings.steps // 10)
    return Representation((np.eye(len(u), dtype=np.float32) + moved) @ start), {
        "loss_first": np.mean(losses[:tenth], axis=0).tolist(),
        "loss_last": np.mean(losses[-tenth:], axis=0).tolist(),
        "movement": float(np.linalg.norm(moved @ start) / np.linalg.norm(start)),
        "sigma": graph.sigma,
        "residual": asdict(settings),
    }


def total_spread(twin: torch.Tensor, covariance: torch.Tensor) -> float:
    """Mean squared distance of z̄ over all pairs, from the (D, D) covariance of W0 p."""
    import torch

    to_twin = torch.eye(len(twin)) + twin
    return float(2 * (to_twin @ covariance @ to_twin.T).trace())


def pseudo_labels(
    z_bar: torch.Tensor,
    mean_squared: float,
    graph: Graph,
    members: np.ndarray,
    settings: ResidualSettings,
) -> torch.Tensor:
    """Similarities w (eq. 6) of a batch: (n, D) z̄ of its members -> (n, n)."""
    import torch

    pairwise = torch.exp(-squared_distances(z_bar) / (graph.sigma * mean_squared))
    contextual = torch.from_numpy(within(graph, members))
    return settings.alpha * pairwise + (1 - settings.alpha) * contextual


def contextual_graph(
    z_bar: np.ndarray, patches: np.ndarray, parts: np.ndarray, settings: ResidualSettings
) -> Graph:
    """Eq. 2 to 4 among the (N, D) z̄ of these patches, by their nearest alone."""
    near, squared = nearest(z_bar, parts if settings.other_parts else None, settings.k)
    shared = shared_neighbours(near)
    half = max(1, settings.k // 2)
    reciprocal = (near[near[:, :half], :half] == np.arange(len(near))[:, None, None]).any(axis=2)
    weight = reciprocal / reciprocal.sum(axis=1, keepdims=True)
    values = weight[:, :, None] * shared[near[:, :half]]
    place = 1 if settings.sigma == "nearest" else -1
    return Graph(
        patches,
        near[near[:, :half]].reshape(len(near), -1),
        values.reshape(len(near), -1).astype(np.float32),
        float(np.median(squared[:, place]) / (2 * z_bar.var(axis=0).sum())),
    )


def nearest(z: np.ndarray, parts: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, k) each row itself and its k - 1 nearest (of other parts), and the squared distances."""
    z = z - z.mean(axis=0)
    norms = np.einsum("nd,nd->n", z, z)
    found = np.empty((len(z), k), np.int64)
    squared = np.empty((len(z), k), np.float32)
    for first in range(0, len(z), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(z)))
        block = norms[rows, None] + norms - 2 * (z[rows] @ z.T)
        if parts is not None:
            block[parts[rows][:, None] == parts] = np.inf
        block[np.arange(len(rows)), rows] = -1.0  # itself first, even among its duplicates
        among = np.argpartition(block, k - 1, axis=1)[:, :k]
        order = np.take_along_axis(block, among, 1).argsort(axis=1)
        found[rows] = np.take_along_axis(among, order, 1)
        squared[rows] = np.take_along_axis(block, found[rows], 1)
    return found, np.maximum(squared, 0.0)


def shared_neighbours(near: np.ndarray) -> np.ndarray:
    """w~ (eq. 2) of each row and its (N, k) neighbours: shares of neighbours in common."""
    return np.concatenate([
        (near[near[rows]][:, :, :, None] == near[rows][:, None, None, :]).any(axis=3).mean(axis=2)
        for rows in np.array_split(np.arange(len(near)), max(1, len(near) // _BLOCK))
    ])  # fmt: skip


def batch_of(graph: Graph, n: int, rng: np.random.Generator) -> np.ndarray:
    """n different places of the graph: seeds with all they are tied to, the rest random."""
    order = rng.permutation(len(graph.patches))
    tied = np.unique(np.concatenate([graph.columns[order[: n // 8]].ravel(), order[: n // 8]]))
    tied = rng.permutation(tied)[:n]
    return np.concatenate([tied, np.setdiff1d(order[: 2 * n], tied)[: n - len(tied)]])


def within(graph: Graph, members: np.ndarray) -> np.ndarray:
    """(n, n) float32 the symmetric contextual similarity (eq. 5) among these members."""
    place = np.full(len(graph.patches), -1)
    place[members] = np.arange(len(members))
    columns = place[graph.columns[members]]  # (n, J)
    rows = np.broadcast_to(np.arange(len(members))[:, None], columns.shape)
    inside = columns >= 0
    w = np.zeros((len(members), len(members)), np.float32)
    np.add.at(w, (rows[inside], columns[inside]), graph.values[members][inside])
    return (w + w.T) / 2
