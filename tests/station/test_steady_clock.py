"""When the clock may be trusted with the age of photos."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from reconpatch.station.clock import SteadyClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Machine:
    """Two clocks: one that can be set, one that cannot."""

    def __init__(self) -> None:
        self.wall, self.steady = NOON, 0.0

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.steady)

    def run(self, **time: float) -> None:
        gone = timedelta(**time)
        self.wall, self.steady = self.wall + gone, self.steady + gone.total_seconds()


def test_a_clock_that_goes_on_from_the_last_photo_is_trusted() -> None:
    machine = Machine()
    assert machine.clock().is_trusted(NOON - timedelta(hours=3))
    assert not machine.clock().is_trusted(None)
    # The line stood still for long, or the clock is wrong: which of the two is not known yet.
    clock = machine.clock()
    assert not clock.is_trusted(NOON - timedelta(days=400))
    machine.run(days=1)
    assert clock.is_trusted(NOON - timedelta(days=400))


def test_a_clock_that_jumps_ahead_or_back_is_not_trusted_for_a_day() -> None:
    for jump in (timedelta(days=400), timedelta(hours=-2), timedelta(minutes=11)):
        machine = Machine()
        clock = machine.clock()
        assert clock.is_trusted(machine.wall)
        machine.run(minutes=1)
        machine.wall += jump
        assert not clock.is_trusted(machine.wall)
        machine.run(hours=23)
        assert not clock.is_trusted(machine.wall)
        machine.run(hours=1)
        assert clock.is_trusted(machine.wall)


def test_small_corrections_are_no_jump_however_many() -> None:
    machine = Machine()
    clock = machine.clock()
    for _ in range(100):
        machine.run(minutes=1)
        machine.wall += timedelta(minutes=5)
        assert clock.is_trusted(machine.wall)
