"""What the service takes and gives, as JSON, beside `Record` and the like; OpenAPI is made of both.

Names and units are those of `Result`, `Record` and `Version`, where each is explained.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat

from reconpatch.method.settings import Quality
from reconpatch.station.cameras.camera import Pause
from reconpatch.station.confirmed import Confirmed
from reconpatch.station.drawing import MOST_POINTS, MOST_STROKES
from reconpatch.station.fit_jobs import FitFolder, FitJob
from reconpatch.station.log import Alarm, Changed, Failure
from reconpatch.station.records import Feedback, Filter, Part, Record, Version
from reconpatch.station.search import Search, place_of
from reconpatch.station.state import ProductState

# What PostgreSQL's and SQLite's columns hold.
RecordId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Number = Annotated[int, Field(ge=1, le=2**31 - 1)]
Score = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
Coordinate = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=1e-6, lt=1, allow_inf_nan=False)]


def _storable(given: datetime) -> datetime:
    """In UTC, within the years that every database knows."""
    try:
        utc = given.astimezone(UTC)
    except OverflowError:
        utc = (datetime.max if given.year > 1 else datetime.min).replace(tzinfo=UTC)
    return max(datetime(1970, 1, 1, tzinfo=UTC), min(utc, datetime(9000, 1, 1, tzinfo=UTC)))


Time = Annotated[AwareDatetime, AfterValidator(_storable)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Problem(BaseModel):
    """What went wrong, and the way out."""

    error: str = Field(description="One sentence.")


class Question(Problem):
    """What somebody has to know before it is done: confirmed defects would be missed."""

    threshold: float
    confirmed: Confirmed


class BatchItem(BaseModel):
    """What came of one photo of a batch: a record or an error."""

    name: str
    record: Record | None = None
    error: str | None = None


class BatchOut(BaseModel):
    """What came of each photo, in the order in which they were sent."""

    items: list[BatchItem]


@dataclass(frozen=True)
class VersionOut(Version):
    """A version of a model, as `Version` says it, and its service.

    Attributes:
        in_service: whether it judges now.
        in_service_since: when it last went into service.
    """

    in_service: bool
    in_service_since: datetime | None


@dataclass(frozen=True)
class VersionDetail(VersionOut):
    """A version of a model, and where it comes from.

    Attributes:
        promise: what the threshold promises, in plain words.
        good_photos: how many it knows.
        provenance: where it comes from.
        settings: of each member of the model.
    """

    promise: str
    good_photos: int
    provenance: dict[str, Any]
    settings: list[dict[str, Any]]


class VersionsOut(BaseModel):
    """All versions of a product, oldest first."""

    versions: list[VersionOut]


class ProductOut(BaseModel):
    """A product and the model in service."""

    name: str
    version: int
    threshold: float
    map_threshold: float
    false_alarm_rate: float = Field(description="Expected of good photos, by the calibration.")
    promise: str
    good_photos: int
    in_service_since: datetime
    etag: str = Field(description="For `If-Match` of a change.")


class ProductNotServed(BaseModel):
    """A product whose model cannot be used."""

    name: str
    version: int | None
    error: str


class ProductsOut(BaseModel):
    """All products."""

    products: list[ProductOut] = Field(description="Those in service.")
    default: str | None = Field(description="Which is meant where none is named.")
    out: list[ProductNotServed] = Field(description="Those whose model cannot be used.")
    retired: list[str]


class StateOut(BaseModel):
    """What there is to say instead of a verdict, of each product; from memory."""

    now: datetime
    ready: bool = Field(description="Whether the next photo could be stored.")
    reasons: list[str] = Field(description="Why it could not.")
    warnings: list[str] = Field(description="What will become a reason.")
    default: str | None
    stale_after: float | None = Field(description="Seconds; null: a verdict is never stale.")
    products: list[ProductState]
    outputs: list[str] = Field(description="Names of the outputs to the line.")
    failing: dict[str, str] = Field(description="Why outputs fail, by their names.")
    cameras: list[str] = Field(description="Names of the cameras.")
    lost: dict[str, str] = Field(description="Why cameras are lost, by their names.")
    paused: list[Pause] = Field(description="Cameras that take no photos.")


class FailuresOut(BaseModel):
    """Photos without a verdict, newest first."""

    failures: list[Failure]
    cursor: int | None = Field(description="Give it as `cursor` for the next; null: the last.")


class ChangesOut(BaseModel):
    """Who changed what, newest first."""

    changes: list[Changed]
    cursor: int | None = Field(description="Give it as `cursor` for the next; null: the last.")


class AlarmsOut(BaseModel):
    """Drift alarms, newest first."""

    alarms: list[Alarm]
    cursor: int | None = Field(description="Give it as `cursor` for the next; null: the last.")


class AcknowledgeIn(_Given):
    """Somebody has seen the open drift alarms."""

    by: str = Field(min_length=1, max_length=80, description="Who.")
    note: str = Field("", max_length=500)
    up_to: RecordId | None = Field(None, description="The newest alarm that was seen; null: all.")


class OrphansOut(BaseModel):
    """Files in the data folder that the records did not know at start; nothing removes them."""

    photos: int
    bytes: int
    foreign: int
    fits: int
    sentence: str | None


class ScoreOut(_Answer):
    """The score of a record."""

    id: int
    score: float
    anomalous: bool
    feedback: Feedback | None


class ScoresOut(BaseModel):
    """What a histogram of scores is drawn from."""

    threshold: float
    recent: list[ScoreOut] = Field(description="Up to 1,000 comparable ones, newest first.")
    calibration: list[float] = Field(description="Of good photos, each as if it were new.")


class DriftOut(_Answer):
    """Whether scores still look like those of the calibration."""

    photos: int = Field(description="Seen by the version in service.")
    alarms: int
    level: float = Field(description="How near the next alarm is; it comes at 1.")
    last: str | None = Field(description="The newest open alarm, in plain words.")
    open: list[Alarm] = Field(description="Alarms that nobody acknowledged, newest first.")


class RescoredItem(ScoreOut):
    """A record, and what another version says of its photo."""

    rescored: float = Field(description="The score that the version asked for gives.")
    rescored_anomalous: bool


class RescoredOut(BaseModel):
    """What a version says of photos of the recent past, newest first."""

    items: list[RescoredItem] = Field(description="Of records whose photo is still stored.")
    cursor: int | None = Field(description="Give it as `cursor` for the next; null: the last.")


class ThresholdIn(_Given):
    """A threshold: a score, or a false-alarm rate that it is to follow from."""

    score: Score | None = None
    false_alarm_rate: Rate | None = None
    confirm: bool = Field(False, description="Also when confirmed defects would be missed.")


class RollbackIn(_Given):
    """Which version to go back to; null takes the parent of the one in service."""

    number: Number | None = None
    confirm: bool = Field(False, description="Also when confirmed defects would be missed.")


class StrokeIn(_Given):
    """A line of a round brush, in pixels of the photo."""

    width: float = Field(ge=1, le=1e6, allow_inf_nan=False)
    points: list[tuple[Coordinate, Coordinate]] = Field(min_length=1, max_length=MOST_POINTS)


class FeedbackIn(_Given):
    """What the part was; null takes back what was said."""

    feedback: Feedback | None
    kind: str | None = Field(None, max_length=64, description="Of a defect; null: not named.")
    place: list[StrokeIn] = Field(
        [], max_length=MOST_STROKES, description="Of a defect, where it was drawn."
    )


class KindOut(BaseModel):
    """A kind of defect of a product."""

    name: str
    confirmed: int = Field(description="Photos that operators called a defect of this kind.")
    known: bool = Field(description="Whether the version in service names it.")


class DefectsOut(BaseModel):
    """What operators confirmed of a product's defects, each photo once."""

    confirmed: int
    drawn: int = Field(description="Of these, with the place drawn.")
    unnamed: int = Field(description="Of these, of no kind that was named.")
    kinds: list[KindOut] = Field(description="In alphabetical order.")


class UpdateOut(BaseModel):
    """The version that came of an update, and how it compares with the one before."""

    version: VersionOut | None = Field(description="Null where the update was only tried.")
    comparison: dict[str, Any]


class FitOut(_Answer):
    """What fits can learn from, and the fit at work or the last one."""

    folders: list[FitFolder]
    dropped: int = Field(description="Photos that were dropped for the next fit.")
    job: FitJob | None
    etag: str = Field(description="For `If-Match` of a change; not of photos that are dropped.")


class FitIn(_Given):
    """A fit that is to begin."""

    product: str = Field(max_length=64, description="A new name is a new product.")
    folder: str | None = Field(
        None, max_length=4_096, description="Name of a folder; null: the photos dropped."
    )
    quality: Quality = "balanced"


class LearnIn(_Given):
    """Where the good photos of the model in service are, which is made anew from them."""

    folder: str | None = Field(
        None, max_length=4_096, description="Name of a folder; null: the photos dropped."
    )


class FitServiceIn(_Given):
    """How a fit goes into service."""

    force: bool = Field(False, description="Also when a confirmed defect would be missed.")


class HealthOut(BaseModel):
    """Whether the service could inspect and store the next photo."""

    status: Literal["ok", "not ready"]
    version: str
    waiting: int = Field(description="Photos in the queue.")
    reasons: list[str] = Field(description="Why it could not.")
    error: str | None = Field(None, description="The same as one sentence.")
    lost: list[str] = Field(description="Names of cameras that are lost; others go on.")


class RecordFilter(_Given):
    """Which records are asked for."""

    product: str | None = Field(None, max_length=64)
    version: Number | None = None
    verdict: Literal["good", "anomalous"] | None = None
    feedback: Literal["good", "defect", "any", "none"] | None = None
    since: Time | None = Field(None, description="From this time on; with a zone.")
    until: Time | None = Field(None, description="Before this time; with a zone.")
    photo: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="SHA-256 of the file.")
    lot: str | None = Field(None, max_length=100)
    serial: str | None = Field(None, max_length=100)
    id: RecordId | None = Field(None, description="Number of a record.")
    name: str | None = Field(None, min_length=1, max_length=255, description="A part of the name.")
    score_least: FiniteFloat | None = Field(None, description="From this score on.")
    score_most: FiniteFloat | None = Field(None, description="Up to this score.")
    place: str | None = Field(
        None,
        max_length=100,
        description="Where the worst region is: left, top, right, bottom in shares of the photo.",
    )

    def wanted(self) -> Filter:
        """The same for the records."""
        given = self.model_dump(include={field.name for field in fields(Filter)} - {"search"})
        given |= vars(Part.of(self.lot, self.serial))  # as they are kept
        place = None if self.place is None else place_of(self.place)
        search = Search(self.id, self.name, self.score_least, self.score_most, place)
        return Filter(
            anomalous=self.verdict and self.verdict == "anomalous", search=search, **given
        )


class RecordQuery(RecordFilter):
    """Which records are asked for, and which page of them."""

    limit: int = Field(100, ge=1, le=1_000)
    cursor: RecordId | None = Field(None, description="From the page before.")
