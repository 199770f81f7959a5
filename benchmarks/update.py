"""An update against a fit on all photos, and false alarms that are confirmed.

    python benchmarks/update.py DATA/magnetic_tile/tile

First table: a fit on every second good photo, that model updated with the others, and a fit on all.
Second: at a false-alarm rate of --rate, false alarms among the first half of the good test photos
are confirmed; are they gone, do others like them go, are the defects found before still found?
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import reconpatch
from reconpatch.evaluation.datasets import find_test_photos
from reconpatch.evaluation.evaluate import evaluate
from reconpatch.fitting.update import check_update, update
from reconpatch.model.model import Inspector
from reconpatch.photos.images import list_photos, read_photo


def row(name: str, model: Inspector, seconds: float, test: Path) -> None:
    figures = evaluate(model, find_test_photos(test))
    rows = sum(len(member.bank) for member in model.members)
    found = sum(flagged for flagged, _ in figures.detected.values())
    values = figures.to_dict()
    print(
        f"| {name} | {len(model.photos)} | {rows} | {seconds:.0f} | "
        f"{100 * values['image_auroc']:.2f} | {100 * values['aupro']:.2f} | "
        f"{model.threshold:.2f} | {figures.false_alarms} of {figures.good} "
        f"({figures.false_alarm_interval[0]} to {figures.false_alarm_interval[1]}) | "
        f"{found} of {figures.defective} |",
        flush=True,
    )


def teach(model: Inspector, test: Path) -> None:
    goods = [read_photo(path) for path in list_photos(test / "good")]
    defects = [
        read_photo(path)
        for folder in sorted(test.iterdir())
        if folder.name != "good"
        for path in list_photos(folder)
    ]
    shown, unseen = goods[::2], goods[1::2]
    alarms = [photo for photo in shown if model.judge([photo])[0].score > model.threshold]
    if not alarms:
        print(f"\nno false alarm among {len(shown)} good test photos at this rate")
        return
    start = time.perf_counter()
    taught = update(model, [], confirmed=alarms)
    seconds = time.perf_counter() - start
    feedback = check_update(model, taught, alarms, defects, force=True)
    others = check_update(model, taught, unseen, [])
    rows = sum(len(m.bank) for m in taught.members) - sum(len(m.bank) for m in model.members)
    print(f"\nconfirmed: {len(alarms)} false alarms of {len(shown)} good test photos")
    print(f"rows added: {rows}; seconds: {seconds:.1f}")
    print(f"threshold: {model.threshold:.2f} -> {taught.threshold:.2f}")
    print(f"confirmed false alarms gone: {len(feedback.vanished)} of {len(alarms)}")
    before = len(others.vanished) + len(others.remaining)
    after = len(others.remaining) + len(others.new_false_alarms)
    print(f"false alarms among {len(unseen)} other good photos: {before} -> {after}")
    found = sum(change.old_anomalous for change in feedback.defects)
    print(
        f"defects found: {found} of {len(defects)} before; of these {len(feedback.missed)} are "
        f"missed, {len(feedback.newly_found)} others are found"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("category", type=Path)
    arguments.add_argument("--rate", type=float, default=0.05)
    given = arguments.parse_args()
    paths, test = list_photos(given.category / "train" / "good"), given.category / "test"

    print("| | good photos | rows | seconds | image AUROC | AUPRO | threshold | false alarms "
          "(95 % of cases) | defects found |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    start = time.perf_counter()
    half = reconpatch.fit(paths[::2])
    row("every second", half, time.perf_counter() - start, test)
    start = time.perf_counter()
    updated = update(half, [read_photo(path) for path in paths[1::2]])
    row("updated with the others", updated, time.perf_counter() - start, test)
    start = time.perf_counter()
    whole = reconpatch.fit(paths)
    row("fit on all", whole, time.perf_counter() - start, test)
    teach(half.with_false_alarm_rate(given.rate), test)


if __name__ == "__main__":
    main()
