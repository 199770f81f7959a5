"""Kinds of confirmed defects in the space of f, and which of them a photo's worst patches are like.

    similarity = 1 - mean distance to the kind's rows / mean distance to the bank, at least 0

over the patches that a verdict is about: 1 where a confirmed patch of the kind is met exactly, 0
where good patches are as near. It has no unit, so that kinds, photos and models compare.

What is "near" is learned by leave-one-out: each confirmed defect is compared with those of its kind
on other parts, and a kind's limit is a low quantile of these similarities. A new defect of the kind
is one more draw of them, so that the share that falls below is known however they are distributed.
Of kinds that vary so much that the quantile says nothing, the limit is `LEAST_NEAR`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reconpatch.method.coreset import greedy_coreset
from reconpatch.method.memory_bank import Floats, Ints
from reconpatch.result import SimilarKind

LEAST_PARTS = 5
"""Parts with a confirmed defect of a kind, from which on it is named."""
ROWS = 64
"""Rows of a kind, at most."""
LEAST_NEAR = 0.1
"""Similarity below which nothing is near: it is hardly nearer to a defect than to good parts."""
WORST = 16
"""Patches of a photo that are compared with the kinds, at most."""
_MISSED = 0.1  # share of a kind's new defects that may fall below its limit, where parts suffice


@dataclass(frozen=True, eq=False)
class DefectKinds:
    """What a model keeps of confirmed defects, to name the kind of others.

    Attributes:
        names: of the kinds, in alphabetical order.
        rows: (R, D) float32, represented patches of confirmed defects.
        kind: (R,) int64, index of the kind of each row; a kind has one row at least.
        near: of each kind, the similarity from which on a photo is said to show it; in (0, 1].
    """

    names: tuple[str, ...]
    rows: Floats
    kind: Ints
    near: tuple[float, ...]

    def similarities(self, patches: Floats, distances: Floats) -> list[float]:
        """Compare patches with each kind: 0 to 1, in the order of `names`.

        Args:
            patches: (Q, D) float32, represented, one at least.
            distances: (Q,) float32, of each to the nearest row of the bank.
        """
        return [
            similarity(patches, distances, self.rows[self.kind == k])
            for k in range(len(self.names))
        ]

    def most_similar(self, patches: Floats, distances: Floats) -> SimilarKind:
        """Name the most similar of the kinds that are near, or else the most similar of all.

        It takes what `similarities` takes.
        """
        return _named(self.names, self.near, self.similarities(patches, distances))


def _named(
    names: Sequence[str], near: Sequence[float], similarities: Sequence[float]
) -> SimilarKind:
    ranked = sorted(
        ((s >= limit, s, name) for name, limit, s in zip(names, near, similarities, strict=True)),
        key=lambda one: one[:2],
    )
    is_near, best, name = ranked[-1]
    return SimilarKind(name, best, is_near)


def similarity(patches: Floats, distances: Floats, rows: Floats) -> float:
    """How much nearer (Q, D) patches are to a kind's (R, D) rows than to the bank: 0 to 1."""
    to_rows = [float(np.linalg.norm(rows - patch, axis=1).min()) for patch in patches]
    to_bank = float(distances.mean(dtype=np.float64))
    return max(0.0, 1.0 - float(np.mean(to_rows)) / to_bank) if to_bank > 0 else 0.0


def worst_patches(distances: Floats) -> Ints:
    """Indices of the most distant of (P,) patches, `WORST` of them at most, the worst first."""
    worst: Ints = np.argsort(-distances, kind="stable")[:WORST].astype(np.int64)
    return worst


def telling(distances: Floats, threshold: float) -> slice:
    """Which of a photo's worst patches, the worst first, a verdict is about.

    Those that are further from the bank than the map's threshold, or the worst alone.
    """
    return slice(max(1, int((distances > threshold).sum())))


# --- From confirmed defects ----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Shown:
    """What a photo of a confirmed defect shows of it.

    Attributes:
        kind: its name; empty where nobody named one.
        part: photos of one part count once, and are left out together.
        patches: (N, D) float32, represented patches at its place.
        worst: (Q, D) float32, what a verdict on it is about: see `telling`.
        distances: (Q,) float32, of these to the bank.
    """

    kind: str
    part: int
    patches: Floats
    worst: Floats
    distances: Floats


@dataclass(frozen=True)
class KindsLearned:
    """How well kinds are told apart: each confirmed defect compared without those of its own part.

    Attributes:
        parts: of each kind, how many there are.
        near: of each kind, the limit of its similarity.
        missed: of each kind, the share of its new defects that is expected below the limit.
        own: defects that get the name of their own kind.
        another: those that get another kind's.
        none: those that get none.
        strangers: those that get another kind's name where their own kind is not known.
    """

    parts: Mapping[str, int]
    near: Mapping[str, float]
    missed: Mapping[str, float]
    own: int
    another: int
    none: int
    strangers: int

    def sentence(self) -> str:
        """The same in plain words."""
        kinds = ", ".join(f"{name} ({count} parts)" for name, count in self.parts.items())
        count = self.own + self.another + self.none
        text = (
            f"Verdicts name kinds of defects: {kinds}. Of their {count} confirmed defects, each "
            f"compared without its own part, {self.own} get their own kind, {self.another} another "
            f"and {self.none} none of these"
        )
        if len(self.parts) > 1:
            text += f"; were their own kind not known, {self.strangers} would get another"
        return f"{text}."

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-ready values."""
        return {
            "kinds": {
                name: {
                    "parts": self.parts[name],
                    "near": self.near[name],
                    "missed": self.missed[name],
                }
                for name in self.parts
            },
            "own": self.own,
            "another": self.another,
            "none": self.none,
            "strangers": self.strangers,
            "sentence": self.sentence(),
        }


def learn_kinds(defects: Sequence[Shown]) -> tuple[DefectKinds, KindsLearned] | None:
    """Learn the kinds of which `LEAST_PARTS` parts or more are confirmed; None where there is none.

    Args:
        defects: all that are confirmed; those of other kinds, or of none, add nothing.
    """
    parts: dict[str, set[int]] = {}
    for defect in defects:
        parts.setdefault(defect.kind, set()).add(defect.part)
    names = tuple(sorted(k for k, of in parts.items() if k and len(of) >= LEAST_PARTS))
    if not names:
        return None
    known = [defect for defect in defects if defect.kind in names]
    rows = [_rows(d.patches for d in known if d.kind == name) for name in names]
    unseen = [_similarities(defect, known, names, rows) for defect in known]
    limits = [_limit(name, known, unseen, names) for name in names]
    near = tuple(limit for limit, _ in limits)
    own = none = strangers = 0
    for defect, similarities in zip(known, unseen, strict=True):
        found = _named(names, near, similarities)
        own += found.near and found.name == defect.kind
        none += not found.near
        strangers += any(
            s >= limit
            for name, limit, s in zip(names, near, similarities, strict=True)
            if name != defect.kind
        )
    learned = KindsLearned(
        {name: len(parts[name]) for name in names},
        dict(zip(names, near, strict=True)),
        {name: share for name, (_, share) in zip(names, limits, strict=True)},
        own, len(known) - own - none, none, strangers,
    )  # fmt: skip
    kind = np.repeat(np.arange(len(names), dtype=np.int64), [len(r) for r in rows])
    return DefectKinds(names, np.concatenate(rows), kind, near), learned


def _rows(patches: Iterable[Floats]) -> Floats:
    """A coreset of a kind's patches."""
    every = np.concatenate(list(patches))
    if len(every) <= ROWS:
        return every
    rows: Floats = every[greedy_coreset(every, ROWS).indices]
    return rows


def _similarities(
    defect: Shown, known: Sequence[Shown], names: Sequence[str], rows: Sequence[Floats]
) -> list[float]:
    """Those of a defect to each kind without its own part, in the order of the names."""
    of_part = {d.kind for d in known if d.part == defect.part}
    return [
        similarity(
            defect.worst,
            defect.distances,
            _rows(d.patches for d in known if d.kind == name and d.part != defect.part)
            if name in of_part
            else of_kind,
        )
        for name, of_kind in zip(names, rows, strict=True)
    ]


def _limit(
    name: str, known: Sequence[Shown], unseen: Sequence[Sequence[float]], names: Sequence[str]
) -> tuple[float, float]:
    """A kind's limit, and the share of its new defects that is expected below it.

    Of n similarities, one more is below the k-th lowest in k of n + 1 cases.
    """
    of_part: dict[int, list[float]] = {}
    for defect, similarities in zip(known, unseen, strict=True):
        if defect.kind == name:
            of_part.setdefault(defect.part, []).append(similarities[names.index(name)])
    ranked = sorted(float(np.mean(values)) for values in of_part.values())
    k = max(1, int(_MISSED * (len(ranked) + 1)))
    limit = max(ranked[k - 1], LEAST_NEAR)
    return limit, (1 + sum(value < limit for value in ranked)) / (len(ranked) + 1)
