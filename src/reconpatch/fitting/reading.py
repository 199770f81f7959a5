"""Read the good photos of a fit: find them, prepare them, pass over them once.

folder, paths, arrays ── decoded and prepared by threads ── views ── patch features
                               └── records, thumbnails, some views to make defects on
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from reconpatch.errors import PhotoError, SettingsError
from reconpatch.features.extractor import Extractor
from reconpatch.features.store import PatchStore
from reconpatch.fitting.options import FitOptions, report_to, silent
from reconpatch.method.contrastive_components import Moments
from reconpatch.method.memory_bank import Floats, MemoryBank
from reconpatch.method.settings import FitSettings
from reconpatch.model.good_photos import CALIBRATED, TrainingPhoto, calibrated_photos
from reconpatch.model.sample import SAMPLE_PHOTOS
from reconpatch.photos.copies import MOST, Alike, Signature, alike, signature
from reconpatch.photos.images import (
    Bytes,
    Photo,
    PhotoSource,
    as_bytes,
    as_unit,
    photo_size,
    read_photo,
    white_level_for,
)
from reconpatch.photos.kind import Look
from reconpatch.photos.layout import Layout, View
from reconpatch.photos.listing import list_good
from reconpatch.photos.preprocessing import Preprocessing
from reconpatch.photos.read_ahead import read_ahead
from reconpatch.photos.region_of_interest import RegionOfInterest
from reconpatch.photos.registration import Registration

GoodSource = str | os.PathLike[str] | Iterable[PhotoSource]
"""A folder, or photos: those that can be gone through only once are kept by `photos_given`."""

SURVEYED = 40
"""Most photos whose patches the principal basis is taken from."""

_BATCH = 4  # photos through the backbone at a time: more take more memory and no less time
THUMBNAIL_SIDE = 256  # pixels of the longer side


class Sources(NamedTuple):
    """The photos of a fit.

    Attributes:
        photos: paths, arrays or images.
        names: what to call each.
        folder: name of their folder, where there is one.
        left_out: what was left out of it, in one line, or "".
    """

    photos: list[PhotoSource]
    names: list[str]
    folder: str = ""
    left_out: str = ""


def photos_given(good: GoodSource) -> str | os.PathLike[str] | Sequence[PhotoSource]:
    """Make the photos given to a fit re-iterable: a generator becomes a list.

    Raises:
        PhotoError: it is a single photo, or cannot be gone through.
    """
    if isinstance(good, str | os.PathLike):
        return good
    one = isinstance(good, Image.Image) or (isinstance(good, np.ndarray) and good.ndim < 4)
    kind: type[object] = type(good)
    if one or kind in (bytes, bytearray) or not isinstance(good, Iterable):
        raise PhotoError(
            f"The good photos cannot be read from one {type(good).__name__}: give a folder, or "
            "several paths, numpy arrays or PIL images."
        )
    return good if isinstance(good, Sequence) else list(good)


def sources_of(good: GoodSource) -> Sources:
    """The photos of a fit.

    Raises:
        PhotoError: the folder cannot be used, or holds a labelled data set.
    """
    good = photos_given(good)
    if isinstance(good, str | os.PathLike):
        folder = Path(good)
        found = list_good(folder)
        return Sources(list(found.paths), list(found.names), folder.resolve().name, found.sentence)
    short = _short_names([Path(p) for p in good if isinstance(p, str | os.PathLike)])
    names = [
        short[Path(photo)] if isinstance(photo, str | os.PathLike) else f"<photo {i}>"
        for i, photo in enumerate(good)
    ]
    return Sources(list(good), names)


def _short_names(paths: Sequence[Path]) -> dict[Path, str]:
    """As many of the last parts of each path as it takes to tell the paths apart."""
    names: dict[Path, str] = {}
    for depth in range(1, max((len(path.parts) for path in paths), default=0) + 1):
        names = {path: Path(*path.parts[-depth:]).as_posix() for path in paths}
        if len(set(names.values())) == len(names):
            break
    return names


def read_good(good: GoodSource, options: FitOptions) -> Iterator[Photo]:
    """The good photos as a fit reads them: in its order, under its names."""
    sources = sources_of(good)
    return readable(sources.photos, sources.names, options)


def readable(
    sources: Iterable[PhotoSource],
    names: Sequence[str],
    options: FitOptions,
) -> Iterator[Photo]:
    """Yield the photos one by one; refuse or skip those that cannot be read."""
    for source, name in zip(sources, names, strict=True):
        try:
            yield read_photo(source, name=name, max_pixels=options.max_pixels)
        except PhotoError as error:
            _refuse_or_note(error, options)


def _refuse_or_note(error: PhotoError, options: FitOptions) -> str:
    """A note on a photo that is left out; raises PhotoError unless that was asked for."""
    if not options.skip_unreadable:
        raise PhotoError(
            f"{error} Nothing was fitted: mend or remove the photo, or pass "
            "--skip-unreadable to fit without it."
        ) from error
    return f"left out: {error}"


def _white_level(sources: Sequence[PhotoSource], names: Sequence[str], options: FitOptions) -> int:
    """The white level that covers all photos of 16 bits."""
    photos = readable(sources, names, options)
    return white_level_for(
        max(int(photo.pixels.max()) for photo in photos if photo.pixels.dtype == np.uint16)
    )


class Sizes(NamedTuple):
    """Height and width of the photos: those of the first, and the median of each."""

    first: tuple[int, int]
    median: tuple[int, int]


def sizes_of(sources: Sequence[PhotoSource], names: Sequence[str]) -> Sizes:
    """The photos' sizes; what cannot be read is told of when it is read."""
    sizes = []
    for source, name in zip(sources, names, strict=True):
        with suppress(PhotoError):
            sizes.append(photo_size(source, name=name))
    if not sizes:
        return Sizes((1, 1), (1, 1))
    height, width = np.median(sizes, axis=0)
    return Sizes(sizes[0], (int(height), int(width)))


def preprocessing_for(
    settings: FitSettings,
    options: FitOptions,
    sources: Sequence[PhotoSource],
    names: Sequence[str],
) -> Preprocessing:
    """Build the preprocessing of settings and options; registration reads the first photo."""
    region, registration = None, None
    if settings.register:
        registration = Registration.to(next(readable(sources, names, options)))
    if isinstance(options.roi, np.ndarray):
        region = RegionOfInterest.of(options.roi)
    elif options.roi is not None:
        region = RegionOfInterest.read(options.roi, max_pixels=options.max_pixels)
    if region and settings.resize:
        raise SettingsError(
            f"resize is {settings.resize} and a region of interest is given, which says already "
            "what of a photo is inspected: give one of the two"
        )
    return Preprocessing(
        *settings.size,
        settings.resize or None,
        options.white_level or 65535,
        settings.tile,
        settings.overlap if settings.tile else 0,
        region,
        registration,
    )


@dataclass
class Read:
    """Results of one pass over the photos, apart from their features."""

    preprocessing: Preprocessing
    photos: list[TrainingPhoto] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)  # which source each photo came from
    thumbnails: list[bytes] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    # The small pictures that copies are told by, of some photos.
    signatures: dict[int, Signature] = field(default_factory=dict)
    # The part of some photos to make a defect on, prepared.
    prepared: dict[int, tuple[View, Bytes]] = field(default_factory=dict)


class _Decoded(NamedTuple):
    """A photo, prepared for the model unless it is seen in tiles, and its small pictures."""

    photo: Photo
    prepared: Floats
    thumbnail: bytes
    signature: Signature


@dataclass(frozen=True)
class Reading:
    """One pass over the photos: of each its record, its thumbnail and its patch features."""

    sources: Sequence[PhotoSource]
    names: Sequence[str]
    settings: FitSettings
    preprocessing: Preprocessing
    layout: Layout
    options: FitOptions
    views: frozenset[int] | None = None  # photos to keep a view of; None: see `kept_views`
    signed: frozenset[int] | None = None  # photos to keep a signature of; None: see `signed`

    def extract(self, extractor: Extractor, patches: PatchStore, threads: int) -> Read:
        """Read every photo once.

        Photos are decoded, and prepared where they are seen at once, by threads while the engine
        is at work on others. Only where there are photos of 16 bits are they all read once more,
        for the white level.
        """
        sources, options = self.sources, self.options
        level = options.white_level
        read = Read(self.preprocessing)
        report = report_to(options, "extract features") or silent
        kept = kept_views(self.settings, len(sources)) if self.views is None else self.views
        signatures = signed(len(sources)) if self.signed is None else self.signed
        waiting: list[Floats] = []

        def flush() -> None:
            if waiting:
                patches.add(self._of_whole_photos(extractor(np.stack(waiting))))
                waiting.clear()

        for i, decoded in enumerate(read_ahead(self._decode, range(len(sources)), threads)):
            report(i + 1, len(sources))
            if isinstance(decoded, PhotoError):
                read.notes.append(_refuse_or_note(decoded, options))
                continue
            photo = decoded.photo
            if photo.pixels.dtype == np.uint16 and not level:
                level = _white_level(sources, self.names, options)
                read.preprocessing = replace(read.preprocessing, white_level=level)
            if photo.pixels.dtype == np.uint16:  # those read ahead did not know the level
                decoded = self._prepare(photo, read.preprocessing)
            n = len(read.photos)
            read.photos.append(
                TrainingPhoto(photo.name, photo.sha256, photo.height, photo.width, n)
            )
            read.sources.append(i)
            read.looks.append(Look.at(photo, read.preprocessing.white_level))
            if i in signatures:
                read.signatures[n] = decoded.signature
            if self._thumbnails:
                read.thumbnails.append(decoded.thumbnail)
            if self.layout.in_tiles:
                _check_same_size(photo, self.layout)
                patches.add(self._of_tiles(photo, read.preprocessing, extractor))
            else:
                waiting.append(decoded.prepared)
            if n in kept:
                read.prepared[n] = self._kept_view(n, decoded, read.preprocessing)
            if len(waiting) == _BATCH:
                flush()
        flush()
        return read

    def survey(self, extractor: Extractor) -> tuple[Moments, Reading]:
        """Mean and second moment of the features of some views, spread evenly over the photos.

        Returns:
            The moments, and this reading with the white level of photos of 16 bits where there are.
        """
        moments, reading = Moments(extractor.channels), self
        numbers = range(len(self.sources))
        evenly = np.linspace(0, len(numbers) - 1, min(SURVEYED, len(numbers))).round().astype(int)
        left = len(evenly)
        for n in dict.fromkeys([*evenly.tolist(), *numbers]):  # others where some are unreadable
            if not left:
                break
            decoded = reading._decode(n)
            if isinstance(decoded, PhotoError):
                _refuse_or_note(decoded, self.options)
                continue
            preprocessing = reading.preprocessing
            if decoded.photo.pixels.dtype == np.uint16 and not reading.options.white_level:
                level = _white_level(self.sources, self.names, self.options)
                preprocessing = replace(preprocessing, white_level=level)
                options = replace(self.options, white_level=level)
                reading = replace(self, preprocessing=preprocessing, options=options)
                decoded = reading._prepare(decoded.photo, preprocessing)
            view, pixels = reading._kept_view(n, decoded, preprocessing)
            moments.add(extractor(as_unit(pixels[None]))[:, view.cells])
            left -= 1
        return moments, reading

    def features_of(self, read: Read, extractor: Extractor) -> Callable[[Photo], Floats]:
        """What gives the (P, C) features of a photo as `extract` takes those of the good ones."""
        preprocessing = read.preprocessing

        def features(photo: Photo) -> Floats:
            photo = preprocessing.registered(photo)
            if self.layout.in_tiles:
                _check_same_size(photo, self.layout)
                return np.asarray(self._of_tiles(photo, preprocessing, extractor)[0])
            prepared = preprocessing(photo)[None]
            return np.asarray(self._of_whole_photos(extractor(prepared))[0])

        return features

    def _of_whole_photos(self, features: Floats) -> Floats:
        """(B, P, C) features of the inspected patches of photos that are seen at once."""
        (view,) = self.layout.views
        return features if self.layout.plain else features[:, view.cells]

    def _of_tiles(self, photo: Photo, preprocessing: Preprocessing, extractor: Extractor) -> Floats:
        """(1, P, C) features of a photo that is seen in tiles."""
        views = preprocessing.views(photo, self.layout)
        features: Floats = self.layout.joined(extractor(view[None])[0] for view in views)
        return features[None]

    def _kept_view(
        self, n: int, decoded: _Decoded, preprocessing: Preprocessing
    ) -> tuple[View, Bytes]:
        """The n-th photo, or the tile of it that is kept: one that is not mostly uninspected."""
        views = self.layout.views
        if not self.layout.in_tiles:
            return views[0], as_bytes(decoded.prepared)
        most = max(len(view.places) for view in views)
        worthy = [view for view in views if 2 * len(view.places) >= most]
        rng = np.random.default_rng([self.settings.seed, n])
        view = worthy[rng.integers(len(worthy))]
        return view, as_bytes(preprocessing.view(decoded.photo, self.layout, view))

    def _decode(self, i: int) -> _Decoded | PhotoError:
        limit = self.options.max_pixels
        try:
            photo = read_photo(self.sources[i], name=self.names[i], max_pixels=limit)
            _ = photo.sha256  # by the thread that reads
            return self._prepare(self.preprocessing.registered(photo), self.preprocessing)
        except PhotoError as error:
            return error

    def _prepare(self, photo: Photo, preprocessing: Preprocessing) -> _Decoded:
        small = thumbnail(photo, preprocessing.white_level) if self._thumbnails else b""
        signed = signature(photo, preprocessing.white_level)
        if self.layout.in_tiles:  # a tile at a time, when its turn comes
            return _Decoded(photo, np.empty(0, np.float32), small, signed)
        return _Decoded(photo, preprocessing(photo), small, signed)

    @property
    def _thumbnails(self) -> bool:
        return self.options.thumbnails and len(self.sources) <= CALIBRATED


def signed(photos: int) -> frozenset[int]:
    """Choose the photos to search for copies: all, or of very many those that are scored."""
    return frozenset(range(photos) if photos <= MOST else calibrated_photos(photos).tolist())


def alike_of(read: Read) -> Alike:
    """Find the photos that are copies of one picture."""
    photos, found = sorted(read.signatures), Alike.none(len(read.photos))
    of = alike(
        [read.signatures[i] for i in photos],
        [read.photos[i].name for i in photos],
        [min(read.photos[i].height, read.photos[i].width) for i in photos],
    )
    at = np.array(photos, np.int64)
    _, first = np.unique(of.picture, return_index=True)
    found.picture[at] = at[first[of.picture]] if len(at) else at
    return replace(found, near=at[of.near])


def kept_views(settings: FitSettings, photos: int) -> frozenset[int]:
    """Choose the photos kept in prepared form: for made defects, turned copies and the sample.

    They are among those that are scored, of which workers give the features back.
    """
    scored = calibrated_photos(photos)
    count = max(settings.defects, SAMPLE_PHOTOS // 2)
    evenly = np.linspace(0, len(scored) - 1, min(count, len(scored)))
    return frozenset(scored[np.rint(evenly).astype(int)].tolist())


def _check_same_size(photo: Photo, layout: Layout) -> None:
    height, width = layout.size
    if (photo.height, photo.width) != (height, width):
        raise PhotoError(
            f"{photo.name}: {photo.width} x {photo.height} pixels, and the first good photo has "
            f"{width} x {height}: photos that are seen in tiles have one size, so leave out or "
            "crop those of another"
        )


def thumbnails_of(
    bank: MemoryBank, sources: Sequence[PhotoSource], read: Read, options: FitOptions
) -> list[bytes]:
    """Make thumbnails of the photos; of very many, only of those with rows in the bank."""
    if not options.thumbnails:
        return []
    thumbnails = [b""] * len(read.photos)
    for i in np.unique(bank.photo):
        source = sources[read.sources[i]]
        photo = read_photo(source, name=read.photos[i].name, max_pixels=options.max_pixels)
        photo = read.preprocessing.registered(photo)  # boxes are in that frame
        thumbnails[i] = thumbnail(photo, read.preprocessing.white_level)
    return thumbnails


def thumbnail(photo: Photo, white_level: int) -> bytes:
    """Encode a good photo as a JPEG with a longer side of at most THUMBNAIL_SIDE pixels."""
    import io

    image = Image.fromarray(photo.rgb8(white_level))
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
