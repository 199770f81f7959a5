from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconpatch.errors import NotFoundError, OutputError, RecordsError
from reconpatch.station.photo_store import PhotoStore
from reconpatch.station.records import Records
from test_records import VERDICT, VERSION


@pytest.fixture
def records(tmp_path):
    opened = Records(tmp_path / "records.sqlite", "line 1")
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path, records):
    return PhotoStore(tmp_path / "photos", records)


def files(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "photos").rglob("*") if path.is_file()}


def keep(store, records, content, *, days_ago=0.0):
    """Store a photo and its record, as the station does; the record."""
    verdict = replace(
        VERDICT, photo=store.add(content)[0], time=datetime.now(UTC) - timedelta(days=days_ago)
    )
    return records.add([verdict], photo_bytes=[len(content)])[0]


def test_a_photo_is_stored_once_under_its_hash(store, tmp_path):
    sha256, new = store.add(b"a photo")
    assert sha256 == hashlib.sha256(b"a photo").hexdigest()
    assert store.read(sha256) == b"a photo"
    assert new
    assert store.add(b"a photo") == (sha256, False)
    assert store.add(b"another")[0] != sha256
    assert len(files(tmp_path)) == 2
    assert (tmp_path / "photos" / sha256[:2] / sha256).read_bytes() == b"a photo"


@pytest.mark.parametrize(
    "name", ["", "../secret", "a" * 63, "A" * 64, "a" * 64 + "\n", "/etc/passwd"]
)
def test_no_name_but_a_hash_reaches_the_disk(store, name):
    with pytest.raises(NotFoundError, match="64 hexadecimal digits"):
        store.read(name)


def test_a_photo_that_is_gone_says_so(store):
    with pytest.raises(NotFoundError, match=r"aaaaaaaaaaaa\.\.\. is no longer stored"):
        store.read("a" * 64)


def test_a_photo_that_cannot_be_written(tmp_path, records):
    (tmp_path / "photos").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="could not be written"):
        PhotoStore(tmp_path / "photos", records).add(b"a photo")


def test_old_photos_go_and_their_records_stay(store, records, tmp_path):
    old = keep(store, records, b"old", days_ago=3)
    told = keep(store, records, b"told", days_ago=3)
    new = keep(store, records, b"new")
    records.feedback(told.id, "defect")
    assert len(store.prune()) == 0
    assert len(store.prune(keep_days=2)) == 1
    assert files(tmp_path) == {told.photo, new.photo}
    with pytest.raises(NotFoundError):
        store.read(old.photo)
    assert records.get(old.id) == old
    assert len(store.prune(keep_days=2)) == 0


def test_the_total_size_is_kept_by_removing_the_oldest(store, records, tmp_path):
    kept = [keep(store, records, bytes([i]) * 100, days_ago=10 - i) for i in range(5)]
    records.feedback(kept[1].id, "good")
    assert len(store.prune(keep_bytes=500)) == 0
    assert len(store.prune(keep_bytes=250)) == 3
    assert files(tmp_path) == {kept[1].photo, kept[4].photo}
    assert records.photo_bytes() == 200
    assert len(store.prune(keep_bytes=0)) == 1
    assert files(tmp_path) == {kept[1].photo}


def test_no_more_than_so_many_photos_are_kept(store, records, tmp_path):
    kept = [keep(store, records, bytes([i]), days_ago=10 - i) for i in range(6)]
    records.feedback(kept[0].id, "defect")
    assert records.photo_totals() == (6, 6)
    assert store.prune(keep_photos=6) == []
    # That with feedback is one of the four, however old.
    assert store.prune(keep_photos=4) == [kept[1].photo, kept[2].photo]
    assert files(tmp_path) == {kept[i].photo for i in (0, 3, 4, 5)}
    assert records.count() == 6
    # By count and by bytes: whichever asks for more.
    assert store.prune(keep_photos=3, keep_bytes=2) == [kept[3].photo, kept[4].photo]
    assert store.prune(keep_photos=0) == [kept[5].photo]
    assert files(tmp_path) == {kept[0].photo}


def test_any_number_of_photos_is_removed(store, records, tmp_path, monkeypatch):
    monkeypatch.setattr("reconpatch.station.records._PAGE", 2)
    kept = [keep(store, records, bytes([i]), days_ago=10 - i) for i in range(6)]
    records.feedback(kept[0].id, "good")
    assert len(store.prune(keep_days=4.5)) == 5
    assert files(tmp_path) == {kept[0].photo}


def test_a_photo_that_was_removed_can_come_again(store, records, tmp_path):
    keep(store, records, b"a photo")
    assert len(store.prune(keep_bytes=0)) == 1
    again = keep(store, records, b"a photo")
    assert files(tmp_path) == {again.photo}
    assert records.photo_bytes() == 7


def test_only_what_is_half_written_is_swept_up(store, records, tmp_path):
    kept = keep(store, records, b"kept")
    orphan, _ = store.add(b"stored, and then the power went")
    folder = tmp_path / "photos" / orphan[:2]
    half = folder / f".{orphan}.1234abcd.part"
    foreign = folder / ".notes.1234abcd.part"
    for path in (half, foreign):
        path.write_bytes(b"half")
        os.utime(path, (1, 1))
    assert store.sweep() == 1
    assert files(tmp_path) == {kept.photo, orphan, foreign.name}
    assert store.sweep() == 0
    assert PhotoStore(tmp_path / "none yet", records).sweep() == 0


def test_photos_whose_verdicts_cannot_be_kept_do_not_fill_the_disk(
    store, records, tmp_path, monkeypatch, small_model, good_photo
):
    known, _ = store.add(b"known")
    result = small_model.inspect(good_photo)

    def refuse(*_, **__):
        raise RecordsError("the database is away")

    photos = [(b"known", result), (b"new", result)]
    with monkeypatch.context() as broken:
        broken.setattr(records, "add", refuse)
        with pytest.raises(RecordsError):
            store.keep(VERSION, photos)
    assert files(tmp_path) == {known}
    first, second = store.keep(VERSION, photos)
    assert files(tmp_path) == {first.photo, second.photo}
    assert (second.product, second.version, second.score) == ("bottle", 1, result.score)
    assert records.photo_bytes() == 8
