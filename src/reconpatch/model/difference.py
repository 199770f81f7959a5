"""Compare two versions of a model and decide whether to promote the new one.

`diff` compares what the versions hold and, given photos, what they say of them; `check_update`
tries both on photos of which people said what they were, and refuses a version that would miss a
defect which the one before it finds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from reconpatch.errors import UpdateRefusedError
from reconpatch.model.contents import scales_to_dict
from reconpatch.model.ensemble import Ensemble, member_names
from reconpatch.model.model import Inspector
from reconpatch.photos.images import Photo

Relation = Literal["same", "parent", "child", "siblings", "unrelated"]
_RELATIONS: dict[Relation, str] = {
    "same": "Both give the same verdicts.",
    "parent": "The new version was made from the old one by an update.",
    "child": "The old version was made from the new one by an update.",
    "siblings": "Both were made from the same version by updates.",
    "unrelated": "Neither was made from the other by one update.",
}


# --- Photos --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhotoChange:
    """The verdicts of two versions on one photo.

    Attributes:
        name: of the photo.
        old_score, new_score: image scores, each in its version's units.
        old_anomalous, new_anomalous: the verdicts.
    """

    name: str
    old_score: float
    new_score: float
    old_anomalous: bool
    new_anomalous: bool

    @property
    def verdict_changed(self) -> bool:
        """Whether the versions disagree."""
        return self.old_anomalous != self.new_anomalous


def _compare(old: Inspector, new: Inspector, photos: Iterable[Photo]) -> tuple[PhotoChange, ...]:
    changes = []
    for photo in photos:
        before, after = old.judge([photo])[0].score, new.judge([photo])[0].score
        verdicts = before > old.threshold, after > new.threshold
        changes.append(PhotoChange(photo.name, before, after, *verdicts))
    return tuple(changes)


# --- Two versions --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """What changed from one version of a model to another; pairs are (old, new).

    Attributes:
        relation: of the new version to the old one: "parent" means that the old one is its parent.
        fingerprints: of both.
        settings: each setting that differs, by name; None where a version has no such setting.
        network_changed, f_changed: whether the features p, or f, are computed otherwise.
        photos: how many good photos each holds, confirmed false alarms included.
        photos_added, photos_removed: names of photos, known by their pixels, that one version has.
        rows_added, rows_removed: rows of the bank that only one version has; of an ensemble, of
            all members.
        image_threshold, map_threshold: thresholds.
        false_alarm_rate: the promised rates.
        calibrated_on: the numbers of photos that the thresholds follow.
        flagged: how many of these score more than their threshold, each as if it were new.
        verdicts: of each photo that was given, what both versions say of it.
    """

    relation: Relation
    fingerprints: tuple[str, str]
    settings: dict[str, tuple[Any, Any]]
    network_changed: bool
    f_changed: bool
    photos: tuple[int, int]
    photos_added: tuple[str, ...]
    photos_removed: tuple[str, ...]
    rows_added: int
    rows_removed: int
    image_threshold: tuple[float, float]
    map_threshold: tuple[float, float]
    false_alarm_rate: tuple[float, float]
    calibrated_on: tuple[int, int]
    flagged: tuple[int, int]
    verdicts: tuple[PhotoChange, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The difference as JSON-ready values."""
        values = asdict(self)
        for change, own in zip(values["verdicts"], self.verdicts, strict=True):
            change["verdict_changed"] = own.verdict_changed
        return values

    @property
    def changed_verdicts(self) -> tuple[PhotoChange, ...]:
        """The photos of which the versions say different things."""
        return tuple(change for change in self.verdicts if change.verdict_changed)

    def sentences(self) -> list[str]:
        """The difference in plain words, the most telling first."""
        before, after = self.image_threshold
        rates, counts = self.false_alarm_rate, self.calibrated_on
        lines = [
            _RELATIONS[self.relation],
            f"Good photos: {self.photos[0]} -> {self.photos[1]} ({len(self.photos_added)} added, "
            f"{len(self.photos_removed)} removed).",
            f"Bank: {self.rows_added} rows added, {self.rows_removed} removed.",
            f"Threshold: {before:.4g} -> {after:.4g}; promised false-alarm rate: {rates[0]:.2%} of "
            f"{counts[0]} photos -> {rates[1]:.2%} of {counts[1]} photos.",
            f"Of these, each as if it were new, {self.flagged[0]} -> {self.flagged[1]} are "
            "flagged.",
        ]
        if self.network_changed:
            lines.append("The network of the features is another one.")
        if self.f_changed:
            lines.append("f is another one.")
        lines += [f"Setting {name}: {a} -> {b}." for name, (a, b) in self.settings.items()]
        return lines


def diff(old: Inspector, new: Inspector, photos: Iterable[Photo] = ()) -> Difference:
    """Compare one version of a model with another.

    Args:
        old: a model or an ensemble.
        new: another version of it, or any other model.
        photos: compared by both versions, if any.
    """
    ours, theirs = old.calibration, new.calibration
    known_before = {photo.sha256 for photo in old.photos}
    known_after = {photo.sha256 for photo in new.photos}
    rows_before, rows_after = _rows(old), _rows(new)
    return Difference(
        relation=_relation(old, new),
        fingerprints=(old.fingerprint, new.fingerprint),
        settings=_changed(_settings(old), _settings(new)),
        network_changed=_graphs(old) != _graphs(new),
        f_changed=_fs(old) != _fs(new),
        photos=(len(old.photos), len(new.photos)),
        photos_added=tuple(p.name for p in new.photos if p.sha256 not in known_before),
        photos_removed=tuple(p.name for p in old.photos if p.sha256 not in known_after),
        rows_added=(rows_after - rows_before).total(),
        rows_removed=(rows_before - rows_after).total(),
        image_threshold=(old.threshold, new.threshold),
        map_threshold=(ours.map_threshold.value, theirs.map_threshold.value),
        false_alarm_rate=(ours.image_threshold.stated_rate, theirs.image_threshold.stated_rate),
        calibrated_on=(len(ours.scores), len(theirs.scores)),
        flagged=(_flagged(old), _flagged(new)),
        verdicts=_compare(old, new, photos),
    )


def _flagged(model: Inspector) -> int:
    return int((model.calibration.scores > model.threshold).sum())


def _relation(old: Inspector, new: Inspector) -> Relation:
    if old.fingerprint == new.fingerprint:
        return "same"
    parents = old.provenance.get("parent"), new.provenance.get("parent")
    if parents[1] == old.fingerprint:
        return "parent"
    if parents[0] == new.fingerprint:
        return "child"
    return "siblings" if parents[0] is not None and parents[0] == parents[1] else "unrelated"


def _rows(model: Inspector) -> Counter[tuple[int, bytes]]:
    """Every row of the bank by its bytes, and the member that it belongs to."""
    return Counter(
        (i, row.tobytes()) for i, member in enumerate(model.members) for row in member.bank.rows
    )


def _graphs(model: Inspector) -> list[bytes]:
    return [member.engine.graph for member in model.members]


def _fs(model: Inspector) -> list[list[bytes | None]]:
    """Weight and bias of f of each member by their bytes."""
    fs = [member.representation for member in model.members]
    return [[None if part is None else part.tobytes() for part in (f.weight, f.bias)] for f in fs]


def _settings(model: Inspector) -> dict[str, Any]:
    """All settings by a name of their own, those of an ensemble's members with the member's."""
    names = member_names([member.settings for member in model.members])
    flat: dict[str, Any] = {}
    for name, member in zip(names, model.members, strict=True):
        prefix = f"{name}: " if len(names) > 1 else ""
        settings = {**member.settings.to_dict(), "preprocessing": member.preprocessing.described()}
        flat |= {f"{prefix}{key}": value for key, value in _flat(settings).items()}
    flat["false_alarm_rate"] = model.calibration.rate
    flat["threshold set by hand"] = model.calibration.set_by_hand
    if isinstance(model, Ensemble):
        flat["scales"] = scales_to_dict(model)
    return flat


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*old, *(name for name in new if name not in old)]
    pairs = {name: (old.get(name), new.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


# --- An update -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Verdicts of two versions on photos that people have labelled.

    Attributes:
        goods: photos of good parts.
        defects: photos of defective parts.
    """

    goods: tuple[PhotoChange, ...]
    defects: tuple[PhotoChange, ...]

    @property
    def vanished(self) -> tuple[str, ...]:
        """False alarms of the old version that are none of the new one."""
        return _named(self.goods, before=True, after=False)

    @property
    def remaining(self) -> tuple[str, ...]:
        """False alarms of both."""
        return _named(self.goods, before=True, after=True)

    @property
    def new_false_alarms(self) -> tuple[str, ...]:
        """False alarms of the new version alone."""
        return _named(self.goods, before=False, after=True)

    @property
    def missed(self) -> tuple[str, ...]:
        """Defects that the old version finds and the new one would miss."""
        return _named(self.defects, before=True, after=False)

    @property
    def missed_by_both(self) -> tuple[str, ...]:
        """Defects that neither finds; no reason to refuse the new version."""
        return _named(self.defects, before=False, after=False)

    @property
    def newly_found(self) -> tuple[str, ...]:
        """Defects that only the new version finds."""
        return _named(self.defects, before=False, after=True)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-ready values."""
        of_goods = ("vanished", "remaining", "new_false_alarms")
        names = (*of_goods, "missed", "missed_by_both", "newly_found")
        return {**asdict(self), **{name: list(getattr(self, name)) for name in names}}

    def sentences(self) -> list[str]:
        """The comparison in plain words."""
        before, after = len(self.vanished), len(self.new_false_alarms)
        before += len(self.remaining)
        after += len(self.remaining)
        found = sum(change.new_anomalous for change in self.defects)
        lines = []
        if self.goods:
            lines.append(
                f"Of {len(self.goods)} good photos, {before} were false alarms and {after} are now."
            )
        if self.defects:
            lines.append(f"Of {len(self.defects)} defects, {found} are found.")
        return lines


def _named(changes: Sequence[PhotoChange], *, before: bool, after: bool) -> tuple[str, ...]:
    wanted = (before, after)
    return tuple(c.name for c in changes if (c.old_anomalous, c.new_anomalous) == wanted)


def check_update(
    old: Inspector,
    new: Inspector,
    goods: Iterable[Photo],
    defects: Iterable[Photo],
    *,
    force: bool = False,
) -> Comparison:
    """Try an update on feedback before it goes into service.

    Args:
        old: the version in service.
        new: the version that is to take its place.
        goods: photos of parts that people said were good, false alarms among them.
        defects: photos of parts that people said were defective.
        force: give the comparison even where defects would be missed.

    Raises:
        UpdateRefusedError: `new` would miss defects that `old` finds, unless forced.
    """
    comparison = Comparison(_compare(old, new, goods), _compare(old, new, defects))
    if comparison.missed and not force:
        count = len(comparison.missed)
        raise UpdateRefusedError(
            f"the update would miss {count} of {len(comparison.defects)} confirmed defects, which "
            f"the model finds now ({_some(comparison.missed)}), so it was refused: leave out the "
            "good photos and false alarms that look like them, or force it"
        )
    return comparison


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
