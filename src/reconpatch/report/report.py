"""The report: overlays at photo size and one self-contained HTML page."""

from __future__ import annotations

import hashlib
import heapq
import io
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from reconpatch.files import (
    add_sum,
    atomic_write,
    check_replaceable,
    is_still,
    make_folder,
    read_sums,
    remove_if_still,
    write_sums,
)
from reconpatch.method.calibration import promise
from reconpatch.photos.listing import OVERLAY, OVERLAY_SUMS
from reconpatch.photos.stored_picture import stored_picture
from reconpatch.report.overlay import css_gradient, outline, overlay
from reconpatch.report.pages import rendered
from reconpatch.report.plots import Bar, Bins, Doubles, photos, stacked
from reconpatch.result import Box, Region, Result

if TYPE_CHECKING:
    from reconpatch.model.model import Inspector, Model

PICTURES_SHOWN = 200
"""Number of photos whose pictures the page holds: those with the highest scores."""

SUMS = OVERLAY_SUMS
"""List of the overlays of a report, as `sha256sum` makes it: other files are not the report's."""

_LARGE_SIDE = 480
_TILE_SIDE = 320
_CROP_SIDE = 320
_JPEG_QUALITY = 85


@dataclass(frozen=True)
class ReportContext:
    """What the page says about the model.

    Attributes:
        title: heading of the page.
        model_name: name of the model, as a user would recognise it.
        threshold: image score above which a photo is anomalous.
        map_threshold: value of the anomaly map above which a pixel belongs to a region.
        promise: what the threshold promises, in plain words.
        calibration_scores: (n,) float64 scores of the good photos the threshold was set on.
        facts: shown as a small table, such as ``{"backbone": ..., "training photos": ...}``.
        notes: warnings in plain words, shown at the top.
    """

    title: str
    model_name: str
    threshold: float
    map_threshold: float
    promise: str
    calibration_scores: npt.NDArray[np.float64]
    facts: dict[str, str]
    notes: Sequence[str] = ()


def context_of(model: Inspector, title: str, model_name: str) -> ReportContext:
    """What the page says about a fitted model."""
    calibration = model.calibration
    threshold = calibration.image_threshold
    return ReportContext(
        title=title,
        model_name=model_name,
        threshold=threshold.value,
        map_threshold=calibration.map_threshold.value,
        promise=promise(threshold.stated_rate, threshold.rate_range(), threshold.photos),
        calibration_scores=calibration.scores,
        facts={
            "good photos": str(len(model.photos)),
            "threshold from": calibration.source,
            "backbone": _of_members(model, _backbone_of),
            "input": _of_members(model, _input_of),
            "representation": _of_members(model, lambda member: member.method),
            "memory bank": "; ".join(_bank_of(member) for member in model.members),
            "fitted": model.provenance["created"],
            "fingerprint": model.fingerprint[:16],
        },
        notes=[*calibration.notes, *model.provenance["notes"]],
    )


def _of_members(model: Inspector, fact: Callable[[Model], str]) -> str:
    """A fact of each member, said once where members share it."""
    return "; ".join(dict.fromkeys(fact(member) for member in model.members))


def _backbone_of(model: Model) -> str:
    return f"{model.settings.backbone}, weights {model.provenance['weights']['location']}"


def _input_of(model: Model) -> str:
    of = model.preprocessing
    ways = [
        f"{of.height} x {of.width} pixels",
        f"for each tile of {of.tile} pixels" if of.tile else "",
        f"{of.region.share:.0%} of the photo" if of.region else "",
        "registered" if of.registration else "",
    ]
    return ", ".join(filter(None, ways))


def _bank_of(model: Model) -> str:
    return f"{len(model.bank)} rows of {model.bank.rows.shape[1]} numbers"


@dataclass(frozen=True)
class _Pictures:
    """JPEG bytes of one photo, as the page embeds them."""

    overlay: bytes
    photo: bytes
    worst: bytes | None = None
    closest: bytes | None = None


@dataclass(frozen=True)
class _Entry:
    """What the page says about one photo, without its pictures and its map."""

    name: str
    label: str | None
    score: float
    anomalous: bool
    p_value: float
    regions: tuple[Region, ...]
    closest_photo: str
    kind: str
    whole: bool
    overlay: str

    @property
    def overlay_url(self) -> str:
        return quote(self.overlay)


class ReportWriter:
    """Writes overlays one by one and the page at the end, in bounded memory.

    Only the pictures of the 200 highest scores are kept; of the others a line in the table and the
    overlay on disk remain. Nothing named ``report.html`` exists before `close`.

    Args:
        folder: where ``report.html`` and ``overlays/`` go; made if missing. What an earlier report
            wrote there and this one does not is removed at the end, as long as it is unchanged;
            files of others stay.
        context: what the page says about the model.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, context: ReportContext) -> None:
        self._folder = folder
        self._context = context
        self._entries: list[_Entry] = []
        self._errors: list[tuple[str, str]] = []
        self._pictures: dict[int, _Pictures] = {}
        self._lowest_shown: list[tuple[float, int]] = []
        self._taken: set[str] = set()
        for made in (folder, folder / "overlays"):  # which of them is in the way is told
            make_folder(made)
        for file in ("report.html", SUMS):
            check_replaceable(folder / file)
        self._earlier = read_sums(folder / SUMS)
        self._written: dict[str, str] = {}

    def add(
        self, photo_rgb: npt.NDArray[np.uint8], result: Result, label: str | None = None
    ) -> None:
        """Writes the overlay of one photo and remembers what the page needs of it.

        Args:
            photo_rgb: (H, W, 3) uint8, the photo in the pixels of the result's map.
            result: the verdict on it.
            label: what the photo is known to be, such as its folder's name.

        Raises:
            PhotoError: photo and map do not fit each other.
            OutputError: the overlay cannot be written.
        """
        painted = overlay(photo_rgb, result.heatmap, result.map_threshold, result.regions)
        relative = self._free_name(result.name)
        self._write(f"overlays/{relative}", painted)
        entry = _Entry(
            name=result.name,
            label=label,
            score=float(result.score),
            anomalous=bool(result.anomalous),
            p_value=float(result.p_value),
            regions=tuple(result.regions),
            closest_photo=result.closest.photo,
            kind=str(result.kind or ""),
            whole=result.whole,
            overlay=f"overlays/{relative}",
        )
        self._entries.append(entry)
        self._keep_pictures(len(self._entries) - 1, painted, photo_rgb, result)

    def _free_name(self, name: str) -> str:
        """A name in ``overlays`` that neither this report has used nor a file of another has."""
        while True:
            relative = unique_name(safe_name(name), self._taken)
            path, known = self._folder / "overlays" / relative, f"overlays/{relative}"
            if not os.path.lexists(path) or is_still(path, self._earlier.get(known, "")):
                return relative

    def _write(self, name: str, painted: Image.Image) -> None:
        """Write an overlay, and note it on the list of what this folder has of ours."""
        path, content = self._folder / name, io.BytesIO()
        # Photo-sized PNGs cost more time than the inspection at the default compression.
        painted.save(content, "PNG", compress_level=1, pnginfo=_overlay_info())
        digest = hashlib.sha256(content.getbuffer()).hexdigest()
        make_folder(path.parent)
        with atomic_write(path) as file:
            file.write(content.getbuffer())
        self._written[name] = digest
        # At once: of a report that is killed the next one knows the overlays too.
        add_sum(self._folder / SUMS, name, digest)

    def add_error(self, name: str, message: str) -> None:
        """Lists a photo that could not be inspected, with the reason in plain words."""
        self._errors.append((name, message))

    def close(self) -> Path:
        """Writes the page under a temporary name, then renames it.

        Returns:
            Path of ``report.html``.

        Raises:
            OutputError: the page cannot be written.
        """
        path = self._folder / "report.html"
        with atomic_write(path) as file:
            file.writelines(_render(self._context, self._entries, self._pictures, self._errors))
        for name, digest in self._earlier.items():
            if name not in self._written and name.startswith("overlays/"):
                remove_if_still(self._folder, name, digest)
        write_sums(self._folder / SUMS, self._written)
        return path

    def _keep_pictures(
        self, number: int, painted: Image.Image, photo_rgb: npt.NDArray[np.uint8], result: Result
    ) -> None:
        """Encodes the pictures of photo `number` if its score is among the highest so far."""
        # Of equal scores the earlier photo stays, as in the order of the page.
        rank = (float(result.score), -number)
        if len(self._lowest_shown) < PICTURES_SHOWN:
            heapq.heappush(self._lowest_shown, rank)
        elif rank > self._lowest_shown[0]:
            _, dropped = heapq.heapreplace(self._lowest_shown, rank)
            del self._pictures[-dropped]
        else:
            return
        self._pictures[number] = _pictures(painted, Image.fromarray(photo_rgb), result)


# --- Names of files -------------------------------------------------------------------------------

_MAX_PART = 50  # characters; 200 bytes at worst, where file systems allow 255
_DEVICES = {"CON", "PRN", "AUX", "NUL"} | {f"{d}{i}" for d in ("COM", "LPT") for i in range(1, 10)}


def safe_name(name: str) -> str:
    """Turns the name of a photo into a relative name that every file system takes.

    Keeps the file's stem and the folder it is in. Drive letters, leading slashes and ``..`` go;
    reserved characters become ``_``; parts longer than 50 characters lose their beginning.

    Returns:
        ``folder/stem.png`` or ``stem.png``, with forward slashes.
    """
    parts = [part for part in re.split(r"[/\\]", name) if not re.fullmatch(r"\.*|[A-Za-z]:", part)]
    *folders, file = parts or ["photo"]
    stem = file.rpartition(".")[0] or file
    # No dots in folders: a folder called a.png must not stand in the way of a file called a.png.
    return (
        "/".join([*(_safe_part(f.replace(".", "_")) for f in folders[-1:]), _safe_part(stem)])
        + ".png"
    )


def _overlay_info() -> PngImagePlugin.PngInfo:
    """Metadata by which a listing of photos knows an overlay."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", OVERLAY)
    return info


def unique_name(name: str, taken: set[str]) -> str:
    """Appends ``-2``, ``-3``, ... until a name is not among those taken, and takes it.

    Names that differ only in upper and lower case count as the same, as they do on Windows.

    Args:
        name: a relative name that ends in ``.png``.
        taken: names handed out so far; grows by one.
    """
    stem, candidate, count = name.removesuffix(".png"), name, 1
    while candidate.casefold() in taken:
        count += 1
        candidate = f"{stem}-{count}.png"
    taken.add(candidate.casefold())
    return candidate


def _safe_part(part: str) -> str:
    part = unicodedata.normalize("NFC", part)
    part = re.sub(r'[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]', "_", part)[-_MAX_PART:].strip(" .") or "_"
    return f"_{part}" if part.split(".")[0].rstrip().upper() in _DEVICES else part


# --- Pictures -------------------------------------------------------------------------------------


def _pictures(painted: Image.Image, photo: Image.Image, result: Result) -> _Pictures:
    if not result.anomalous:
        return _Pictures(small_jpeg(painted, _TILE_SIDE), small_jpeg(photo, _TILE_SIDE))
    worst, closest = _comparison(photo, result)
    return _Pictures(
        small_jpeg(painted, _LARGE_SIDE),
        small_jpeg(photo, _LARGE_SIDE),
        _jpeg(worst),
        _jpeg(closest) if closest else None,
    )


def _comparison(photo: Image.Image, result: Result) -> tuple[Image.Image, Image.Image | None]:
    """The photo's worst place and the closest good patch, at the same magnification."""
    closest = result.closest
    window = _window_around(closest.patch_box, result.regions[:1], photo.size)
    worst = _crop(photo, window, closest.patch_box, _crop_size(window))
    if closest.thumbnail is None or closest.thumbnail_box is None:
        return worst, None
    thumbnail = stored_picture(closest.thumbnail)
    # A patch is the same share of every photo. Shares of the whole are exact where the box of a
    # patch in a small thumbnail is rounded to a few pixels.
    scale = (thumbnail.width / photo.width, thumbnail.height / photo.height)
    same = _follow(window, _centre(closest.patch_box), _centre(closest.thumbnail_box), scale)
    inside = _shift_inside(same, thumbnail.size)
    return worst, _crop(thumbnail, inside, closest.thumbnail_box, _crop_size(window))


def _window_around(patch: Box, regions: Sequence[Region], size: tuple[int, int]) -> Box:
    """A square around a patch and the regions, at least a quarter of the photo's longer side."""
    boxes = np.array([patch, *(region.box for region in regions)])
    x0, y0 = boxes[:, :2].min(axis=0).tolist()
    x1, y1 = boxes[:, 2:].max(axis=0).tolist()
    side = round(max(1.3 * (x1 - x0), 1.3 * (y1 - y0), max(size) / 4, 1))
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    return _shift_inside((left, top, left + side, top + side), size)


def _shift_inside(box: Box, size: tuple[int, int]) -> Box:
    """The box moved into an image of this size (width, height), and cut if it is larger."""
    x0, x1 = _shift_span(box[0], box[2], size[0])
    y0, y1 = _shift_span(box[1], box[3], size[1])
    return x0, y0, x1, y1


def _shift_span(start: int, end: int, length: int) -> tuple[int, int]:
    extent = min(max(1, end - start), length)
    start = min(max(0, start), length - extent)
    return start, start + extent


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _follow(
    box: Box,
    origin: tuple[float, float],
    target: tuple[float, float],
    scale: tuple[float, float],
) -> Box:
    """The box scaled along x and y and moved with it, so that `origin` comes to lie on `target`."""
    x0, y0, x1, y1 = (
        round(target[i % 2] + (box[i] - origin[i % 2]) * scale[i % 2]) for i in range(4)
    )
    return x0, y0, x1, y1


def _crop_size(window: Box) -> tuple[int, int]:
    """Width and height of a window enlarged or reduced to 320 pixels on its longer side."""
    width, height = window[2] - window[0], window[3] - window[1]
    scale = _CROP_SIDE / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _crop(image: Image.Image, window: Box, marked: Box, size: tuple[int, int]) -> Image.Image:
    """A window of an image, resized, with a box in it framed."""
    scale = (size[0] / (window[2] - window[0]), size[1] / (window[3] - window[1]))
    cropped = image.resize(size, Image.Resampling.BICUBIC, box=window)
    outline(cropped, _follow(marked, window[:2], (0, 0), scale), line=2)
    return cropped


def small_jpeg(image: Image.Image, longest: int) -> bytes:
    """A JPEG of an image, its longer side no longer than a number of pixels."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _jpeg(small)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


# --- Histogram ------------------------------------------------------------------------------------

_BINS = 40
_MAX_LABELS = 6
_WIDTH, _LEFT, _RIGHT, _TOP = 760, 44, 14, 34
_PANEL, _CAPTION, _GAP = 124, 24, 22


class _Series(NamedTuple):
    """Scores drawn in one colour: the CSS class of the colour, and its name in the legend."""

    key: str
    name: str
    scores: Doubles


@dataclass(frozen=True)
class _Panel:
    """One row of the histogram with its own count axis."""

    caption: str
    caption_y: float
    base: float
    top: float
    highest: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class _Histogram:
    """Geometry of the score histogram, in units of its SVG view box."""

    width: int
    height: int
    left: int
    right: int
    threshold_x: float
    threshold_anchor: str
    ticks: tuple[tuple[float, str], ...]
    panels: tuple[_Panel, ...]
    legend: tuple[tuple[str, str], ...]
    cut_at: float | None


def _histogram(context: ReportContext, entries: Sequence[_Entry]) -> _Histogram:
    calibration = _Series("calibration", "calibration", np.asarray(context.calibration_scores))
    inspected = _series(entries)
    everything = np.concatenate([series.scores for series in (calibration, *inspected)])
    bins = Bins.over(everything, context.threshold, _BINS, _LEFT, _WIDTH - _RIGHT)
    rows = (
        (f"{photos(calibration.scores.size)} known to be good (calibration)", [calibration]),
        (f"{photos(len(entries))} inspected now", inspected),
    )
    return _Histogram(
        width=_WIDTH,
        height=_TOP + 2 * _PANEL + _GAP + 40,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        threshold_x=bins.x(context.threshold),
        threshold_anchor=_anchor(bins.x(context.threshold)),
        ticks=tuple((bins.x(value), f"{value:g}") for value in _nice_ticks(*bins.ends)),
        panels=tuple(
            _panel(caption, series, bins, _TOP + row * (_PANEL + _GAP))
            for row, (caption, series) in enumerate(rows)
        ),
        legend=tuple((series.key, series.name) for series in (calibration, *inspected)),
        cut_at=bins.edge(bins.last) if everything.max(initial=-math.inf) > bins.ends[1] else None,
    )


def _series(entries: Sequence[_Entry]) -> list[_Series]:
    """The inspected photos by label, or by verdict where there are no labels."""
    names = {"good": "verdict: good", "anomalous": "verdict: anomalous"}
    keys = ["anomalous" if entry.anomalous else "good" for entry in entries]
    if _has_labels(entries):
        names = {f"label-{i}": label for i, label in enumerate(_labels(entries)[:_MAX_LABELS])}
        key_of = {label: key for key, label in names.items()}
        keys = [key_of.get(_label(entry), "label-other") for entry in entries]
        names |= {"label-other": "other labels"} if "label-other" in keys else {}
    return [
        _Series(
            key,
            name,
            np.array([e.score for e, k in zip(entries, keys, strict=True) if k == key], np.float64),
        )
        for key, name in names.items()
    ]


def _panel(caption: str, series: Sequence[_Series], bins: Bins, top: float) -> _Panel:
    base, height = top + _PANEL, _PANEL - _CAPTION
    bars, highest = stacked([(of.key, of.scores) for of in series], bins, base, height)
    return _Panel(caption, top + 8, base, base - height if highest else base, highest, bars)


def _anchor(x: float) -> str:
    """How a label at x is aligned so that it stays inside the picture."""
    return "start" if x < _LEFT + 50 else "end" if x > _WIDTH - _RIGHT - 50 else "middle"


def _nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers in [low, high], about six of them."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    ticks = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [float(f"{i * step:.10g}") for i in ticks]


# --- Words ----------------------------------------------------------------------------------------


def figure(value: float) -> str:
    """A score in four significant digits."""
    return f"{value:.4g}"


def multiple(value: float, threshold: float) -> str:
    """A value as a multiple of the threshold: ``2.3 × threshold``; two digits close to 1."""
    if threshold <= 0:
        return figure(value)
    ratio = value / threshold
    return f"{ratio:.2f} × threshold" if abs(ratio - 1) < 0.1 else f"{ratio:.1f} × threshold"


def headline(anomalous: int, inspected: int) -> str:
    """The result in one line, such as ``7 of 40 photos are anomalous``."""
    if inspected == 0:
        return "No photo was inspected"
    if anomalous == 0:
        return (
            "The photo is good" if inspected == 1 else f"None of {inspected:,} photos is anomalous"
        )
    if inspected == 1:
        return "The photo is anomalous"
    return f"{anomalous:,} of {inspected:,} photos {'is' if anomalous == 1 else 'are'} anomalous"


def _label(entry: _Entry) -> str:
    return "no label" if entry.label is None else entry.label


def _has_labels(entries: Sequence[_Entry]) -> bool:
    return any(entry.label is not None for entry in entries)


def _labels(entries: Sequence[_Entry]) -> list[str]:
    """All labels, that of the good photos first, then by name."""
    return sorted({_label(entry) for entry in entries}, key=lambda label: (label != "good", label))


def _label_rows(entries: Sequence[_Entry]) -> list[tuple[str, int, int]]:
    """Label, number of photos, number of flagged photos; nothing if no photo has a label."""
    if not _has_labels(entries):
        return []
    photos = Counter(_label(entry) for entry in entries)
    flagged = Counter(_label(entry) for entry in entries if entry.anomalous)
    return [(label, photos[label], flagged[label]) for label in _labels(entries)]


# --- The page -------------------------------------------------------------------------------------


def _render(
    context: ReportContext,
    entries: Sequence[_Entry],
    pictures: dict[int, _Pictures],
    errors: Sequence[tuple[str, str]],
) -> Iterator[bytes]:
    """The page piece by piece, so that its pictures are never all in memory as text."""
    order = sorted(range(len(entries)), key=lambda number: (-entries[number].score, number))
    anomalous = sum(entry.anomalous for entry in entries)
    return rendered(
        "report.html.j2",
        {"figure": figure, "multiple": multiple, "photos": photos},
        rows=[(entries[number], pictures.get(number)) for number in order],
        context=context,
        errors=errors,
        anomalous=anomalous,
        headline=headline(anomalous, len(entries)),
        histogram=_histogram(context, entries),
        label_rows=_label_rows(entries),
        kinds=any(entry.kind for entry in entries),
        gradient=css_gradient(),
        pictures_shown=PICTURES_SHOWN,
    )
