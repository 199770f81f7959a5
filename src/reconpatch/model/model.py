"""A fitted model: everything an inspection needs, and the inspection itself.

    photo ── preprocessing ── patch features p ── r = f(p) ── nearest rows of the bank (9)
                                ── image score (10) and anomaly map ── threshold ── Result

What a single model shares with an ensemble is in `Inspector`.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import PIL.Image

from reconpatch.engine.engines import Output
from reconpatch.errors import NotEnoughPhotosError, PhotoError, SettingsError
from reconpatch.files import check_writable
from reconpatch.method.calibration import Calibration, check_rate, p_value
from reconpatch.method.defect_kinds import telling, worst_patches
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.scoring import (
    PatchScores,
    draw,
    score_nearest,
    told_whole,
    weighted_distances,
)
from reconpatch.model.contents import Contents, ModelContents
from reconpatch.model.file import fingerprint, write
from reconpatch.model.good_photos import (
    TrainingPhoto,
    assign_groups,
    by_part,
    counted_once,
    groups_of_rows,
)
from reconpatch.model.parity import checked_sample
from reconpatch.model.sample import Sample
from reconpatch.photos.copies import alike, known_photos, signature
from reconpatch.photos.images import MAX_PIXELS, Photo, PhotoSource, read_photo
from reconpatch.photos.kind import Kind, Look
from reconpatch.photos.layout import View
from reconpatch.photos.preprocessing import Geometry, Preprocessing
from reconpatch.photos.regions import find_regions
from reconpatch.photos.registration import RegisteredPhoto
from reconpatch.photos.stored_picture import stored_size
from reconpatch.result import Box, ClosestPatch, Region, Result, SimilarKind


@dataclass(frozen=True, eq=False)
class Judgement:
    """Score and map of a photo, in the pixels of the model's input.

    Attributes:
        score: image score.
        anomaly_map: (height, width) float32, as `Inspector.preprocessing` brings it to the photo.
        model: the model whose patches tell why; of an ensemble, its most alarmed member.
        scores: that model's patch scores, on the grid of its own input.
        worst: (Q, D) float32, its `worst_patches` represented; None where they are not asked for.
    """

    score: float
    anomaly_map: Floats
    model: Model
    scores: PatchScores
    worst: Floats | None = None

    @property
    def kind(self) -> SimilarKind | None:
        """The most similar kind of confirmed defects, where the model knows any."""
        kinds = self.model.defect_kinds
        if kinds is None or self.worst is None:
            return None
        distances = self.scores.distances[worst_patches(self.scores.distances)]
        some = telling(distances, self.model.calibration.map_threshold.value)
        return kinds.most_similar(self.worst[some], distances[some])


class Inspector(Contents):
    """What inspects photos and holds a threshold: a `Model`, or an `Ensemble` of them.

    Nothing in it changes; `with_...` gives a new one.

    Attributes:
        preprocessing: from a photo to what its anomaly map is of; an ensemble's is that of its
            finest member.
        photos: the good photos of the fit.
        calibration: the scores that the thresholds follow, and the thresholds.
        provenance: where it comes from; JSON-ready.
    """

    preprocessing: Preprocessing
    photos: Sequence[TrainingPhoto]
    calibration: Calibration
    provenance: dict[str, Any]

    @abstractmethod
    def judge(self, photos: Sequence[Photo], *, as_new: bool = False) -> list[Judgement]:
        """Score photos, all of them at a time, and draw their anomaly maps.

        Args:
            photos: as `read_photo` gives them.
            as_new: leave out what a photo of the fit, known by its pixels, left in the bank.
        """

    @abstractmethod
    def on_engine(self, name: str) -> Self:
        """The same on another engine; see `reconpatch.engine.engines.ENGINES`.

        Raises:
            SettingsError: there is no engine of that name.
        """

    @abstractmethod
    def with_calibration(self, calibration: Calibration) -> Self:
        """The same with other thresholds."""

    @abstractmethod
    def with_samples(self, samples: Sequence[Sample | None]) -> Self:
        """The same with other samples, one for each member."""

    @property
    @abstractmethod
    def members(self) -> Sequence[Model]:
        """The models at work: one, or those of an ensemble."""

    @property
    def white_level(self) -> int:
        """The 16-bit value that counts as white."""
        return self.preprocessing.white_level

    # --- inspect -------------------------------------------------------------------------------

    def inspect(self, photo: PhotoSource | Photo, *, max_pixels: int = MAX_PIXELS) -> Result:
        """Inspect one photo: whether it is anomalous, where, and compared with what.

        Args:
            photo: a path; a PIL image; an array (H, W) or (H, W, 3) of uint8, uint16, or floats
                in 0 to 1; or a `Photo` that `read_photo` gave. The three channels are red, green
                and blue: OpenCV's frames are `frame[:, :, ::-1]`.
            max_pixels: larger photos are refused.

        Raises:
            PhotoError: the photo cannot be read or used.
        """
        read = self.preprocessing.registered(_read(photo, max_pixels))
        return self._result(read, self.judge([read])[0])

    def inspect_batch(
        self, photos: Iterable[PhotoSource | Photo], *, max_pixels: int = MAX_PIXELS
    ) -> list[Result]:
        """Inspect photos in one run of the engine: see `inspect`.

        Several at a time take less time each; the engine splits what would take too much memory.

        Args:
            photos: several, each as `inspect` takes it; a generator is taken to its end.
            max_pixels: larger photos are refused.

        Raises:
            PhotoError: a photo cannot be read or used, or a single one was given for several.
        """
        read = [self.preprocessing.registered(photo) for photo in _each(photos, max_pixels)]
        if not read:
            return []
        judged = self.judge(read)
        return [self._result(photo, its) for photo, its in zip(read, judged, strict=True)]

    def _result(self, photo: Photo, judged: Judgement) -> Result:
        """The verdict on a photo, in its own pixels."""
        geometry = self.preprocessing.geometry(photo.height, photo.width)
        # Patches lie on the grid of the model they belong to, whose input may be another size.
        of_patches = judged.model.preprocessing.geometry(photo.height, photo.width)
        heatmap = geometry.map_to_photo(judged.anomaly_map)
        anomalous = judged.score > self.threshold
        map_threshold = self.calibration.map_threshold.value
        regions = find_regions(heatmap, map_threshold, at_least_one=True) if anomalous else ()
        result = Result(
            name=photo.name,
            score=judged.score,
            threshold=self.threshold,
            anomalous=anomalous,
            p_value=p_value(judged.score, self.calibration.scores),
            heatmap=heatmap,
            map_threshold=map_threshold,
            regions=regions,
            closest=judged.model.closest(judged.scores, of_patches, regions),
            inspected=geometry.inspected,
            notes=self.differences(photo),
            kind=judged.kind if anomalous else None,
            whole=anomalous and judged.scores.whole,
        )
        return photo.on_original(result) if isinstance(photo, RegisteredPhoto) else result

    @cached_property
    def kind(self) -> Kind | None:
        """Of what kind the photos of the fit are; None in a file from before it was kept."""
        stored = self.members[0].provenance.get("kind")
        return None if stored is None else Kind.from_dict(stored)

    def differences(self, photo: Photo) -> tuple[str, ...]:
        """Describe how a photo differs in kind from those of the fit: see `Result.notes`."""
        if self.kind is None:
            return ()
        ratios = [good.width / good.height for good in self.photos]
        return self.kind.differences(Look.at(photo, self.white_level), ratios)

    def inspect_many(
        self, photos: Iterable[PhotoSource | Photo], *, max_pixels: int = MAX_PIXELS
    ) -> Iterator[Result]:
        """Inspect one photo after the other, as they are asked for."""
        for photo in _each(photos, max_pixels):
            yield self.inspect(photo)

    # --- thresholds ----------------------------------------------------------------------------

    def with_false_alarm_rate(self, rate: float) -> Self:
        """Return the model with the threshold of another false-alarm rate; nothing is fitted."""
        check_rate(rate)
        return self.with_calibration(replace(self.calibration, rate=rate, set_by_hand=None))

    def with_threshold(self, value: float) -> Self:
        """Return the model with a threshold set by hand, 0 or more, in units of the image score."""
        if not 0 <= value < float("inf"):
            raise SettingsError(f"the threshold is {value}: give a score of 0 or more")
        return self.with_calibration(replace(self.calibration, set_by_hand=float(value)))

    def calibrated_on(
        self,
        photos: Iterable[PhotoSource | Photo],
        rate: float | None = None,
        *,
        group: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Self:
        """Return the model with its thresholds set on other good photos.

        Photos of the fit are known by their pixels, and by the model's thumbnails where they were
        saved anew, and are scored without the rows of their group. Copies count once.

        Args:
            photos: good photos, each as `inspect` takes it.
            rate: false-alarm rate; None keeps the model's.
            group: regular expression whose brackets name the part in a photo's name, for several
                shots of one part; see `reconpatch.model.good_photos.assign_groups`.
            max_pixels: larger photos are refused.

        Raises:
            NotEnoughPhotosError: there is none.
            PhotoError: one cannot be read or used, or a single one was given for several.
            SettingsError: the rate or the group is none.
        """
        rate = self.calibration.rate if rate is None else rate
        check_rate(rate)
        held = known_photos(self.members[0].thumbnails, [photo.group for photo in self.photos])
        of_fit = {photo.sha256: photo for photo in self.photos}
        given: list[TrainingPhoto] = []
        scores, maxima, signatures, groups = [], [], [], []
        for read in _each(photos, max_pixels):
            small = signature(self.preprocessing.registered(read), self.white_level)
            side = min(read.height, read.width)
            known, at = of_fit.get(read.sha256), held.find(small, side)
            if known is None and at is not None and at < len(self.photos):
                known = self.photos[at]
                read = known_as(read, known.sha256)
            judged = self.judge([read], as_new=True)[0]
            scores.append(judged.score)
            maxima.append(float(judged.anomaly_map.max()))
            signatures.append(small)
            if known is not None:
                groups.append(known.group)
            elif at is not None:  # a copy of one that was given before
                groups.append(groups[at - len(self.photos)])
            else:
                groups.append(len(self.photos) + len(given))
            held.add(small)
            given.append(TrainingPhoto(read.name, read.sha256, read.height, read.width, len(given)))
        if not given:
            raise NotEnoughPhotosError("there is no good photo to calibrate on: give at least one")
        sides = [min(photo.height, photo.width) for photo in given]
        found = alike(signatures, [photo.name for photo in given], sides)
        parts, _ = assign_groups(given, group, found.joined(groups))
        every = np.arange(len(parts))
        of_parts = by_part(np.array(scores), parts, every)
        calibration = Calibration(
            scores=of_parts,
            map_maxima=by_part(np.array(maxima), parts, every),
            rate=rate,
            source=f"{len(given)} good photos given to calibrate, each scored as if it were new"
            + counted_once(len(given), len(of_parts)),
        )
        return self.with_calibration(calibration)

    # --- file ----------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the model to one file; see `reconpatch.model.file` for what is in it.

        Raises:
            OutputError: the file exists (unless `overwrite`) or cannot be written.
        """
        path = Path(path)
        check_writable(path, overwrite=overwrite)
        # Beyond what engines may differ by, nothing is written.
        write(self.with_samples([checked_sample(member) for member in self.members]), path)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides a verdict: the graph, f, bank, scores and settings.

        The same photos, settings, seed, engine and number of threads give the same fingerprint.
        """
        return fingerprint(self)


def known_as(photo: Photo, sha256: str) -> Photo:
    """A photo that is known by the hash of the one that it is a copy of, or was made on."""
    known = copy.copy(photo)
    vars(known)["sha256"] = sha256
    return known


class Model(Inspector, ModelContents):
    """What `fit` returns and `load` reads back; nothing in it changes, `with_...` gives a new one.

    Its parts are those of `ModelContents`.
    """

    @classmethod
    def of(cls, contents: ModelContents) -> Self:
        """The model that a file holds."""
        return cls(**{field.name: getattr(contents, field.name) for field in fields(contents)})

    @property
    def method(self) -> str:
        """The method of the fit, and whether the guard replaced f by the identity."""
        guard = self.provenance.get("guard")
        by_guard = guard is not None and guard["kept"] == "identity"
        return (
            f"{self.settings.method} (identity, by the guard)" if by_guard else self.settings.method
        )

    def __repr__(self) -> str:
        return (
            f"Model({self.method}, {self.settings.backbone}, {len(self.photos)} good "
            f"photos, {len(self.bank)} bank rows, threshold {self.threshold:.4g})"
        )

    # --- score ---------------------------------------------------------------------------------

    def judge(self, photos: Sequence[Photo], *, as_new: bool = False) -> list[Judgement]:
        """See `Inspector.judge`."""
        if not self.layout.plain:
            return [self._judge_views(photo, as_new) for photo in photos]
        if as_new:
            banks = [self.bank_without(photo.sha256) for photo in photos]
            outputs = [
                (self.engine(self.preprocessing(p)[None], bank), 0, bank)
                for p, bank in zip(photos, banks, strict=True)
            ]
        else:
            output = self.engine(np.stack([self.preprocessing(p) for p in photos]), self.bank)
            outputs = [(output, i, self.bank) for i in range(len(photos))]
        return [
            Judgement(
                float(output.score[i]), output.map[i], self, patch_scores(output, i, bank),
                self._worst(output.features[i], output.distances[i]),
            )
            for output, i, bank in outputs
        ]  # fmt: skip

    def _worst(self, r: Floats, distances: Floats) -> Floats | None:
        """The worst of (P, D) represented patches, where there are kinds to compare them with."""
        return None if self.defect_kinds is None else r[worst_patches(distances)]

    def score_views(self, photo: Photo, *, as_new: bool = False) -> PatchScores:
        """Compare a photo with the bank view by view, and put together what they say.

        Args:
            photo: as `read_photo` gives it; in tiles, of the size of the photos of the fit.
            as_new: see `Inspector.judge`.

        Raises:
            PhotoError: the photo is of another size or shape than the model takes.
        """
        return self._score_views(photo, as_new)[0]

    def _judge_views(self, photo: Photo, as_new: bool) -> Judgement:
        scores, worst = self._score_views(photo, as_new)
        return Judgement(scores.image_score, self.draw(scores.distances), self, scores, worst)

    def _score_views(self, photo: Photo, as_new: bool) -> tuple[PatchScores, Floats | None]:
        """What `score_views` gives, and the photo's worst patches where there are kinds."""
        scoring, bank = self.settings.scoring, self.bank_without(photo.sha256 if as_new else None)
        distances = np.empty(self.layout.places, np.float32)
        weighted = np.empty(self.layout.places, np.float32)
        nearest = np.empty(self.layout.places, np.int64)
        candidates: list[tuple[Floats, Floats]] = []  # the worst patches of each view
        for view, output in self._outputs(photo, bank):
            found = output.distances[0][view.cells], output.nearest[0][view.cells]
            if self.defect_kinds is not None:
                some = worst_patches(found[0])
                candidates.append((found[0][some], output.features[0][view.cells][some]))
            distances[view.places], nearest[view.places] = found
            weighted[view.places] = weighted_distances(
                output.features[0][view.cells], *found, bank, scoring
            )
        # Re-weighting needs the patches themselves; those of a photo in tiles are not kept.
        r = None if self.layout.in_tiles else output.features[0][view.cells]
        scores = score_nearest(r, distances, nearest, bank, scoring, self.layout, weighted)
        if not candidates:
            return scores, None
        far, worst = (np.concatenate(parts) for parts in zip(*candidates, strict=True))
        return scores, worst[worst_patches(far)]

    def _outputs(self, photo: Photo, bank: MemoryBank) -> Iterator[tuple[View, Output]]:
        """Run the engine on each view of a photo, one at a time."""
        self._check_size(photo)
        prepared = self.preprocessing.views(photo, self.layout)
        for view, part in zip(self.layout.views, prepared, strict=True):
            yield view, self.engine(part[None], bank)

    def _check_size(self, photo: Photo) -> None:
        height, width = self.layout.size
        if self.layout.in_tiles and (photo.height, photo.width) != (height, width):
            raise PhotoError(
                f"{photo.name}: {photo.width} x {photo.height} pixels, and this model looks at "
                f"photos of {width} x {height} in tiles: give photos of that size, or fit a model "
                "on photos of this one"
            )

    def with_samples(self, samples: Sequence[Sample | None]) -> Self:
        """See `Inspector.with_samples`."""
        return replace(self, sample=samples[0])

    def on_engine(self, name: str) -> Self:
        """See `Inspector.on_engine`."""
        return replace(self, engine=self.engine.on(name))

    def with_calibration(self, calibration: Calibration) -> Self:
        """See `Inspector.with_calibration`."""
        return replace(self, calibration=calibration)

    @property
    def members(self) -> Sequence[Model]:
        """The model itself."""
        return (self,)

    def bank_without(self, sha256: str | None) -> MemoryBank:
        """The bank without the rows of a photo's group, if its SHA-256 is of the fit; None: all."""
        if sha256 is None:
            return self.bank
        group = self._group_of_hash.get(sha256, -1)
        return self.bank.without(self._group_of_row == group, group)

    def represent(self, photo: Photo) -> Floats:
        """Represent a photo's patches, r = f(p): (P, D) float32."""
        outputs = self._outputs(photo, self.bank)
        features: Floats = self.layout.joined(output.features[0] for _, output in outputs)
        return features

    def draw(self, patch_distances: Floats, size: tuple[int, int] | None = None) -> Floats:
        """The anomaly map of a photo's (P,) patch distances: see `scoring.draw`."""
        return draw(patch_distances, self.layout, self.settings.scoring.blur, size)

    # --- why -----------------------------------------------------------------------------------

    def closest(
        self, scores: PatchScores, geometry: Geometry, regions: Sequence[Region]
    ) -> ClosestPatch:
        """Find the good patch that the worst patch (of the worst region) was compared with."""
        patch = self._worst_patch_in(regions[0].box, scores, geometry) if regions else scores.worst
        row = int(scores.nearest[patch])
        index = int(self.bank.photo[row])
        good = self.photos[index]
        box = self._patch_box(
            int(self.bank.place[row]), self.preprocessing.geometry(good.height, good.width)
        )
        thumbnail, thumbnail_box = None, None
        if self.thumbnails:
            thumbnail = self.thumbnails[index]
            thumbnail_box = _scaled_box(box, good, thumbnail)
        return ClosestPatch(
            photo=good.name,
            box=box,
            patch_box=self._patch_box(patch, geometry),
            distance=float(scores.distances[patch]),
            thumbnail=thumbnail,
            thumbnail_box=thumbnail_box,
            sha256=good.sha256,
        )

    def _worst_patch_in(self, box: Box, scores: PatchScores, geometry: Geometry) -> int:
        """The most distant of the patches whose cell overlaps a box of the photo."""
        rows, columns = self.layout.grid
        # Cells are a grid: the first row tells the columns' sides, the first column the rows'.
        sides = [self._cell_box(x, geometry) for x in range(columns)]
        across = [left < box[2] and right > box[0] for left, _, right, _ in sides]
        sides = [self._cell_box(y * columns, geometry) for y in range(rows)]
        down = [top < box[3] and bottom > box[1] for _, top, _, bottom in sides]
        overlaps = np.outer(down, across).ravel()[self.layout.cell_of]
        return int(np.where(overlaps, scores.distances, -1.0).argmax())

    def _patch_box(self, place: int, geometry: Geometry) -> Box:
        """Locate a patch and the neighbourhood it averages over, in pixels of the photo."""
        cell = int(self.layout.cell_of[place])
        return self._cell_box(cell, geometry, reach=self.settings.neighbourhood // 2)

    def _cell_box(self, cell: int, geometry: Geometry, reach: int = 0) -> Box:
        y, x = divmod(cell, self.layout.grid[1])
        height, width = self.layout.cell_size
        return geometry.box_to_photo(
            (x - reach) * width,
            (y - reach) * height,
            (x + 1 + reach) * width,
            (y + 1 + reach) * height,
        )

    @cached_property
    def _group_of_hash(self) -> dict[str, int]:
        return {photo.sha256: photo.group for photo in self.photos}

    @cached_property
    def _group_of_row(self) -> npt.NDArray[np.int64]:
        return groups_of_rows(self.bank, self.photos)


def _each(photos: Iterable[PhotoSource | Photo], max_pixels: int) -> Iterator[Photo]:
    """Several photos, each read when its turn comes.

    Raises:
        PhotoError: a photo cannot be read, or a single one was given, whose letters or rows would
            be taken for photos.
    """
    single = isinstance(photos, str | bytes | PathLike | PIL.Image.Image | Photo) or (
        isinstance(photos, np.ndarray)
        and (photos.ndim < 3 or (photos.ndim == 3 and photos.shape[2] in (1, 3, 4)))
    )
    if single or not isinstance(photos, Iterable):
        raise PhotoError(
            f"Several photos are asked for, and {type(photos).__name__} was given: give a list of "
            "paths, arrays or PIL images, such as [photo]."
        )
    for photo in photos:
        yield _read(photo, max_pixels)


def _read(photo: PhotoSource | Photo, max_pixels: int) -> Photo:
    return photo if isinstance(photo, Photo) else read_photo(photo, max_pixels=max_pixels)


def _scaled_box(box: Box, photo: TrainingPhoto, thumbnail: bytes) -> Box:
    width, height = stored_size(thumbnail)
    x_scale, y_scale = width / photo.width, height / photo.height
    x0, y0, x1, y1 = box
    left, top = int(x0 * x_scale), int(y0 * y_scale)
    return left, top, max(left + 1, round(x1 * x_scale)), max(top + 1, round(y1 * y_scale))


def patch_scores(output: Output, i: int, bank: MemoryBank) -> PatchScores:
    """What an engine says of the i-th photo's patches by a bank, and of it as a whole."""
    return told_whole(output.patch_scores(i), output.features[i], bank)
