"""Resolve settings and members by name, and fit a model or an ensemble.

A single member is fitted by `reconpatch.fitting.model`; several are fitted in turn, on the same
photos, and combined.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from reconpatch.errors import SettingsError
from reconpatch.fitting.confirmed import check_learns
from reconpatch.fitting.model import Clock, StepsOf, fit_model, in_this_process
from reconpatch.fitting.options import FitOptions, naming, report_to, silent
from reconpatch.fitting.reading import GoodSource, photos_given, read_good
from reconpatch.method.settings import QUALITIES, FitSettings, Quality, ensemble_settings_for
from reconpatch.model.ensemble import (
    Ensemble,
    Values,
    check_count,
    check_views,
    combine,
    member_names,
    score_members,
)
from reconpatch.model.model import Inspector, Model

AGAIN = "inspect the good photos again, for the scales"
"""The step of a fit that statistics of the training set take."""

Statistics = Literal["as_new", "training"]


def parts_of(recipe: str, options: Mapping[str, Any]) -> tuple[list[FitSettings], FitOptions]:
    """Resolve what `fit` takes by name into the settings of each model and the options.

    Raises:
        SettingsError: a setting is unknown or out of its range.
    """
    rest = dict(options)
    names = FitOptions.__dataclass_fields__
    chosen = FitOptions(**{name: rest.pop(name) for name in options if name in names})
    own: dict[str, Any] = {"backbone": None, "size": None}
    own |= {name: rest.pop(name) for name in (*own, "quality") if name in rest}
    members = members_of(**own, recipe=recipe, taken=rest)
    return ensemble_settings_for(recipe, members, **rest), chosen


def members_of(
    backbone: str | Sequence[str] | None,
    size: Any | Sequence[Any] | None,
    quality: Quality = "balanced",
    *,
    recipe: str = "default",
    taken: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Derive the settings of each member from backbones and sizes, each one or several.

    As many of one as of the other are taken in pairs; a single one goes with all of the other.

    Args:
        backbone: a name, or several; None leaves it to the recipe.
        size: one size, as `settings_for` takes it, or a list of them (a tuple is one size, height
            and width); None leaves it to the recipe.
        quality: "fast", "balanced" or "best", which is an ensemble; of the default recipe.
        recipe: "paper" has no qualities.
        taken: names of settings that are chosen already, whatever the quality says of them.

    Returns:
        Changes for each member; those of a single model where neither is several.

    Raises:
        SettingsError: there are numbers of both that do not go together, or none of one, or the
            quality is unknown or an ensemble with members of its own.
    """
    if quality not in QUALITIES:
        raise SettingsError(f"the quality is {quality!r}: give one of {', '.join(QUALITIES)}")
    if recipe != "default" and quality != "balanced":
        raise SettingsError(
            f"the quality is {quality!r} and the recipe {recipe!r}: qualities are points of the "
            "default recipe, so give one of the two"
        )
    if "bank" in taken:  # whoever says how many rows means it
        taken = {*taken, "bank_least"}
    if "tile" in taken:  # which has a size of its own
        taken = {*taken, "size"}
    base = QUALITIES[quality]
    if len(base) > 1:
        if backbone is not None or size is not None:
            raise SettingsError(
                f"the quality {quality!r} is an ensemble with backbones and sizes of its own: "
                "leave out backbone and size, or the quality"
            )
        return [{name: value for name, value in own.items() if name not in taken} for own in base]
    several: dict[str, Sequence[Any]] = {}
    if backbone is not None:
        several["backbone"] = [backbone] if isinstance(backbone, str) else backbone
    if size is not None:
        several["size"] = size if isinstance(size, list) else [size]
    count = max([1, *map(len, several.values())])
    if any(len(values) not in (1, count) for values in several.values()):
        counts = {name: len(values) for name, values in several.items()}
        given = " and ".join(f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items())
        raise SettingsError(
            f"{given} were given: give as many of one as of the other for an ensemble, or a single "
            "one that all members share"
        )
    shared = {name: value for name, value in base[0].items() if name not in taken}
    return [
        shared | {name: values[i if len(values) > 1 else 0] for name, values in several.items()}
        for i in range(count)
    ]


def fit_members(
    good: GoodSource,
    settings: Sequence[FitSettings],
    options: FitOptions,
    statistics: Statistics = "as_new",
    steps_of: StepsOf = in_this_process,
) -> Inspector:
    """Fit a model with the settings of a single member, or an ensemble; see `fit_ensemble`."""
    if len(settings) == 1:
        return fit_model(good, settings[0], options, steps_of)
    return fit_ensemble(good, settings, options, statistics, steps_of)


def fit_ensemble(
    good: GoodSource,
    settings: Sequence[FitSettings],
    options: FitOptions,
    statistics: Statistics = "as_new",
    steps_of: StepsOf = in_this_process,
) -> Ensemble:
    """Fit one member for each of the settings, on the same photos, and combine them.

    Of confirmed defects each member learns by itself, and decides by itself whether that pays.

    Args:
        good: see `reconpatch.fit`.
        settings: of each member; they differ in the backbone or the size, say.
        options: see `reconpatch.fitting.options.FitOptions`; `weights` can be a file only where all
            members have the same backbone.
        statistics: "as_new" takes the scales from the good photos scored as if they were new;
            "training", the paper's rule, from their scores against the whole bank, for which
            every photo is read and inspected once more.
        steps_of: the steps of each member's fit: here, or by workers.

    Raises:
        SettingsError: there are fewer than two members, they see different parts of a photo, one of
            them cannot learn from the confirmed defects that are given, or one file of weights is
            given for several backbones.
    """
    if options.confirmed is not None:
        for member in settings:  # before hours of fitting
            check_learns(member, options)
    good = photos_given(good)
    check_count(settings)  # before hours of fitting
    check_views([(s.size, s.resize) for s in settings])
    if options.weights not in (None, "random") and len({s.backbone for s in settings}) > 1:
        raise SettingsError(
            "--weights names one file, and an ensemble needs one for each backbone: install them "
            "or let timm find them"
        )
    models: list[Model] = []
    for name, member in zip(member_names(settings), settings, strict=True):
        own = replace(
            options,
            # One set of thumbnails is enough: that of the first member.
            thumbnails=options.thumbnails and not models,
            explain=None if models else options.explain,
            progress=naming(name, options.progress),
        )
        models.append(fit_model(good, member, own, steps_of))
    thumbnails = models[0].thumbnails
    models = [replace(model, thumbnails=thumbnails) for model in models]
    if statistics == "as_new":
        return combine(models)
    clock, report = Clock(options.timer), report_to(options, AGAIN) or silent
    scored = []
    with clock.step(AGAIN):
        # Photo by photo, so that no more than one decoded photo is held at a time.
        for done, photo in enumerate(read_good(good, options), start=1):
            scored.append(score_members(models, [photo]))
            report(done, len(models[0].photos))
    values = [
        Values(
            np.array([photo.image_score for (photo,) in of_member]),
            np.stack([photo.distances for (photo,) in of_member]),
        )
        for of_member in zip(*scored, strict=True)
    ]
    ensemble = combine(models, values)
    ensemble.provenance["seconds"] |= clock.seconds
    return ensemble
