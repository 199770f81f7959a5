"""Estimate the memory and disk of a fit, and refuse one too large before it begins.

settings, number of photos, --memory-limit ──> what is approximated
memory of the machine or its container ──────> where features are kept, which no figure sees
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reconpatch.errors import SettingsError
from reconpatch.features.store import BLOCK, MOST_AT_HAND, PatchStore
from reconpatch.memory import machine_bytes, resident_bytes
from reconpatch.method.contrastive_components import PATCHES, SEARCHED
from reconpatch.method.coreset import bank_rows
from reconpatch.method.settings import FitSettings
from reconpatch.model.good_photos import CALIBRATED

Where = Literal["memory", "mapped", "parts"]

MIB, GIB = 2**20, 2**30
ENGINE_BYTES = 300 * MIB
"""What the engine and decoded photos take beside the features."""
MACHINE_SHARE = 0.75
"""Share of the machine's memory up to which a fit keeps its features there."""
LIMIT_SHARE = 5
"""One part in so many of a memory limit is the features': the libraries and copies need the rest.
By the limit alone, whatever the process holds already, so that equal limits give equal models."""

_ITEM = 4  # bytes of a float32


@dataclass(frozen=True)
class Fit:
    """The sizes of a fit.

    Attributes:
        settings: of the fit, the size of the input decided.
        photos: how many good photos there are.
        places: P, patches of a photo.
        channels: C of p.
        kept: photos whose features are kept here; workers keep those of others.
    """

    settings: FitSettings
    photos: int
    places: int
    channels: int
    kept: int

    @property
    def dim(self) -> int:
        """D of r = f(p)."""
        learns = self.settings.method != "patchcore"
        return (self.settings.training.dim if learns else 0) or self.channels

    @property
    def half(self) -> bool:
        """Whether p is kept in half precision: coordinates in a basis that no step is taken on."""
        training = self.settings.training
        steps = training.total_steps(max(1, self.photos * self.places))
        return training.init == "contrastive" and training.basis > 0 and not steps

    @property
    def feature_bytes(self) -> int:
        """Bytes of p of the photos that are kept."""
        return self.kept * self.places * self._patch_bytes

    @property
    def _patch_bytes(self) -> int:
        return self.channels * (_ITEM // 2 if self.half else _ITEM)

    @property
    def represented_bytes(self) -> int:
        """Bytes of r of the photos that are kept."""
        return self.kept * self.places * self.dim * _ITEM

    def at_hand(self, limit: int) -> int:
        """Patches that a step may hold at a time within a limit; 0 for none."""
        within = limit // LIMIT_SHARE // (self.channels * _ITEM) if limit else MOST_AT_HAND
        return max(self.places, min(MOST_AT_HAND, within))

    def disk(self, where: Where) -> int:
        """Bytes of temporary files: p, and beside it r while it takes the place of p."""
        if where == "memory":
            return 0
        return self.feature_bytes + (self.represented_bytes if self._moves else 0)

    def memory(self, where: Where, limit: int = 0) -> int:
        """Bytes that the fit takes at its peak, beside the libraries and the engine."""
        p = self.feature_bytes if where == "memory" else 0
        r = self.represented_bytes if where == "memory" else 0
        both = p if self.dim * _ITEM <= self._patch_bytes else p + r
        block = BLOCK * (self.channels + self.dim) * _ITEM
        banks = self._bank_bytes()
        return max(
            p + self._training_bytes(where, limit),
            both + block,
            r + self._picking_bytes(where, limit) + banks,
            r + self._calibration_bytes() + banks,
        )

    @property
    def _moves(self) -> bool:
        """Whether r has no room in the place of p."""
        return self.half or self.dim != self.channels

    def _training_bytes(self, where: Where, limit: int) -> int:
        patches = self.kept * self.places
        taken = min(patches, self.at_hand(limit)) if where == "parts" else 0
        training = self.settings.training
        whole = training.init == "pca" or (
            training.init == "relevant_components" and self.dim < self.channels
        )
        copies = (taken or patches) * 2 if whole else 0
        if training.init == "contrastive":  # a sample in the directions that are searched
            copies = min(taken or patches, PATCHES) * SEARCHED // self.channels
        return (taken + copies) * self.channels * _ITEM + 8 * patches

    def _picking_bytes(self, where: Where, limit: int) -> int:
        patches, candidates = self.kept * self.places, self.settings.candidates
        among = min(patches, self.at_hand(limit))
        taken = where != "memory"
        if 0 < candidates < patches:
            among, taken = min(max(candidates, self._rows), patches), True
        projection = self.settings.projection
        projected = projection if 0 < 2 * projection <= self.dim else 0
        if projected and where == "mapped":
            taken = False  # features are read once, and given up
        bytes_of_one = (self.dim * taken + projected) * _ITEM + 32
        in_parts = patches > among and not candidates  # the picks of all parts are at hand too
        return among * bytes_of_one * (3 if in_parts else 2) // 2

    @property
    def _rows(self) -> int:
        settings = self.settings
        return bank_rows(settings.bank, self.photos * self.places, settings.bank_least)

    def _bank_bytes(self) -> int:
        """Rows and replacements, each twice while they are made, and another bank for the guard."""
        return self._rows * _ITEM * (4 * self.dim + 2 * self.channels * self.settings.guard)

    def _calibration_bytes(self) -> int:
        scored = min(self.kept, CALIBRATED) * self.places * 28
        if self.settings.turns == "never":
            return scored
        turned = 3 * min(self.kept, self.settings.defects) * self.places
        return scored + turned * self.dim * _ITEM


def open_store(fit: Fit, limit: int) -> PatchStore:
    """Open a store for the features of a fit where there is room for them.

    Args:
        fit: its sizes.
        limit: bytes that the process may take; 0 for no limit.

    Raises:
        SettingsError: the fit takes more memory, or its temporary files more of the disk, than
            there is.
        OutputError: the temporary file cannot be made.
    """
    libraries = resident_bytes() + ENGINE_BYTES
    if limit:
        _check_limit(fit, limit, libraries)
        memory = limit // LIMIT_SHARE
        if fit.feature_bytes > memory:
            _check_disk(fit, "parts")
        return PatchStore(fit.kept, fit.places, fit.channels, memory=memory, half=fit.half)
    room = machine_bytes()
    if libraries + fit.memory("memory") <= MACHINE_SHARE * room:
        return PatchStore(fit.kept, fit.places, fit.channels, half=fit.half)
    if libraries + fit.memory("mapped") > room:
        raise SettingsError(
            f"the fit takes about {_size(libraries + fit.memory('mapped'))} of memory for "
            f"{fit.photos} photos, and this machine or its container has {_size(room)}: give "
            "fewer photos, a smaller --size or --bank, or a --memory-limit, which takes the "
            "patches in parts"
        )
    _check_disk(fit, "mapped")
    return PatchStore(fit.kept, fit.places, fit.channels, mapped=True, half=fit.half)


def _check_limit(fit: Fit, limit: int, libraries: int) -> None:
    def takes(limit: int) -> int:
        fits = fit.feature_bytes <= limit // LIMIT_SHARE
        return libraries + fit.memory("memory" if fits else "parts", limit)

    least = limit
    while takes(least) > least:
        least += max(2**26, least // 16)
    if least > limit:
        raise SettingsError(
            f"the memory limit is {limit / MIB:.0f} MiB, and the fit takes more: give "
            f"{-(-least // MIB)} MiB or more, or fewer photos, a smaller --size or a smaller --bank"
        )


def _check_disk(fit: Fit, where: Where) -> None:
    folder, needed = tempfile.gettempdir(), fit.disk(where)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise SettingsError(
            f"the features of {fit.photos} photos take {_size(needed)} in temporary files, and "
            f"{folder} has {_size(free)} free: free some room, name another folder in the "
            "environment variable TMPDIR, or give fewer photos or a smaller --size"
        )


def _size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def approximations(patches: PatchStore, settings: FitSettings) -> Iterator[str]:
    """Note which steps of a fit take some of the patches only, or take them in parts."""
    count, at_hand = patches.patches, patches.at_hand
    if count > at_hand and not patches.addressable and settings.method != "patchcore":
        yield (
            f"f was learned from {at_hand:,} of the {count:,} patches, drawn at random: as many as "
            "the memory limit allows."
        )
    if 0 < settings.candidates < count:
        rows = bank_rows(settings.bank, count, settings.bank_least)
        among = min(max(settings.candidates, rows), count)
        yield f"The bank was picked among {among:,} of the {count:,} patches, drawn at random."
    elif count > at_hand:
        yield (
            f"The bank is a coreset of coresets: it was picked among {count:,} patches in parts of "
            f"{at_hand:,} at most."
        )
