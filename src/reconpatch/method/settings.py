"""The settings of a fit, and two recipes: the paper's own, and the default for two cores."""

from __future__ import annotations

import difflib
import typing
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import numpy as np

from reconpatch.errors import SettingsError
from reconpatch.method.calibration import DEFAULT_FALSE_ALARM_RATE, check_rate
from reconpatch.method.coreset import bank_rows
from reconpatch.method.representation import METHODS, Method, TrainingSettings
from reconpatch.method.scoring import ScoringSettings

AUTOMATIC = (0, 0)
"""The size that says: take it from the photos."""

AUTOMATIC_TILE = -1
"""The tile that says: take it from the photos and the smallest defect that matters."""

AUTOMATIC_SIZES = (224, 320, 448)
"""Sides of the squares that an automatic size has as many pixels as."""

_SQUARE = 1.25  # photos of up to this ratio of sides are shown as a square
_STEP, _LEAST_SIDE = 32, 64  # of a side, in pixels
_SQUEEZED = 2.0  # what is told

_SEEN_DEFECT = 12  # pixels at the model's input; a defect of fewer than 8 can be missed
_TILE_INPUT, _TILE_LIMIT, _TILE_OVERLAP = 512, 1024, 64
_STRIDE = 8  # pixels of the input for a cell of the default backbones


def automatic_size(photo: tuple[int, int], limit: int) -> tuple[int, int]:
    """Choose the model's input for photos of a size: (height, width), about the photos' shape.

    As many pixels as the largest of the automatic squares that is no larger than the photos'
    shorter side, or 224. A larger input shows smaller defects, but there is nothing to see in
    pixels that a photo does not have: on photos of 300 pixels 448 found less than 224
    (docs/research.md).

    Args:
        photo: height and width of the photos, in pixels; the median where they differ.
        limit: side of the largest square to take.
    """
    fitting = [side for side in AUTOMATIC_SIZES if side <= min(*photo, limit)]
    return in_shape(max(fitting, default=AUTOMATIC_SIZES[0]), photo)


def in_shape(side: int, photo: tuple[int, int]) -> tuple[int, int]:
    """As many pixels as a square of this side, within a quarter, in about the photos' shape.

    Sides are multiples of 32, as the coarsest level of a backbone wants them, and of 64 at least,
    so the shape is kept to within 1.3 : 1, and photos longer than `side`² / 64² : 1 are squeezed
    along. Photos of up to `_SQUARE` : 1 are shown as the square itself: multiples of 32 come no
    nearer to their shape.
    """
    ratio = max(photo) / min(photo)
    if ratio <= _SQUARE:
        return side, side
    short = max(_LEAST_SIDE, _STEP * round(side / ratio**0.5 / _STEP))
    long = _STEP * round(side * ratio**0.5 / _STEP)
    if short == _LEAST_SIDE:
        long = min(long, _STEP * round(side * side / short / _STEP))
    return (short, long) if photo[0] < photo[1] else (long, short)


def squeeze_note(settings: FitSettings, photo: tuple[int, int]) -> list[str]:
    """Note photos of a (height, width) that the input shows far from their shape; else nothing."""
    if settings.tile or settings.resize:  # tiles are square, and a crop keeps the shape
        return []
    down, across = (side / size for side, size in zip(photo, settings.size, strict=True))
    squeezed = max(down, across) / min(down, across)
    if squeezed < _SQUEEZED:
        return []
    height, width = settings.size
    return [
        f"Photos of {photo[1]} x {photo[0]} pixels (width x height) are shown to the model at "
        f"{width} x {height}: {squeezed:.1f} times smaller along one side than along the other, "
        "and so are defects. --size HEIGHTxWIDTH gives another input, and --tile looks at photos "
        "piece by piece."
    ]


def automatic_tile(settings: FitSettings, photo_size: tuple[int, int]) -> FitSettings:
    """Resolve an automatic tile or size.

    The smallest defect that matters has to be `_SEEN_DEFECT` pixels wide at the model's input. If
    the whole photo can be shown so large, it is; else in tiles, shown at the scale that this takes.

    Args:
        settings: with a tile, given or automatic, or a size that is.
        photo_size: height and width of the photos, the median where they differ.
    """
    if settings.tile == AUTOMATIC_TILE:
        scale = min(1.0, _SEEN_DEFECT / settings.smallest_defect)  # input pixels a photo's pixel
        needed = max(photo_size) * scale
        fitting = [side for side in AUTOMATIC_SIZES if side >= needed]
        if fitting and settings.size == AUTOMATIC:
            return replace(settings, tile=0, size=(fitting[0], fitting[0]))
        side = _TILE_INPUT if settings.size == AUTOMATIC else settings.size[0]
        cells = side // _STRIDE
        tile = round(side / scale / cells) * cells
        overlap = min(round(_TILE_OVERLAP / scale), tile // 2)
        return replace(settings, tile=tile, overlap=overlap, size=(side, side))
    if settings.size != AUTOMATIC:
        return settings
    if settings.tile:
        side = min(settings.tile, _TILE_LIMIT)
        return replace(settings, size=(side, side))
    return replace(settings, size=automatic_size(photo_size, settings.size_limit))


@dataclass(frozen=True)
class FitSettings:
    """All settings that decide what a fit makes of a folder of photos.

    Attributes:
        recipe: the recipe that the settings started from.
        method: "reconpatch" (f trained), "untrained" (f before its first step) or "patchcore"
            (f the identity).
        backbone: see `reconpatch.features.backbones`.
        levels: the backbone's levels in use, finest first; empty takes the backbone's own.
        size: height and width of the model's input in pixels; 0 x 0 takes them from the photos,
            see `automatic_size`.
        size_limit: side of the largest square that an automatic size has as many pixels as.
        size_tried: side of a larger such square, which is taken where defects made on good photos
            show that it pays; see `reconpatch.fitting.input_size`. 0 tries none.
        tile: 0 shows the model the photo at once; else it sees squares of this many pixels of the
            photo, each resized to `size`, which is then the tile's own unless it is given.
            `AUTOMATIC_TILE` takes it from the photos and `smallest_defect`.
        overlap: pixels of the photo that neighbouring tiles share at least.
        smallest_defect: diameter in pixels of the photo of the smallest defect that matters; for an
            automatic tile.
        register: whether photos are registered to the first good one: parts that lie shifted or
            turned; see `reconpatch.photos.registration`. Photos then have one size.
        resize: 0 resizes the whole photo to `size`; else its shorter side is resized to this and
            the centre is cropped to `size`, as the paper does.
        expanded: whether patch features also have the expanded activations of the levels' last
            blocks, where the backbone has such (EfficientNet), beside their outputs.
        neighbourhood: s, the side of the neighbourhood that patch features are averaged over.
        bank: rows of the memory bank: a share of all patches below 1, else a number of rows.
        bank_least: rows that a bank has at least, whatever share `bank` says, as long as they are
            no more than a tenth of all patches: of few photos a share alone is too little.
        projection: dimensions of the random projection for the coreset's selection; 0 for none.
        candidates: patches, drawn at random, among which the coreset is picked; 0 for all.
        turns: whether copies of good photos, turned by quarters, go into the bank: "auto" takes
            them where the good photos prove that they help; see `reconpatch.fitting.turns`. Only of
            photos that are seen whole.
        defects: good photos on which a defect is made, to estimate how well the model does; 0
            for no estimate. See `reconpatch.fitting.quality`.
        overall_share: how much the mean of all of a photo's distances counts in the image score, as
            a share of what the most distant ones count, each by how much it varies among the good
            photos: from it, and from their number, the fit makes `scoring.overall`; see
            `reconpatch.method.scoring.overall_weight`. 0 takes that as it is given.
        composition_weight: how much what a photo is made of as a whole counts in the image score
            beside its patches, where the good photos say that it tells: the fit makes
            `scoring.composition` of it, see `reconpatch.fitting.composition`. Only of photos that
            are seen whole, and not with turns "always". 0 for never.
        guard: whether f, once trained, has to do no worse than the identity on those defects; if
            it does, the identity takes its place.
        false_alarm_rate: see `reconpatch.method.calibration`.
        seed: decides every random step.
        training: see `reconpatch.method.representation.TrainingSettings`.
        scoring: see `reconpatch.method.scoring.ScoringSettings`.
    """

    recipe: str = "default"
    method: Method = "reconpatch"
    backbone: str = "tf_efficientnet_lite0"
    levels: tuple[int, ...] = ()
    size: tuple[int, int] = AUTOMATIC
    size_limit: int = 320
    size_tried: int = 0
    tile: int = 0
    overlap: int = 64
    smallest_defect: int = 0
    register: bool = False
    resize: int = 0
    expanded: bool = False
    neighbourhood: int = 3
    bank: float = 0.01
    bank_least: int = 0
    projection: int = 128
    candidates: int = 0
    turns: Literal["never", "auto", "always"] = "never"
    defects: int = 0
    overall_share: float = 0.0
    composition_weight: float = 0.0
    guard: bool = False
    false_alarm_rate: float = DEFAULT_FALSE_ALARM_RATE
    seed: int = 0
    training: TrainingSettings = field(default_factory=TrainingSettings)
    scoring: ScoringSettings = field(default_factory=ScoringSettings)

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise SettingsError(f"method is {self.method!r}: give one of {', '.join(METHODS)}")
        if self.size != AUTOMATIC and (min(self.size) < 32 or max(self.size) > 4096):
            raise SettingsError(
                f"the input size is {self.size[0]} x {self.size[1]} (height x width): give 32 to "
                "4096 pixels for each, or auto"
            )
        if self.size_limit < AUTOMATIC_SIZES[0]:
            raise SettingsError(
                f"size_limit is {self.size_limit}: give {AUTOMATIC_SIZES[0]} pixels or more"
            )
        if self.size_tried and self.size_tried < AUTOMATIC_SIZES[0]:
            raise SettingsError(
                f"size_tried is {self.size_tried}: give {AUTOMATIC_SIZES[0]} pixels or more, or 0 "
                "for none"
            )
        if self.defects < 0:
            raise SettingsError(f"defects is {self.defects}: give 0 (no estimate) or more photos")
        if self.turns not in ("never", "auto", "always"):
            raise SettingsError(f"turns is {self.turns!r}: give never, auto or always")
        if not 0 <= self.overall_share <= 10:
            raise SettingsError(f"overall_share is {self.overall_share}: give 0 to 10")
        if self.overall_share > 0 and self.scoring.top == 0:
            raise SettingsError(
                f"overall_share is {self.overall_share} and top is 0: the largest distance alone "
                "is no mean, so give a top above 0, such as 0.005, or overall_share=0"
            )
        if not 0 <= self.composition_weight <= 4:
            raise SettingsError(
                f"composition_weight is {self.composition_weight}: give 0 (never) to 4"
            )
        if self.guard and self.defects < 2:
            raise SettingsError(
                f"guard is on and defects is {self.defects}: the guard compares on made defects, "
                "so give 20 or more of them, or guard=false"
            )
        if self.resize and self.size == AUTOMATIC:
            raise SettingsError(
                f"resize is {self.resize} and the input size is left to the photos: give the size "
                "to crop to as well"
            )
        if self.resize and self.resize < max(self.size):
            raise SettingsError(
                f"resize is {self.resize}, smaller than the crop of {self.size[0]} x "
                f"{self.size[1]}: give at least {max(self.size)}, or 0 for the whole photo"
            )
        self._check_tiles()
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise SettingsError(
                f"the neighbourhood is {self.neighbourhood}: give an odd number such as 3"
            )
        if self.projection < 0:
            raise SettingsError(
                f"projection is {self.projection}: give 0 (none) or more dimensions"
            )
        if self.bank_least < 0:
            raise SettingsError(f"bank_least is {self.bank_least}: give 0 (none) or more rows")
        if self.candidates < 0:
            raise SettingsError(f"candidates is {self.candidates}: give 0 (all) or more patches")
        if self.seed < 0:
            raise SettingsError(f"the seed is {self.seed}: give a whole number, 0 or more")
        if self.method == "patchcore" and self.training.basis:
            raise SettingsError(
                f"method is 'patchcore' and basis is {self.training.basis}: PatchCore compares p "
                "itself, so give basis=0"
            )
        if self.guard and self.training.basis:
            raise SettingsError(
                f"guard is on and basis is {self.training.basis}: the guard compares with p "
                "itself, so give guard=false or basis=0"
            )
        bank_rows(self.bank, available=1)  # refuses a size that is neither a share nor a number
        check_rate(self.false_alarm_rate)

    def _check_tiles(self) -> None:
        if self.smallest_defect < 0:
            raise SettingsError(
                f"smallest_defect is {self.smallest_defect}: give its diameter in pixels of the "
                "photo, or 0"
            )
        if self.tile == 0:
            return
        if self.tile == AUTOMATIC_TILE:
            if not self.smallest_defect:
                raise SettingsError(
                    "the tile is left to the photos: give smallest_defect, the diameter in pixels "
                    "of the smallest defect that matters, as well (--smallest-defect 20)"
                )
        elif not 32 <= self.tile <= 8192:
            raise SettingsError(f"the tile is {self.tile}: give 32 to 8192 pixels, or auto")
        elif not 0 <= self.overlap <= self.tile // 2:
            raise SettingsError(
                f"the overlap is {self.overlap} pixels and the tile {self.tile}: give 0 to half of "
                f"the tile, such as {self.tile // 8}"
            )
        if self.resize:
            raise SettingsError(
                f"resize is {self.resize} and the photos are seen in tiles: a tile is not cropped, "
                "so give one of the two"
            )
        if self.scoring.b > 1:
            raise SettingsError(
                f"b is {self.scoring.b} and the photos are seen in tiles, whose patches are not "
                "kept for re-weighting: give b=1"
            )

    def of_f(self) -> str:
        """What f is, in plain words."""
        training = self.training
        steps = training.steps or training.epochs
        after = ", then trained by relaxed contrastive learning" if steps else ""
        if self.method == "patchcore":
            return "f is the identity (PatchCore)."
        if training.init != "contrastive":
            start = f"f starts from {training.init}"
            return f"{start}{after if self.method == 'reconpatch' else ''}."
        principal = f"{training.principal} principal directions of the backbone's outputs"
        if self.method == "untrained":
            return f"f is {principal}."
        return (
            f"f is {principal} and {training.dim - training.principal} contrastive components, "
            f"learned against {training.made} defects made on good photos{after}."
        )

    def fitted_to(self, channels: int) -> FitSettings:
        """The settings for p of that many channels: no more directions than there are."""
        if not self.training.basis:
            return self
        basis = min(self.training.basis, channels)
        dim = min(self.training.dim or basis, basis)
        training = replace(self.training, basis=basis, dim=dim)
        principal = training.principal if training.init == "contrastive" else dim
        return replace(self, training=training, scoring=replace(self.scoring, principal=principal))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FitSettings:
        """The settings that `to_dict` gave, also under the names that they had before.

        Raises:
            SettingsError: a value is of another type than its setting, or out of its range.
        """
        from pydantic import TypeAdapter, ValidationError

        values = _with_current_names(values)
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise SettingsError(f"there is no setting {min(unknown)!r}")
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            cause = first.get("ctx", {}).get("error")
            if isinstance(cause, SettingsError):
                raise cause from None
            name = ([part for part in first["loc"] if isinstance(part, str)] or ["settings"])[-1]
            allowed = first["msg"].replace("Input should be ", "give ")
            if first["type"] == "tuple_type" and name in _TUPLES:
                allowed = _TUPLES[name]
            raise SettingsError(f"{name} is {first['input']!r}: {allowed}") from None


RENAMED = {"kin_power": "relevant_power", "kin_shrink": "relevant_shrink"}
"""Training settings by the names that they had before; model files go on to hold those."""
RENAMED_INIT = {"kin": "relevant_components"}
"""Likewise the values of `init`."""


def _with_current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Rename settings of earlier versions to what `FitSettings.to_dict` calls them now."""
    training = values.get("training")
    if not isinstance(training, Mapping):
        return dict(values)
    training = {RENAMED.get(name, name): value for name, value in training.items()}
    if training.get("init") in tuple(RENAMED_INIT):
        training["init"] = RENAMED_INIT[training["init"]]
    return {**values, "training": training}


def _renamed(name: str, value: Any) -> tuple[str, Any]:
    """Bring a setting to its present name, with a DeprecationWarning if it was renamed."""
    if name in RENAMED:
        warnings.warn(
            f"the setting {name} is now {RENAMED[name]}: give that", DeprecationWarning, 4
        )
        return RENAMED[name], value
    if name == "init" and value in tuple(RENAMED_INIT):
        warnings.warn(
            f"init={value} is now init={RENAMED_INIT[value]}: give that", DeprecationWarning, 4
        )
        return name, RENAMED_INIT[value]
    return name, value


_PAPER = FitSettings(
    recipe="paper",
    backbone="wide_resnet50_2",
    size=(224, 224),
    resize=256,
    bank=0.01,
    defects=64,
    training=TrainingSettings(),  # its defaults are the paper's values where the paper gives one
    scoring=ScoringSettings(),
)

# Chosen for a machine of two cores by the experiments in docs/research.md: f in closed form,
# learned against made defects, no steps. Whoever gives `steps` or `epochs` gets the loss on top,
# with batches that suit it.
_DEFAULT = FitSettings(
    recipe="default",
    size_tried=448,
    expanded=True,
    bank_least=4000,
    turns="auto",
    overall_share=0.6,
    composition_weight=0.8,
    defects=64,
    training=TrainingSettings(
        dim=128,
        init="contrastive",
        basis=384,
        contrast_share=0.5,
        epochs=0,
        batch_size=512,
        batches="neighbours",
        companions=15,
        learning_rate=3e-4,
        scale="mean",
    ),
    scoring=ScoringSettings(top=0.005, smooth=0.75, contrast=4.2, density=1.0),
)

# What PatchCore does not have, and what is f's alone: `--method patchcore` on the default recipe.
_PATCHCORE = {
    "turns": "never",
    "overall_share": 0.0,
    "composition_weight": 0.0,
    "expanded": False,
    "basis": 0,
    "init": "identity",
    "dim": 0,
    "contrast": 1.0,
    "density": 0.0,
}

RECIPES = {"default": _DEFAULT, "paper": _PAPER}

Quality = Literal["fast", "balanced", "best"]

QUALITIES: dict[Quality, list[dict[str, Any]]] = {
    "fast": [{"size_limit": 224, "size_tried": 0, "bank": 0.005, "bank_least": 1500, "made": 256}],
    "balanced": [{}],
    "best": [
        {"size_limit": 320, "bank": 0.005, "bank_least": 4000},
        {
            "backbone": "tf_efficientnet_lite2",
            "size_limit": 448,
            "size_tried": 0,
            "bank": 0.005,
            "bank_least": 4000,
        },
    ],
}
"""Three points between few milliseconds and good maps (docs/research.md): changes to the default
recipe for each member, of which "best" has two."""


def settings_for(recipe: str = "default", **changes: Any) -> FitSettings:
    """Build the settings of a recipe with changes by name.

    Names are the fields of `FitSettings`, and for short also those of its `training` and `scoring`
    settings: `settings_for("paper", seed=1, alpha=0.3, b=3)`.

    Raises:
        SettingsError: an unknown recipe or name (with the nearest known one), or a value out of
            its range.
    """
    if recipe not in RECIPES:
        raise SettingsError(f"the recipe is {recipe!r}: give one of {', '.join(RECIPES)}")
    values = RECIPES[recipe].to_dict()
    changes = dict(_renamed(name, _plain(name, value)) for name, value in changes.items())
    if changes.get("method") == "patchcore":
        changes = _PATCHCORE | changes
    elif changes.get("init", "contrastive") != "contrastive" and recipe == "default":
        changes = {
            "basis": 0,
            "dim": 0,
            "expanded": False,
            "contrast": 1.0,
            "density": 0.0,
        } | changes
    if "bank" in changes:
        changes.setdefault("bank_least", 0)  # whoever says how many rows means it
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # whoever says how many passes means them to count
    if changes.get("b", 1) != 1:
        changes.setdefault("top", 0.0)  # re-weighting is of the largest distance
        changes.setdefault("contrast", 1.0)  # as it is
        changes.setdefault("density", 0.0)
    if changes.get("top") == 0:
        changes.setdefault("smooth", 0.0)  # which is not smoothed
        changes.setdefault("overall_share", 0.0)  # and is no mean
    if "overall" in changes or "scoring" in changes:
        changes.setdefault("overall_share", 0.0)  # whoever says how much means it
    if changes.get("defects") == 0:
        changes.setdefault("guard", False)  # which could not compare on none
    if isinstance(changes.get("size"), int):
        changes["size"] = (changes["size"], changes["size"])
    for name, value in changes.items():
        part = next((values[p] for p in ("training", "scoring") if name in values[p]), values)
        if name not in part:
            raise SettingsError(f"there is no setting {name!r}{_suggestion(name, list(_types()))}")
        part[name] = asdict(value) if is_dataclass(value) else value  # type: ignore[arg-type]
    return FitSettings.from_dict(values)


def _plain(name: str, value: Any) -> Any:
    """Convert numpy's numbers and arrays, and text for numbers, to plain values."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return type(value)(_plain("", inner) for inner in value)
    is_text = isinstance(value, str) and _types().get(RENAMED.get(name, name)) in _PARSED
    return parse_setting(name, value) if is_text else value


def ensemble_settings_for(
    recipe: str, members: Sequence[str | Mapping[str, Any]], **changes: Any
) -> list[FitSettings]:
    """Build the settings of each member of an ensemble; a single model is its one member.

    Under the recipe "paper" several members take what the paper gives for them: f of 384
    dimensions, 60 epochs at a learning rate of 1e-6. Changes by name come after that.

    Args:
        recipe: see `settings_for`.
        members: what each member has of its own, as changes by name; a backbone's name alone stands
            for that change: `["resnet18", {"backbone": "resnet18", "size": 448}]`.
        changes: those of all members, which a member's own go before.
    """
    papers: dict[str, Any] = {}
    if recipe == "paper" and len(members) > 1:
        papers = {"dim": 384, "epochs": 60, "learning_rate": 1e-6}
    return [
        settings_for(
            recipe,
            **{**papers, **changes, **({"backbone": own} if isinstance(own, str) else own)},
        )
        for own in members
    ]


def parse_assignments(assignments: Sequence[str], apart: Collection[str] = ()) -> dict[str, Any]:
    """Parse `NAME=VALUE` strings of a command line, each value in its setting's type.

    Args:
        assignments: such as "alpha=0.3", "size=64x96" or "levels=2,3"; the later of two of one name
            counts.
        apart: settings that are given otherwise, and are unknown here.

    Raises:
        SettingsError: a name is unknown, or a value is not of its setting's type.
    """
    known = [
        name for name, kind in _types().items() if name not in apart and not is_dataclass(kind)
    ]
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name, text = _renamed(name, text)
        if not equals or name not in known:
            raise SettingsError(
                f"--set takes NAME=VALUE with the name of a setting, and {assignment!r} was given"
                f"{_suggestion(name, known)}"
            )
        values[name] = parse_setting(name, text)
    return values


def parse_setting(name: str, text: str) -> Any:
    """Parse the text of a setting on a command line into the setting's type.

    Raises:
        SettingsError: it is not of that type.
    """
    kind = _types()[RENAMED.get(name, name)]
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise SettingsError(f"{name} is {text!r}: give true or false")
        return text.lower() == "true"
    if kind == tuple[int, int]:
        return _parse_size(name, text)
    if kind == tuple[int, ...]:
        return _parse_numbers(name, text)
    if kind not in (int, float):
        return text
    if name == "tile" and text.lower() == "auto":
        return AUTOMATIC_TILE
    try:
        return kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SettingsError(f"{name} is {text!r}: give {wanted}") from None


def _parse_size(name: str, text: str) -> tuple[int, int]:
    if text.lower() == "auto":
        return AUTOMATIC
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise SettingsError(
            f"{name} is {text!r}: give pixels such as 224, 256x512 (height x width), or auto"
        )
    return int(parts[0]), int(parts[-1])


def _parse_numbers(name: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: give numbers such as 2,3") from None


def setting_names() -> list[str]:
    """The names that `settings_for` takes, those of training and scoring among them."""
    names = [name for name, kind in _types().items() if not is_dataclass(kind)]
    return [*names, *RENAMED]


_TUPLES = {
    "size": "give pixels such as 224, (256, 512) (height, width), or 'auto'",
    "levels": "give whole numbers such as (2, 3)",
}
_PARSED = (int, float, tuple[int, int], tuple[int, ...])
"""Types of settings whose values may be given as text."""


def _types() -> dict[str, Any]:
    """The type of each setting by its name, those of training and scoring among them."""
    kinds = (FitSettings, TrainingSettings, ScoringSettings)
    return {name: kind for of in kinds for name, kind in typing.get_type_hints(of).items()}


def _suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(near)}?)" if near else f": known are {', '.join(names)}"
