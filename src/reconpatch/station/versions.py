"""The versions of the products' models: files that are never changed, numbered from 1.

    DATA/models/PRODUCT/0001.rcp, 0002.rcp, ...

Another threshold, an update or a new fit is another file; a roll back puts an older one into
service. Which versions there are, where each comes from and which is in service is in the records.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import reconpatch
from reconpatch.errors import ModelFileError, NotFoundError, SettingsError
from reconpatch.files import NAMES, atomic_write, make_folder, plain_name, sha256_of
from reconpatch.model.model import Inspector
from reconpatch.station.records import Records, Version

# Models of the past that stay open, to draw the pictures of old records.
_OPEN_AT_ONCE = 2
# Bytes; no fit comes near it, and a sparse file claims any size.
_LARGEST = 16_000_000_000


@dataclass(frozen=True, eq=False)
class Served:
    """A version that is in service, loaded."""

    version: Version
    inspector: Inspector


class ModelVersions:
    """The models of a station's products.

    Args:
        folder: DATA/models.
        records: where the versions' rows are.
        threads: of the inference engine; 0 lets it take all cores.
    """

    def __init__(self, folder: Path, records: Records, *, threads: int = 0) -> None:
        self._folder = folder
        self._records = records
        self._threads = threads
        self.inspector = lru_cache(maxsize=_OPEN_AT_ONCE)(self._load)
        """The model of any version, by product and number; kept open for a while."""

    def path(self, version: Version) -> Path:
        """The file of a version."""
        return self._folder / version.product / version.file

    def get(self, product: str, number: int) -> Version:
        """One version.

        Raises:
            NotFoundError: the product has no version of this number.
        """
        for version in self._records.versions(product):
            if version.number == number:
                return version
        raise NotFoundError(f"{product} has no version {number}: give one that is listed")

    def check_new(self, product: str) -> str:
        """The name of a product that there is, or that there may be beside the others.

        Raises:
            SettingsError: it cannot be one, or is another's in upper and lower case: the two would
                share a folder on some systems, and their files write over each other.
        """
        known, product = self._records.products(), check_name(product)
        alike = [name for name in known if name.casefold() == product.casefold()]
        if alike and product not in alike:
            raise SettingsError(
                f"the product is called {product!r}, and there is {alike[0]!r}: give that name, or "
                "one that differs in more than upper and lower case"
            )
        return product

    def read(self, file: Path) -> Inspector:
        """A model file, for as many threads as a version gets."""
        return reconpatch.load(file, threads=self._threads)

    def serve(self, product: str) -> Served:
        """Load the version that is in service.

        Raises:
            NotFoundError: none is.
            ModelFileError: its file is missing or damaged.
        """
        version = self.in_service(product)
        return Served(version, self._load(product, version.number))

    def in_service(self, product: str) -> Version:
        """The version that is in service, whether it can be loaded or not.

        Raises:
            NotFoundError: none is.
        """
        services = self._records.services(product)
        if not services:
            raise NotFoundError(f"no version of {product} is in service: give its model file")
        return self.get(product, services[0].number)

    def adopt(self, file: Path) -> str:
        """Take in a model file that was given, as the product that its name says.

        A file that was taken in before changes nothing, whichever version is in service now; a
        new one becomes a version and goes into service.

        Returns:
            The name of the product.

        Raises:
            ModelFileError: it is missing, damaged, or not a model.
            SettingsError: its name cannot be that of a product.
        """
        product = check_name(file.stem)
        _check_file(file)
        model = self.read(file)
        content = file.read_bytes()
        known = {version.sha256 for version in self._records.versions(product)}
        if hashlib.sha256(content).hexdigest() not in known:
            note = f"the file {file.name}, given at start"
            version = self.add(product, model, note=note, content=content).version
            self._records.audit.add(
                "model", product, after={"version": version.number, "sha256": version.sha256},
                why=note,
            )  # fmt: skip
        return product

    def add(
        self,
        product: str,
        inspector: Inspector,
        *,
        note: str,
        threshold_of: Version | None = None,
        parent: Version | None = None,
        content: bytes | None = None,
    ) -> Served:
        """Write a model as a new version and put it into service.

        Args:
            product: name of the product.
            inspector: the model.
            note: how it came about, in plain words.
            threshold_of: the version from which it differs in the threshold alone.
            parent: the version that it was made from.
            content: the model's file, where there is one already.
        """
        product = self.check_new(product)
        folder = self._folder / product
        number = max((v.number for v in self._records.versions(product)), default=0) + 1
        # A file without a row was left by a process that was killed right here, or is of another
        # database: it stays, and its number stays free.
        while (path := folder / f"{number:04}.rcp").exists():
            number += 1
        if content is None:
            inspector.save(path)
        else:
            make_folder(path.parent)
            with atomic_write(path) as file:
                file.write(content)
        parent = threshold_of or parent
        version = Version(
            product=product,
            number=number,
            file=path.name,
            sha256=sha256_of(path),
            fingerprint=inspector.fingerprint,
            threshold=inspector.threshold,
            parent=parent.number if parent else None,
            scores_as=threshold_of.scores_as if threshold_of else number,
            created=datetime.now(UTC),
            note=note,
        )
        self._records.add_version(version)
        return Served(version, inspector)

    def _load(self, product: str, number: int) -> Inspector:
        version = self.get(product, number)
        _check_file(self.path(version))
        inspector = self.read(self.path(version))
        if sha256_of(self.path(version)) != version.sha256:
            raise ModelFileError(
                f"{self.path(version)} is not the model that the records tell of: copy the right "
                "file there, or roll back to another version"
            )
        return inspector


def _check_file(path: Path) -> None:
    """Refuse what cannot be a model, before it is read: a pipe is read for ever."""
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ModelFileError(f"{path} is not a regular file: give the model file that `fit` wrote")
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise ModelFileError(
            f"{path} has {path.stat().st_size / 1e9:,.0f} GB, and a model has some hundred MB: "
            "give the model file that `fit` wrote"
        )


def check_name(name: str) -> str:
    """A product's name, as `plain_name` gives it.

    Raises:
        SettingsError: it cannot be one.
    """
    if (plain := plain_name(name)) is None:
        raise SettingsError(
            f"the product is called {name!r}: give {NAMES}, at most 64, beginning with a letter or "
            "digit; a model file's name is that of its product"
        )
    return plain
