"""A serial number that is scanned goes with the next part's photo, and with no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import WAIT, textured
from reconpatch.errors import PhotoError
from reconpatch.station.data_folder import DataFolder
from reconpatch.station.next_parts import NextParts
from reconpatch.station.records import Part
from reconpatch.station.station import Station
from test_station import png


def test_a_number_is_taken_once_and_comes_back_where_there_was_no_verdict() -> None:
    parts = NextParts()
    parts.bind("disc", " SN-1 ")
    assert parts.of("disc") == "SN-1"
    assert parts.take("ring", Part()) == Part()
    assert parts.take("disc", Part("L1", "own")) == Part("L1", "own")
    assert parts.take("disc", Part("L1")) == Part("L1", "SN-1")
    assert parts.take("disc", Part()) == Part()
    parts.give_back("disc", "SN-1")
    assert parts.of("disc") == "SN-1"
    parts.bind("disc", "SN-2")
    parts.give_back("disc", "SN-1")  # another has been scanned by then
    assert parts.of("disc") == "SN-2"
    parts.bind("disc", None)
    assert parts.of("disc") is None


def test_the_next_photo_with_a_verdict_has_the_number(
    small_model_file: Path, tmp_path: Path
) -> None:
    with Station(DataFolder(tmp_path / "data"), [small_model_file], threads=1) as station:
        [product] = station.products
        station.next_parts.bind(product, "SN-1")
        with pytest.raises(PhotoError):
            station.submit(b"no photo", name="a.png").result(WAIT)
        assert station.state()[0].serial == "SN-1"
        own = station.submit(png(textured(1)), name="b.png", serial="own").result(WAIT)
        taken = station.submit(png(textured(2)), name="c.png").result(WAIT)
        none = station.submit(png(textured(3)), name="d.png").result(WAIT)
        assert [one.serial for one in (own, taken, none)] == ["own", "SN-1", None]
        assert station.state()[0].serial is None
