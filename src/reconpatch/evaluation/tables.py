"""The benchmark's records, and its tables as Markdown and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from reconpatch.evaluation.datasets import GOOD
from reconpatch.evaluation.published import Published, published
from reconpatch.files import atomic_write
from reconpatch.method.metrics import METRICS
from reconpatch.report.overlay import css_gradient, outline, overlay
from reconpatch.report.pages import rendered
from reconpatch.report.plots import Bar, Bins, stacked
from reconpatch.result import Result

if TYPE_CHECKING:
    from reconpatch.evaluation.config import Config
    from reconpatch.evaluation.datasets import LabelledPhoto
    from reconpatch.evaluation.other_programs import OtherResults

Masks = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

PICTURES_EACH = 3
"""Worst misses, and worst false alarms, that a record keeps pictures of."""

PICTURES_SHOWN = 120
"""Pictures that the page holds at most; all of them are in the folder."""

PRO_SHOWN = 0.3
"""False positive rate at which the plot of the PRO curve ends."""

_PICTURE_SIDE = 260  # pixels

# --- Records --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A photo that a model got wrong, and its heat map, side by side in one JPEG.

    Attributes:
        file: relative to the output folder.
        kind: "miss" or "false alarm".
        photo: its name, relative to the data set.
        label: "good", or the kind of defect.
        score: its image score.
    """

    file: str
    kind: str
    photo: str
    label: str
    score: float


@dataclass(frozen=True)
class Record:
    """What came of one category, method and seed; JSON-ready.

    Attributes:
        config, dataset, category, method, seed: which it is.
        key: SHA-256 of all that decides it; a record whose key is another is done anew.
        created: when, UTC.
        error: why there are no figures, or None.
        metrics: areas in 0 to 1, None where there is nothing to measure; see `METRICS`.
        by_kind: MVTec LOCO's figures of logical and structural anomalies, else empty.
        counts: photos for the fit; good, defective and masked test photos.
        threshold: of the image score, from good photos alone; good photos and defective photos
            above it.
        protocol: how it was measured, a sentence each.
        notes: what to know about the photos and the fit, a sentence each.
        settings: of the fit, one entry a member.
        seconds: by phase.
        peak_memory: highest resident size of the process so far, in bytes; None on Windows.
        versions: of the packages at work, and of the machine.
        hashes: "model" (fingerprint), "good photos" (pixels of the fit), "files" (all that was
            read).
        photos: name, label and image score of each test photo.
        curves: "roc" and "pro" over pixels, thinned for plots; [rate, share] each.
        pictures: worst misses and worst false alarms.
    """

    config: str
    dataset: str
    category: str
    method: str
    seed: int
    key: str
    created: str
    error: str | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    by_kind: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    threshold: Mapping[str, float] = field(default_factory=dict)
    protocol: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    photos: tuple[tuple[str, str, float], ...] = ()
    curves: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True)
class BenchmarkOutcome:
    """What a benchmark came to.

    Attributes:
        config: what was benchmarked.
        dataset: the data set's name.
        changed: settings that were changed from the config, by name.
        random_weights: whether the backbones had random weights, asked for.
        records: one for each category, method and seed, in that order.
        reused: how many of them were there before.
        folder: where results.json, results.md and results.html are.
        beside: other programs' results of the same categories.
    """

    config: Config
    dataset: str
    changed: Mapping[str, Any]
    random_weights: bool
    records: Sequence[Record]
    reused: int
    folder: Path
    beside: Sequence[OtherResults] = ()

    @property
    def errors(self) -> list[Record]:
        """The records without figures."""
        return [record for record in self.records if record.error is not None]


# --- Pictures of what went wrong ------------------------------------------------------------------


class Gallery:
    """Pictures of the worst misses and the worst false alarms, three of each."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[float, Picture, Image.Image]]] = {}

    def offer(
        self,
        labelled: LabelledPhoto,
        result: Result,
        rgb: npt.NDArray[np.uint8],
        masks: Sequence[Masks],
    ) -> None:
        """Take a photo with a wrong verdict, if it is among the worst of its kind so far."""
        kind, badness = (
            ("miss", -result.score) if labelled.defective else ("false alarm", result.score)
        )
        kept = self._kept.setdefault(kind, [])
        if len(kept) == PICTURES_EACH and badness <= kept[-1][0]:
            return
        picture = Picture("", kind, result.name, labelled.label, result.score)
        kept.append((badness, picture, _side_by_side(rgb, result, masks)))
        kept.sort(key=lambda entry: -entry[0])
        del kept[PICTURES_EACH:]

    def write(self, folder: Path, key: str) -> Iterator[Picture]:
        """Write the pictures; each with its file, worst first."""
        for kind, kept in sorted(self._kept.items(), reverse=True):
            for i, (_, picture, image) in enumerate(kept):
                name = f"pictures/{key[:16]}-{kind.replace(' ', '-')}-{i + 1}.jpg"
                with atomic_write(folder / name) as file:
                    image.save(file, "JPEG", quality=80)
                yield replace(picture, file=name)


def _side_by_side(
    rgb: npt.NDArray[np.uint8], result: Result, masks: Sequence[Masks]
) -> Image.Image:
    """The photo, its defects framed, and its heat map; 260 pixels each on the longer side."""
    photo = Image.fromarray(rgb)
    painted = overlay(rgb, result.heatmap, max(result.map_threshold, 0.0), result.regions)
    for mask in masks:
        if box := Image.fromarray(mask).getbbox():
            outline(photo, box)
    for image in (photo, painted):
        image.thumbnail((_PICTURE_SIDE, _PICTURE_SIDE))
    both = Image.new("RGB", (2 * photo.width + 4, photo.height), "white")
    both.paste(photo, (0, 0))
    both.paste(painted, (photo.width + 4, 0))
    return both


# --- Tables ---------------------------------------------------------------------------------------

ORACLE = (
    "An F1-max (oracle) takes the best of all thresholds by looking at the labels of the test "
    "photos it is judged by: an upper bound, which no threshold set beforehand reaches."
)
NOTHING_CHOSEN = (
    "Nothing is chosen on test photos: settings stand in the config, the threshold comes from the "
    "good photos of the fit, and no epoch or seed is picked. "
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what the figures are.
        columns: headings; the first is that of the row names.
        rows: the row's name, then a text for each other column.
        note: a sentence on how to read it, or nothing.
        quoted: how many of the last columns are figures that other metrics gave.
        has_mean: whether the last row is a mean.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    quoted: int = 0
    has_mean: bool = False

    def markdown(self) -> str:
        """The table as GitHub's Markdown, under a heading."""
        head = [_markdown_row(self.columns), "|---" + "|---:" * (len(self.columns) - 1) + "|"]
        note = [self.note, ""] if self.note else []
        return "\n".join([f"## {self.title}", "", *note, *head, *map(_markdown_row, self.rows)])


def metric_tables(outcome: BenchmarkOutcome) -> list[Table]:
    """A table for each metric that any record has, in per cent, published figures beside it."""
    measured = {
        name for record in outcome.records for name, v in record.metrics.items() if v is not None
    }
    return [_metric_table(outcome, name) for name in METRICS if name in measured]


def _metric_table(outcome: BenchmarkOutcome, metric: str) -> Table:
    categories = _categories(outcome)
    columns = list(_columns(outcome, metric))
    rows = [(name, *(column.cells[i] for column in columns)) for i, name in enumerate(categories)]
    has_mean = len(categories) > 1
    if has_mean:
        rows.append((f"mean of {len(categories)}", *(column.mean for column in columns)))
    return Table(
        title=f"{METRICS[metric]}, %",
        columns=("category", *(column.title for column in columns)),
        rows=tuple(rows),
        note=ORACLE if metric.endswith("_oracle") else "",
        quoted=sum(column.quoted for column in columns),
        has_mean=has_mean,
    )


@dataclass(frozen=True)
class _Column:
    """A column of a metric's table: a cell for each category, their mean, and who measured."""

    title: str
    cells: Sequence[str]
    mean: str
    quoted: bool = False


def _columns(outcome: BenchmarkOutcome, metric: str) -> Iterator[_Column]:
    """By this project's metrics its methods and other programs; then by theirs, and published."""
    categories = _categories(outcome)
    for method in _methods(outcome):
        cells = [_cell(_of(outcome, category, method), metric) for category in categories]
        yield _Column(method, cells, _spread(_seed_means(outcome, method, metric)))
    for other in outcome.beside:
        yield _other_column(other, other.title, categories, "metrics", metric)
    for other in outcome.beside:
        if any(metric in record.own for record in other.records):
            title = f"{other.title}, by its own metrics"
            yield _other_column(other, title, categories, "own", metric)
    for column in published_beside(outcome):
        if column.has(metric):
            cells = [_per_cent(column.figure(metric, category)) for category in categories]
            yield _Column(
                column.title, cells, _per_cent(column.mean(metric, categories)), quoted=True
            )


def _other_column(
    other: OtherResults,
    title: str,
    categories: Sequence[str],
    by: Literal["metrics", "own"],
    metric: str,
) -> _Column:
    figures = {(r.category, r.seed): getattr(r, by).get(metric) for r in other.records}
    seeds = list(dict.fromkeys(seed for _, seed in figures))
    cells = [_spread([v for (c, _), v in figures.items() if c == name]) for name in categories]
    of_seed = [[figures.get((category, seed)) for category in categories] for seed in seeds]
    return _Column(title, cells, _spread([_mean(values) for values in of_seed]), by == "own")


def published_beside(outcome: BenchmarkOutcome) -> list[Published]:
    """The published columns that the config names for this data set."""
    columns = [published(key) for key in outcome.config.compare]
    return [column for column in columns if column.dataset == outcome.dataset]


def threshold_table(outcome: BenchmarkOutcome) -> Table:
    """What the threshold, set on good photos alone, did on the test photos; all seeds together."""
    methods = _methods(outcome)
    rows = [
        (category, *(_verdicts(_of(outcome, category, method)) for method in methods))
        for category in _categories(outcome)
    ]
    note = "Good photos flagged by mistake, and defective photos found, of all seeds together."
    return Table(
        "At the threshold from good photos alone", ("category", *methods), tuple(rows), note
    )


def cost_table(outcome: BenchmarkOutcome) -> Table:
    """Seconds and memory of each method and other program: means over categories and seeds."""
    columns = ("method", "fit, s", "inspect, ms a photo", "metrics, s", "peak memory, MB")
    rows = [
        (method, *_costs([r for r in outcome.records if r.method == method and not r.error]))
        for method in _methods(outcome)
    ]
    rows += [(other.title, *_other_costs(other)) for other in outcome.beside]
    note = (
        "Means over categories and seeds; inspection without reading the photo. Peak memory is the "
        "highest resident size that the process had reached by then."
    )
    return Table("Time and memory", columns, tuple(rows), note)


def _costs(records: Sequence[Record]) -> tuple[str, ...]:
    if not records:
        return ("–",) * 4
    testing = ("read", "inspect", "metrics")
    fit = [sum(v for k, v in r.seconds.items() if k not in testing) for r in records]
    inspect = [1000 * r.seconds["inspect"] / len(r.photos) for r in records]
    metrics = [r.seconds["metrics"] for r in records]
    memory = [r.peak_memory / 1e6 for r in records if r.peak_memory is not None]
    means = [f"{np.mean(values):.1f}" for values in (fit, inspect, metrics)]
    return (*means, f"{max(memory):.0f}" if memory else "–")


def _other_costs(other: OtherResults) -> tuple[str, ...]:
    """As `_costs`, of which another program tells two; a dash unless all its records tell it."""
    fit = _mean([record.fit_seconds for record in other.records])
    inspect = _mean([record.ms_per_photo for record in other.records])
    return (*("–" if mean is None else f"{mean:.1f}" for mean in (fit, inspect)), "–", "–")


def _verdicts(records: Sequence[Record]) -> str:
    done = [record for record in records if record.error is None]
    if not done:
        return "error"
    false, found = (sum(r.threshold[name] for r in done) for name in ("false_alarms", "detected"))
    good, defective = (sum(r.counts[name] for r in done) for name in ("good", "defective"))
    return f"{false:.0f} of {good} flagged, {found:.0f} of {defective} found"


def _categories(outcome: BenchmarkOutcome) -> list[str]:
    return list(dict.fromkeys(record.category for record in outcome.records))


def _methods(outcome: BenchmarkOutcome) -> list[str]:
    return list(dict.fromkeys(record.method for record in outcome.records))


def _seeds(outcome: BenchmarkOutcome) -> list[int]:
    return list(dict.fromkeys(record.seed for record in outcome.records))


def _of(outcome: BenchmarkOutcome, category: str, method: str) -> list[Record]:
    return [r for r in outcome.records if r.category == category and r.method == method]


def _cell(records: Sequence[Record], metric: str) -> str:
    """Mean and spread over the seeds; a record that failed is always told."""
    failed = sum(record.error is not None for record in records)
    if failed == len(records):
        return "error"
    values = [record.metrics.get(metric) for record in records if record.error is None]
    text = _spread(values)
    return f"{text}, {failed} of {len(records)} failed" if failed else text


def _seed_means(outcome: BenchmarkOutcome, method: str, metric: str) -> list[float | None]:
    """The unweighted mean over all categories, for each seed; None unless all have a figure."""
    return [
        _mean(
            [
                record.metrics.get(metric)
                for record in outcome.records
                if record.method == method and record.seed == seed
            ]
        )
        for seed in _seeds(outcome)
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _spread(values: Sequence[float | None]) -> str:
    """Mean and, of several, lowest and highest in per cent; a dash unless all are known."""
    known = [100 * value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "–"
    mean = f"{sum(known) / len(known):.2f}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.2f}–{max(known):.2f})"


def _per_cent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


# --- Plots ----------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 300, 222
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 12, 26, 28
_BINS = 30


@dataclass(frozen=True)
class Line:
    """A curve: the points of an SVG polyline, the number of its colour and its name."""

    points: str
    series: int
    name: str


@dataclass(frozen=True)
class Plot:
    """A small plot in the units of its SVG view box.

    Attributes:
        title: above it.
        x_name: below its x axis.
        x_ticks, y_ticks: place and text.
        lines, bars: what it shows.
        cut: x of the threshold, or None.
    """

    title: str
    x_name: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    cut: float | None = None


def curve_plot(
    title: str, x_name: str, curves: Sequence[tuple[int, str, Doubles]], x_end: float = 1.0
) -> Plot:
    """Curves over 0 to `x_end` and 0 to 1.

    Args:
        title: above the plot.
        x_name: below it.
        curves: for each the number of its colour, its name, and (n, 2) points, x never falling.
        x_end: where the plot ends.
    """
    ticks = tuple((_x(share), f"{share * x_end:g}") for share in (0, 0.5, 1))
    heights = tuple((_y(share), f"{share:g}") for share in (0, 0.5, 1))
    lines = tuple(Line(_polyline(points, x_end), i, name) for i, name, points in curves)
    return Plot(title, x_name, ticks, heights, lines)


def _polyline(points: Doubles, x_end: float) -> str:
    inside = points[points[:, 0] <= x_end]
    if len(inside) < len(points):
        end = np.interp(x_end, points[:, 0], points[:, 1])
        inside = np.vstack([inside, (x_end, end)])
    return " ".join(f"{_x(x / x_end):.1f},{_y(y):.1f}" for x, y in inside.tolist())


def roc_points(defective: Masks, scores: Doubles) -> Doubles:
    """The ROC curve over all distinct scores: (n, 2) false positive and true positive rate."""
    order = np.argsort(-scores, kind="stable")
    hits, alarms = np.cumsum(defective[order]), np.cumsum(~defective[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    rates = np.stack([alarms[ends] / alarms[-1], hits[ends] / hits[-1]], axis=1)
    points: Doubles = np.vstack([(0.0, 0.0), rates])
    return points


def histogram(title: str, record: Record) -> Plot:
    """Image scores of good and defective test photos, the threshold marked; counts stacked."""
    scores = np.array([score for _, _, score in record.photos])
    good = np.array([label == GOOD for _, label, _ in record.photos])
    bins = Bins.over(scores, record.threshold["value"], _BINS, _LEFT, _WIDTH - _RIGHT)
    series = [("good", scores[good]), ("defective", scores[~good])]
    bars, most = stacked(series, bins, _y(0), _y(0) - _y(1))
    ticks = tuple((bins.x(v), f"{v:.3g}") for v in (bins.ends[0], sum(bins.ends) / 2, bins.ends[1]))
    heights = ((_y(0), "0"), (_y(1), str(most)))
    return Plot(title, "image score", ticks, heights, bars=bars, cut=bins.x(bins.threshold))


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 2)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 2)


# --- Pages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """What the page shows of one category: plots, of the first seed, and pictures."""

    category: str
    plots: tuple[Plot, ...]
    pictures: tuple[tuple[Picture, str, str], ...]
    lines: tuple[str, ...]


def write_tables(outcome: BenchmarkOutcome) -> None:
    """Write results.md and results.html into the outcome's folder.

    Raises:
        OutputError: a file cannot be written.
    """
    tables = [*metric_tables(outcome), threshold_table(outcome), cost_table(outcome)]
    with atomic_write(outcome.folder / "results.md") as file:
        file.write(_markdown(outcome, tables).encode("utf-8", "backslashreplace"))
    with atomic_write(outcome.folder / "results.html") as file:
        for piece in _html(outcome, tables):
            file.write(piece)


def facts(outcome: BenchmarkOutcome) -> list[str]:
    """How the figures came about, a sentence each."""
    seeds = ", ".join(map(str, _seeds(outcome)))
    first = next((record for record in outcome.records if record.error is None), None)
    said = [
        f"Config {outcome.config.name}: {outcome.config.title}. Data set {outcome.dataset}, "
        f"seeds {seeds}: mean, and lowest to highest where there are several; the mean over "
        "categories is unweighted, and told only where every category has a figure.",
        NOTHING_CHOSEN + "An F1-max is an oracle and looks at the labels.",
    ]
    if outcome.changed:
        changes = ", ".join(f"{name} = {value}" for name, value in outcome.changed.items())
        said.append(f"Changed from the config: {changes}. These are not the config's own figures.")
    if outcome.random_weights:
        said.append(
            "The backbones have random weights, as was asked for: the figures show that everything "
            "runs, and nothing about the method."
        )
    if first is not None:
        inputs = dict.fromkeys(_input(record) for record in outcome.records if not record.error)
        said.append(f"Input: {'; or '.join(inputs)}.")
        versions = ", ".join(f"{name} {value}" for name, value in first.versions.items())
        said += [*first.protocol, f"Versions: {versions}."]
    said += [_about(other) for other in outcome.beside]
    return said + [f"{c.title}: {c.note}" for c in published_beside(outcome) if c.note]


def _about(other: OtherResults) -> str:
    seeds = ", ".join(map(str, sorted({record.seed for record in other.records})))
    return (
        f"{other.title} (seeds {seeds}): {other.settings}. Its scores and maps are "
        "measured by this project's metrics, but for columns that say otherwise."
    )


def _input(record: Record) -> str:
    """Such as "wide_resnet50_2 at 224 x 224, the centre of the photo resized to 256"."""
    inputs: dict[str, list[str]] = {}  # backbones by the size of their input
    for settings in record.settings:
        size = "{} x {} pixels".format(*settings["size"])
        inputs.setdefault(size, []).append(settings["backbone"])
    members = " and ".join(f"{', '.join(names)} at {size}" for size, names in inputs.items())
    resize = record.settings[0]["resize"]
    part = f"the centre of the photo, its shorter side resized to {resize}"
    return f"{members}, {part if resize else 'the whole photo'}"


def _headline(outcome: BenchmarkOutcome) -> str:
    return f"{outcome.config.name} on {outcome.dataset}"


def _failures(outcome: BenchmarkOutcome) -> list[str]:
    return [
        f"{record.category}, {record.method}, seed {record.seed}: {record.error}"
        for record in outcome.errors
    ]


def _markdown(outcome: BenchmarkOutcome, tables: Sequence[Table]) -> str:
    failures = _failures(outcome)
    parts = [f"# {_headline(outcome)}", "\n".join(f"- {fact}" for fact in facts(outcome))]
    if failures:
        parts.append("## Not measured\n\n" + "\n".join(f"- {failure}" for failure in failures))
    parts += [table.markdown() for table in tables]
    notes = [
        f"- {section.category}: {line}" for section in _sections(outcome) for line in section.lines
    ]
    if notes:
        parts.append("## Notes\n\n" + "\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _html(outcome: BenchmarkOutcome, tables: Sequence[Table]) -> Iterator[bytes]:
    sections = _sections(outcome)
    return rendered(
        "benchmark.html.j2",
        # Nothing where someone has removed a picture.
        {
            "read": lambda file: (
                path.read_bytes() if (path := outcome.folder / file).is_file() else b""
            )
        },
        headline=_headline(outcome),
        config=outcome.config,
        facts=facts(outcome),
        failures=_failures(outcome),
        tables=tables,
        sections=sections,
        methods=_methods(outcome),
        seed=_seeds(outcome)[0],
        open_all=len(sections) <= 3,
        gradient=css_gradient(),
        width=_WIDTH,
        height=_HEIGHT,
        left=_LEFT,
        right=_WIDTH - _RIGHT,
        top=_TOP,
        bottom=_HEIGHT - _BOTTOM,
    )


def _sections(outcome: BenchmarkOutcome) -> list[Section]:
    seed = _seeds(outcome)[0]
    categories = _categories(outcome)
    share = max(1, PICTURES_SHOWN // (len(categories) * len(_methods(outcome))))
    return [
        _section(outcome, category, seed, min(share, 2 * PICTURES_EACH)) for category in categories
    ]


def _section(outcome: BenchmarkOutcome, category: str, seed: int, pictures: int) -> Section:
    records = [r for r in outcome.records if r.category == category and r.error is None]
    first = [record for record in records if record.seed == seed]
    shown = [
        (
            picture,
            record.method,
            f"score {picture.score:.4g}, threshold {record.threshold['value']:.4g}",
        )
        for record in first
        for picture in _worst(record.pictures, pictures)
    ]
    lines = dict.fromkeys(note for record in records for note in record.notes)
    plots = _plots(first, _methods(outcome))
    return Section(category, tuple(plots), tuple(shown), tuple(lines))


def _worst(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """As many pictures, misses and false alarms in turn."""
    kinds = [[p for p in pictures if p.kind == kind] for kind in ("miss", "false alarm")]
    ranked = [p for i in range(PICTURES_EACH) for kind in kinds for p in kind[i : i + 1]]
    return sorted(ranked[:count], key=lambda picture: picture.kind, reverse=True)


def _plots(records: Sequence[Record], methods: Sequence[str]) -> Iterator[Plot]:
    """ROC of photos, ROC and PRO of pixels with a line for each method; then their histograms."""
    kinds = (
        ("photos: ROC", "false positive rate", "image", 1.0),
        ("pixels: ROC", "false positive rate", "roc", 1.0),
        ("pixels: PRO", f"false positive rate, up to {PRO_SHOWN:g}", "pro", PRO_SHOWN),
    )
    for title, x_name, kind, x_end in kinds:
        curves = [
            (methods.index(record.method), record.method, points)
            for record in records
            if (points := _points(record, kind)) is not None
        ]
        if curves:
            yield curve_plot(title, x_name, curves, x_end)
    for record in records:
        yield histogram(f"scores: {record.method}", record)


def _points(record: Record, kind: str) -> Doubles | None:
    if kind != "image":
        return np.array(record.curves[kind]) if kind in record.curves else None
    defective = np.array([label != GOOD for _, label, _ in record.photos])
    if defective.all() or not defective.any():
        return None
    return roc_points(defective, np.array([score for _, _, score in record.photos]))
