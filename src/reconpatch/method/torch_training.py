"""`representation.train` in torch, for a GPU; what the gradients in numpy are held to.

Imports torch and timm, of the extra "torch".
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from timm.optim import AdamP
from torch import Tensor
from torch.nn.functional import normalize

from reconpatch.method.representation import (
    Floats,
    Progress,
    TrainingLog,
    TrainingSettings,
    training_log,
    training_plan,
)


def train(
    start: Floats,
    patches: Floats,
    settings: TrainingSettings,
    *,
    seed: int,
    progress: Progress | None = None,
    device: str = "cuda",
) -> tuple[Floats, TrainingLog]:
    """Train f as `representation.train` does, on a device of torch's."""
    plan = training_plan(start, patches, settings, seed)
    student = torch.nn.ParameterList([torch.tensor(start), torch.tensor(plan.g)]).to(device)
    f, g = student
    twin = copy.deepcopy(student)
    optimiser = AdamP(student.parameters(), weight_decay=settings.weight_decay)
    history = np.zeros((len(plan.rates), 2))
    for step, (indices, rate) in enumerate(zip(plan.batches, plan.rates, strict=True)):
        p = torch.from_numpy(patches[indices]).to(device)
        with torch.no_grad():
            w = pseudo_labels(p @ twin[0].T @ twin[1].T, settings)
        parts = relaxed_contrastive_loss(p @ f.T @ g.T, w, settings.margin)
        optimiser.zero_grad()
        parts.sum().backward()
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        with torch.no_grad():
            for slow, fast in zip(twin, student, strict=True):
                slow.lerp_(fast, 1.0 - settings.gamma)
        history[step] = parts.detach().cpu()
        if progress is not None:
            progress(step + 1, len(plan.rates))
    weight = f.detach().cpu().numpy().copy()
    return weight, training_log(start, weight, history, settings)


def pseudo_labels(z_bar: Tensor, settings: TrainingSettings) -> Tensor:
    """Eq. 1 to 6, the neighbourhoods as matrices: (N, D) -> (N, N)."""
    squared = squared_distances(normalize(z_bar) if settings.scale == "unit" else z_bar)
    if settings.scale == "mean":
        squared = squared / squared.mean().clamp(min=1e-12)
    k = min(settings.k, len(z_bar) - 1)
    ranked = squared.clone().fill_diagonal_(-1.0)
    nearest = ranked.topk(k + (not settings.include_self), largest=False).indices

    def membership(places: int) -> Tensor:
        return torch.zeros_like(squared).scatter_(1, nearest[:, :places], 1.0)

    member = membership(nearest.shape[1])
    shared = member @ member.T / nearest.shape[1] * member
    half = membership(max(1, k // 2) + (not settings.include_self))
    reciprocal = half * half.T
    expanded = reciprocal @ shared / reciprocal.sum(dim=1, keepdim=True)
    contextual = (expanded + expanded.T) / 2
    return settings.alpha * torch.exp(-squared / settings.sigma) + (1 - settings.alpha) * contextual


def relaxed_contrastive_loss(z: Tensor, w: Tensor, margin: float) -> Tensor:
    """The two parts of eq. 7, pull and push, of which the loss is the sum: (2,)."""
    squared = squared_distances(z)
    apart = squared > 1e-12
    d = torch.where(apart, squared, 1.0).sqrt() * apart
    delta = d / d.mean(dim=1, keepdim=True).clamp(min=1e-12)
    short = (margin - delta).clamp(min=0.0) * (1.0 - torch.eye(len(z)).to(z))
    return torch.stack([(w * delta.square()).sum(), ((1.0 - w) * short.square()).sum()]) / len(z)


def squared_distances(z: Tensor) -> Tensor:
    """||z_i - z_j||^2: (N, D) -> (N, N)."""
    norms = z.square().sum(dim=1)
    squared = norms[:, None] + norms[None, :] - 2.0 * (z @ z.T)
    return squared.clamp(min=0.0).fill_diagonal_(0.0)
