"""What can go wrong, as one tree.

    ReconPatchError                 catch this one to catch them all
    ├── PhotoError                  a photo, array or folder cannot be used
    ├── NotEnoughPhotosError        fewer good photos than a step needs
    ├── WeightsError                the backbone's weights are missing or do not fit
    ├── ModelFileError              a model file is damaged, foreign or too new
    ├── OutputError                 a result cannot be written where it was asked for
    ├── ParityError                 an engine disagrees with the calibration
    ├── SettingsError               a setting is unknown or out of its range
    ├── MissingExtraError           a command needs packages of an extra that is not installed
    ├── NotFoundError               a product, version, record or photo that is not there
    ├── RecordsError                the records' database cannot be opened or written
    ├── WorkersError                a Ray cluster cannot be reached, or a process at work died
    ├── AccessError                 a name or a password is wrong
    ├── AuditError                  an audit trail is broken
    ├── CameraError                 a camera is lost or paused, or its frame cannot be used
    ├── LineError                   an output to the line is away
    │   └── RefusedError            a receiver will not take this very message
    ├── BusyError                   more photos are waiting than the station takes
    ├── ChangedError                somebody else has changed it in the meantime
    └── UpdateRefusedError          a new version would miss a defect that an operator confirmed
        └── ConfirmError            likewise of a threshold or roll back, unless that is confirmed

Every message says what was given, what is allowed and what to do; the command line prints it as
it is, without a traceback, and exits with code 2.
"""

from __future__ import annotations

from typing import Any


class ReconPatchError(Exception):
    """Anything this package refuses to do, with the way out in its message."""


class PhotoError(ReconPatchError):
    """A photo, array or folder of photos cannot be used."""


class NotEnoughPhotosError(ReconPatchError):
    """Fewer good photos than a step needs."""


class WeightsError(ReconPatchError):
    """The backbone's weights are missing or do not fit the backbone."""


class ModelFileError(ReconPatchError):
    """A model file is damaged, foreign, or of a newer format than this version reads."""


class ParityError(ReconPatchError):
    """An engine does not give the verdicts that the model was calibrated with."""


class OutputError(ReconPatchError):
    """A result cannot be written where it was asked for."""


class SettingsError(ReconPatchError, ValueError):
    """A setting is unknown or out of its range."""


class MissingExtraError(ReconPatchError, ImportError):
    """A command needs packages that come with an extra which is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages of the extra '{extra}', which is not installed. "
            f"Install it with: pip install 'reconpatch[{extra}]'"
        )
        self._given = what, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return MissingExtraError, self._given  # or a worker could not hand it over


class NotFoundError(ReconPatchError):
    """A product, version, record or photo that was asked for is not there."""


class RecordsError(ReconPatchError):
    """The database of the records cannot be opened, read or written."""


class WorkersError(ReconPatchError):
    """A Ray cluster cannot be reached or started, or a process that worked for this one died."""


class AccessError(ReconPatchError):
    """A name or a password is wrong."""


class AuditError(ReconPatchError):
    """An export of the audit trail is broken, or is none."""


class CameraError(ReconPatchError):
    """A camera is lost or paused, or gives frames that cannot be used."""


class LineError(ReconPatchError):
    """An output to the line cannot be reached, or does not take a message."""


class RefusedError(LineError):
    """The receiver will not take this very message, however often it is sent."""


class BusyError(ReconPatchError):
    """More photos or requests are waiting than the station takes.

    Attributes:
        seconds: about how long to wait before asking again; 1 or more.
    """

    def __init__(
        self,
        waiting: int = 1,
        seconds: int = 1,
        what: str = "photos are waiting for inspection and no more are taken: send this one",
    ) -> None:
        super().__init__(f"{waiting} {what} again in about {seconds} s")
        self.seconds = seconds


class ChangedError(ReconPatchError):
    """What is to be changed is no longer as it was when that was decided.

    Attributes:
        etag: names what it is now.
    """

    def __init__(self, sentence: str, *, etag: str = "") -> None:
        super().__init__(sentence)
        self.etag = etag


class UpdateRefusedError(ReconPatchError):
    """A new version of a model would miss a defect that an operator has confirmed."""


class ConfirmError(UpdateRefusedError):
    """Confirmed defects would be missed, which somebody has to say that they know.

    Attributes:
        figures: what would come of it, JSON-ready.
    """

    def __init__(self, sentence: str, *, figures: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.figures = figures or {}


class ReconPatchWarning(UserWarning):
    """Something that works, but that the user should know about."""
