"""Photos that are one picture: copies, copies saved anew, one photo in two formats.

A promise counts distinct parts, so copies count once. Equal pixels are told by their hash. A copy
that was saved anew (JPEG, another size, a touched pixel) is told by a small grey picture of 32 x 32
means, in which the losses of saving vanish and the differences of two shots do not: saved as JPEG
at quality 75, real photos move by 0.04 to 0.4 grey levels (root mean square), two shots of one part
in one place hours apart by 0.7, shots of two parts by 2 and more (docs/threshold.md).

What lies that near together is a copy only if the other photos lie far apart: parts that look all
alike, in a fixture that moves nothing, are no copies of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.photos.images import Photo, in_unit
from reconpatch.photos.stored_picture import stored_picture

Signature = npt.NDArray[np.int16]

SIDE = 32
"""Places of a signature along each side."""
MOST = 5_000
"""Most photos among which copies that were saved anew are looked for: it takes their square."""

_UNIT = 128  # steps of a grey level in a signature
_SAME = 0.02  # grey levels: no two shots with any noise in them are so near
_SAVED_ANEW = 0.5  # grey levels, of photos of 320 pixels and more; less is averaged in small ones
_AT_MOST = 1.5  # likewise, of copies that lost much
_FULL_SIDE = 320
_FAR, _FAR_OF_MANY_LOSSES = 3.0, 6.0  # times further apart are the other photos, at least
_FAR_TOLD = 4.0  # times nearer than the other photos: worth a word, if they are no copies
_FEW = 4  # photos of a picture, whatever the others have
_MORE = 4  # times more than the lower quartile of them
_STEP = 0.8  # from one distance that is tried to the next


def signature(photo: Photo, white_level: int) -> Signature:
    """(32, 32) int16: the photo's grey means around their mean, in 1/128 of a grey level of 255."""
    pixels = photo.pixels
    if pixels.dtype != np.uint8:
        pixels = np.rint(in_unit(pixels, white_level) * 255).astype(np.uint8)
    grey = Image.fromarray(np.ascontiguousarray(pixels)).convert("L")
    factor = max(1, min(grey.size) // (16 * SIDE))
    means = grey.reduce(factor).convert("F").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(means)
    steps: Signature = np.rint((values - values.mean()) * _UNIT).astype(np.int16)
    return steps


@dataclass(frozen=True)
class Alike:
    """Which photos are one picture.

    Attributes:
        picture: (n,) int64, a number for each photo; photos of one number are one picture.
        near: photos that are far nearer to another one than the rest are, and no copies of it.
    """

    picture: npt.NDArray[np.int64]
    near: npt.NDArray[np.int64]

    @classmethod
    def none(cls, photos: int) -> Alike:
        """Photos of which nothing is known."""
        return cls(np.arange(photos), np.empty(0, np.int64))

    def joined(self, groups: Sequence[int]) -> Alike:
        """The same with photos of one group as one picture; -1 is no group."""
        first: dict[tuple[str, int], int] = {}
        pairs = [(first.setdefault(("of", int(p)), i), i) for i, p in enumerate(self.picture)]
        pairs += [(first.setdefault(("in", g), i), i) for i, g in enumerate(groups) if g >= 0]
        return Alike(connected(len(groups), pairs), self.near)


class KnownPhotos:
    """Photos by their small pictures, among which a new one is looked for.

    Args:
        signatures: of each; None where there is none.
        groups: of each; photos of one group are one part.
    """

    def __init__(self, signatures: Sequence[Signature | None], groups: Sequence[int]) -> None:
        self._count = len(signatures)
        self._photos = [i for i, s in enumerate(signatures) if s is not None][:MOST]
        chosen = [signatures[i] for i in self._photos]
        flat = [s.ravel() for s in chosen if s is not None]
        self._points = np.array(flat, np.float32).reshape(len(flat), SIDE * SIDE) / np.float32(
            _UNIT
        )
        self._apart = 0.0  # nothing is told from copies where all photos are of one part
        number = np.unique([groups[i] for i in self._photos], return_inverse=True)[1]
        if len(np.unique(number)) > 1:
            self._apart = _typical(_nearest_tree(self._points), number)

    def add(self, small: Signature) -> None:
        """One more photo, whose number is that of the one before and 1."""
        point = small.ravel()[None].astype(np.float32) / np.float32(_UNIT)
        self._points = np.concatenate([self._points, point])
        self._photos.append(self._count)
        self._count += 1

    def find(self, small: Signature, side: int) -> int | None:
        """The photo that another one, of `side` pixels at least, is a copy of, if it is one."""
        if not len(self._points):
            return None
        squared = np.square(self._points - small.ravel() / np.float32(_UNIT)).mean(axis=1)
        at = int(squared.argmin())
        near, scale = float(np.sqrt(squared[at])), max(1.0, _FULL_SIDE / side)
        saved_anew = near <= _SAVED_ANEW * scale and _FAR * near <= self._apart
        much_lost = near <= _AT_MOST * scale and _FAR_OF_MANY_LOSSES * near <= self._apart
        return self._photos[at] if saved_anew or much_lost else None


def alike(signatures: Sequence[Signature], names: Sequence[str], sides: Sequence[int]) -> Alike:
    """Tell copies among photos.

    Two photos are one picture if they are nearly the same to the last pixel, or are called the same
    but for the ending and are near, or are near while the pictures that come of it lie three times
    further apart; the latter not where most copies would be of a single picture, which are rather
    parts that look alike.

    Args:
        signatures: of n photos.
        names: of each, with its folder.
        sides: the shorter side of each in pixels.
    """
    n = len(signatures)
    if n < 2:
        return Alike.none(n)
    points = np.stack([s.ravel() for s in signatures]).astype(np.float32) / np.float32(_UNIT)
    scale = np.maximum(1.0, _FULL_SIDE / np.asarray(sides, np.float64))
    edges = _nearest_tree(points)
    same = [(i, j) for i, j, d in edges if d <= _SAME]
    same += _one_stem(points, names, _AT_MOST * scale)
    picture = connected(n, same)
    picture = _far_apart(edges, scale, picture)
    return Alike(picture, _near(edges, picture))


def known_photos(thumbnails: Sequence[bytes], groups: Sequence[int]) -> KnownPhotos:
    """The photos of a model by the thumbnails that it keeps of them, as far as it does."""
    pictures = [np.asarray(stored_picture(jpeg)) if jpeg else None for jpeg in thumbnails]
    signatures = [None if p is None else signature(Photo("", p), 255) for p in pictures]
    return KnownPhotos(signatures, groups)


def _nearest_tree(points: npt.NDArray[np.float32]) -> list[tuple[int, int, float]]:
    """The minimum spanning tree of points, by Prim: n - 1 edges with their lengths, shortest first.

    Single linkage at any distance is what is connected by edges up to it.
    """
    n = len(points)
    norms = np.einsum("nd,nd->n", points, points, dtype=np.float64)
    best = np.full(n, np.inf)
    parent = np.zeros(n, np.int64)
    outside = np.ones(n, np.bool_)
    at, edges = 0, []
    for _ in range(n - 1):
        outside[at] = False
        squared = norms + norms[at] - 2.0 * (points @ points[at])
        closer = outside & (squared < best)
        best[closer], parent[closer] = squared[closer], at
        at = int(np.where(outside, best, np.inf).argmin())
        edges.append((int(parent[at]), at, _distance(points, int(parent[at]), at)))
    return sorted(edges, key=lambda edge: edge[2])


def _distance(points: npt.NDArray[np.float32], i: int, j: int) -> float:
    """Root mean square difference in grey levels, subtracted before squaring."""
    return float(np.sqrt(np.square(points[i] - points[j]).mean()))


def _one_stem(
    points: npt.NDArray[np.float32], names: Sequence[str], limit: npt.NDArray[np.float64]
) -> list[tuple[int, int]]:
    """Pairs of files that are called the same but for the ending, and look it."""
    first: dict[str, int] = {}
    pairs = []
    for i, name in enumerate(names):
        path = PurePosixPath(name)
        if not path.suffix:
            continue
        other = first.setdefault(path.with_suffix("").as_posix(), i)
        if other != i and _distance(points, other, i) <= max(limit[i], limit[other]):
            pairs.append((other, i))
    return pairs


def connected(n: int, pairs: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    """(n,) the number of each one's connected component, in the order of the first of them."""
    root = list(range(n))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, j in pairs:
        root[find(j)] = find(i)
    roots = [find(i) for i in range(n)]
    number = {at: i for i, at in enumerate(dict.fromkeys(roots))}
    return np.array([number[at] for at in roots], np.int64)


def _far_apart(
    edges: Sequence[tuple[int, int, float]],
    scale: npt.NDArray[np.float64],
    picture: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Join what is near while the pictures that come of it lie far apart; as it was, else."""
    _, first = np.unique(picture, return_index=True)
    same = [(int(first[p]), i) for i, p in enumerate(picture)]
    longest = _AT_MOST
    while longest > _SAME:
        near = [(i, j) for i, j, d in edges if d <= longest * max(scale[i], scale[j])]
        found = connected(len(picture), [*same, *near])
        sizes = np.bincount(found)
        evenly = sizes.max() <= max(_FEW, _MORE * np.quantile(sizes[found], 0.25))
        if len(sizes) > 1 and evenly:
            widest = max((d for i, j, d in edges if found[i] == found[j]), default=0.0)
            apart = min(d for i, j, d in edges if found[i] != found[j])
            far = _FAR if longest <= _SAVED_ANEW else _FAR_OF_MANY_LOSSES
            if far * widest <= _typical(edges, found) or _FAR * widest <= apart:
                return found
        longest *= _STEP
    return picture


def _typical(edges: Sequence[tuple[int, int, float]], picture: npt.NDArray[np.int64]) -> float:
    """The median, over pictures, of the distance to the nearest other one."""
    nearest = np.full(picture.max() + 1, np.inf)
    for i, j, d in edges:  # the tree holds the shortest edge that leaves each picture
        if picture[i] != picture[j]:
            nearest[picture[i]] = min(nearest[picture[i]], d)
            nearest[picture[j]] = min(nearest[picture[j]], d)
    return float(np.median(nearest))


def _near(
    edges: Sequence[tuple[int, int, float]], picture: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Photos of different pictures that are far nearer to each other than pictures are."""
    if picture.max() < 2:  # of two pictures none is nearer than the other
        return np.empty(0, np.int64)
    limit = _typical(edges, picture) / _FAR_TOLD
    near = [(i, j) for i, j, d in edges if picture[i] != picture[j] and d <= limit]
    return np.unique(np.array(near, np.int64))
