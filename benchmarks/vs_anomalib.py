"""anomalib's PatchCore and this project side by side: time, memory and size, in one session.

    python benchmarks/vs_anomalib.py DATA/mvtec_ad/bottle --anomalib anomalib-env/bin/python \
        --threads 2 --repeats 3 --output vs_anomalib.json

Photos, backbone and its weights, input size, bank size and number of threads are the same on both
sides; each side runs in its own environment and, every time, in a new process, the two in turn.
Written are the JSON file, with every figure and how busy the machine was, and a Markdown table
beside it: medians over the runs, and this project's share of anomalib's. What is in the file is
not measured again: start it with the same file to add `--repeats`, `--rows` or `--parts`.

fit: the whole process, from its start to its exit, and its peak memory: what it and the processes
that it starts took together.
    anomalib: imports, `Engine.fit` on a `Folder`, its checkpoint written. It validates nothing, so
    it sets no threshold: that is the least it can do.
    This project: `reconpatch fit` with its default recipe: imports, training, bank, thresholds,
    guard, export, engines compared, file written.
inspect: milliseconds a photo in a process that is warm; `side.py` and `anomalib/side.py` say what
    each way takes in.
first: a new process that loads the model and inspects one photo.
import: a new process that imports what a fit of anomalib needs, or the whole of this project.
size: packages and megabytes of an install, by the packages' own metadata.

WideResNet-50 has random weights on both sides: its figures are of time and memory alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from watched import watch

HERE = Path(__file__).resolve().parent
THEIRS, OURS = "anomalib", "reconpatch"
PARTS = ("fit", "inspect", "first", "import", "size")
RANDOM_WEIGHTS = ("wide_resnet50_2",)


@dataclass(frozen=True)
class Row:
    """What both sides are set to."""

    backbone: str
    bank: float


ROWS = {
    "lite0-1": Row("tf_efficientnet_lite0", 0.01),
    "lite0-10": Row("tf_efficientnet_lite0", 0.1),
    "wrn50-1": Row("wide_resnet50_2", 0.01),
    "wrn50-10": Row("wide_resnet50_2", 0.1),
}
IMPORTS = {
    THEIRS: "from anomalib.data import Folder; from anomalib.engine import Engine; "
    "from anomalib.models import Patchcore",
    OURS: "import reconpatch",
}


class Process(NamedTuple):
    """What a process that went well came to."""

    seconds: float
    peak_megabytes: float
    output: str


class Key(NamedTuple):
    """Which measurement a record is."""

    part: str
    row: str
    side: str
    repeat: int


@dataclass(frozen=True)
class Plan:
    """What is measured, and with what."""

    photos: Path
    pythons: Mapping[str, str]
    output: Path
    size: int
    threads: int
    count: int
    rounds: int
    fit_options: Sequence[str]
    anomalib_env: Mapping[str, str]

    @property
    def work(self) -> Path:
        """Where models and weights are kept between runs."""
        return self.output.with_suffix(".work")

    def model(self, row: str, side: str) -> Path:
        """The folder or file that a fit leaves."""
        return self.work / row / (THEIRS if side == THEIRS else "model.rcp")

    def to_inspect(self) -> list[Path]:
        """Test photos, evenly over their names."""
        found = sorted(path for path in (self.photos / "test").glob("*/*") if path.is_file())
        if not found:
            raise SystemExit(f"{self.photos} has no test photos: give a category folder of MVTec")
        return [found[i * len(found) // self.count] for i in range(min(self.count, len(found)))]


def main() -> None:
    given = parser().parse_args()
    plan = Plan(
        photos=given.photos.resolve(),
        pythons={THEIRS: given.anomalib, OURS: given.python},
        output=given.output.resolve(),
        size=given.size,
        threads=given.threads,
        count=given.photos_inspected,
        rounds=given.rounds,
        fit_options=given.fit_options.split(),
        anomalib_env=dict(pair.split("=", 1) for pair in given.anomalib_env),
    )
    records = opened(plan)
    for key in wanted(given.parts.split(","), given.rows.split(","), given.repeats):
        if key not in records:
            load = os.getloadavg()[0]
            found = MEASURE[key.part](plan, key)
            records[key] = {**found, "load_before": round(load, 2)}
            write(plan, records)
            print(*key, json.dumps(brief(found)), flush=True)
    table = as_table(records)
    plan.output.with_suffix(".md").write_text(table)
    print(table)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("photos", type=Path, help="a category folder in MVTec AD's layout")
    arguments.add_argument("--anomalib", required=True, help="python of anomalib's environment")
    arguments.add_argument("--python", default=sys.executable, help="of this project's")
    arguments.add_argument("--output", type=Path, required=True, help="the JSON file to keep up")
    arguments.add_argument("--parts", default=",".join(PARTS))
    arguments.add_argument("--rows", default="lite0-1,lite0-10,wrn50-1", help=", ".join(ROWS))
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--size", type=int, default=224, help="side of the input, in pixels")
    arguments.add_argument("--photos-inspected", type=int, default=20)
    arguments.add_argument("--rounds", type=int, default=3, help="over those, in each process")
    arguments.add_argument("--fit-options", default="", help='of reconpatch fit: "--quality fast"')
    arguments.add_argument(
        "--anomalib-env", nargs="*", default=[], metavar="NAME=VALUE", help="for its processes"
    )
    return arguments


def wanted(parts: Iterable[str], rows: Iterable[str], repeats: int) -> list[Key]:
    """All measurements in order: the two sides in turn, repeat after repeat."""
    parts, rows = list(parts), list(rows)
    if unknown := (set(parts) - set(PARTS)) | (set(rows) - set(ROWS)):
        raise SystemExit(f"{min(unknown)} is none of {', '.join((*PARTS, *ROWS))}")
    keys = []
    for part in parts:
        for row in rows if part in ("fit", "inspect", "first") else [""]:
            for repeat in range(1 if part == "size" else repeats):
                # Who goes first changes, so that neither always finds the machine warm.
                sides = (THEIRS, OURS) if repeat % 2 == 0 else (OURS, THEIRS)
                keys += [Key(part, row, side, repeat) for side in sides]
    return keys


# --- Parts ----------------------------------------------------------------------------------------


def fit(plan: Plan, key: Key) -> dict[str, Any]:
    row, model = ROWS[key.row], plan.model(key.row, key.side)
    model.parent.mkdir(parents=True, exist_ok=True)
    good = plan.photos / "train" / "good"
    if key.side == OURS:
        random = ["--weights", "random"] if row.backbone in RANDOM_WEIGHTS else []
        ran = run(plan, OURS, [
            "-m", "reconpatch.cli", "fit", good, "-o", model, "--overwrite", "--backbone",
            row.backbone, "--bank", row.bank, "--size", plan.size, "--threads", plan.threads,
            *random, *plan.fit_options,
        ])  # fmt: skip
        return {**cost(ran), "said": ran.output, "megabytes": model.stat().st_size / 1e6}
    ran = run(plan, THEIRS, [
        *their_side(plan, key, "fit"), "--good", good, "--bank", row.bank,
    ])  # fmt: skip
    return {**cost(ran), **json.loads(last_line(ran))}


def inspect(plan: Plan, key: Key) -> dict[str, Any]:
    photos = ["--photos", *plan.to_inspect(), "--rounds", plan.rounds]
    if key.side == THEIRS:
        ran = run(plan, THEIRS, [*their_side(plan, key, "inspect"), *photos])
    else:
        ran = run(plan, OURS, [
            HERE / "side.py", "inspect", "--model", fitted(plan, key), "--threads", plan.threads,
            "--bare", made(plan, "bare", ROWS[key.row].backbone), *photos,
        ])  # fmt: skip
    return {**json.loads(last_line(ran)), "peak_megabytes": ran.peak_megabytes}


def first(plan: Plan, key: Key) -> dict[str, Any]:
    photo = plan.to_inspect()[0]
    if key.side == THEIRS:
        ran = run(plan, THEIRS, [*their_side(plan, key, "first"), "--photos", photo])
    else:
        ran = run(plan, OURS, [
            "-m", "reconpatch.cli", "inspect", fitted(plan, key), photo, "--threads", plan.threads,
        ], allowed=(0, 1))  # fmt: skip
    return cost(ran)


def imported(plan: Plan, key: Key) -> dict[str, Any]:
    empty = run(plan, key.side, ["-c", "pass"])
    ran = run(plan, key.side, ["-c", IMPORTS[key.side]])
    return {**cost(ran), "empty_seconds": empty.seconds}


def size(plan: Plan, key: Key) -> dict[str, Any]:
    of = ["anomalib"] if key.side == THEIRS else ["reconpatch"]
    sizes: dict[str, Any] = json.loads(
        last_line(run(plan, key.side, [HERE / "side.py", "size", "--of", *of]))
    )
    return sizes


MEASURE: Mapping[str, Callable[[Plan, Key], dict[str, Any]]] = {
    "fit": fit,
    "inspect": inspect,
    "first": first,
    "import": imported,
    "size": size,
}


def their_side(plan: Plan, key: Key, what: str) -> list[Any]:
    row = ROWS[key.row]
    script = HERE / "anomalib" / "side.py"
    model = plan.model(key.row, THEIRS) if what == "fit" else fitted(plan, key)
    weights: list[Any] = []
    if row.backbone not in RANDOM_WEIGHTS:
        weights = ["--weights", made(plan, "weights", row.backbone)]
    return [
        script, what, "--work", model, "--backbone", row.backbone, "--size", plan.size,
        "--threads", plan.threads, *weights,
    ]  # fmt: skip


def fitted(plan: Plan, key: Key) -> Path:
    model = plan.model(key.row, key.side)
    if not model.exists():
        raise SystemExit(f"{model} is not there: run the part fit of {key.row} first")
    return model


def made(plan: Plan, what: str, backbone: str) -> Path:
    """A file of weights or a bare backbone, made by this project's side where it is not there."""
    path = plan.work / f"{backbone}-{plan.size}-{what}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        run(plan, OURS, [
            HERE / "side.py", what, "--backbone", backbone, "--size", plan.size, "--output", path,
        ])  # fmt: skip
    return path


# --- Processes ------------------------------------------------------------------------------------


def run(
    plan: Plan, side: str, arguments: Sequence[Any], *, allowed: Sequence[int] = (0,)
) -> Process:
    """A new process of a side's Python, from its start to its exit."""
    environment = dict(os.environ) | {"OMP_NUM_THREADS": str(plan.threads)}
    if side == THEIRS:
        environment.pop("PYTHONPATH", None)
        environment |= plan.anomalib_env
    command = [plan.pythons[side], *map(str, arguments)]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        ran = watch(command, out, err, environment)
        out.seek(0)
        err.seek(0)
        if ran.code not in allowed:
            raise SystemExit(
                f"{' '.join(command)} ended with {ran.code}:\n"
                + err.read().decode(errors="replace")[-4000:]
            )
        return Process(ran.seconds, ran.peak / 1e6, out.read().decode())


def last_line(ran: Process) -> str:
    return ran.output.strip().splitlines()[-1]


def cost(ran: Process) -> dict[str, float]:
    return {"seconds": ran.seconds, "peak_megabytes": ran.peak_megabytes}


# --- The file -------------------------------------------------------------------------------------


def opened(plan: Plan) -> dict[Key, dict[str, Any]]:
    """The records so far; those of other settings are refused."""
    if not plan.output.exists():
        return {}
    found = json.loads(plan.output.read_text())
    if found["settings"] != settings_of(plan):
        raise SystemExit(f"{plan.output} holds figures of other settings: give another file")
    return {Key(**record.pop("key")): record for record in found["records"]}


def settings_of(plan: Plan) -> dict[str, Any]:
    return {
        "photos": f"{plan.photos.parent.name}/{plan.photos.name}",
        "size": plan.size,
        "threads": plan.threads,
        "photos_inspected": plan.count,
        "rounds": plan.rounds,
        "fit_options": list(plan.fit_options),
        "anomalib_env": dict(plan.anomalib_env),
        "rows": {name: asdict(row) for name, row in ROWS.items()},
        "cores": os.cpu_count(),
        "machine": platform.machine(),
    }


def write(plan: Plan, records: Mapping[Key, Mapping[str, Any]]) -> None:
    listed = [{"key": key._asdict(), **record} for key, record in records.items()]
    partial = plan.output.with_suffix(".partial")
    partial.write_text(json.dumps({"settings": settings_of(plan), "records": listed}, indent=1))
    partial.replace(plan.output)


def brief(found: Mapping[str, Any]) -> dict[str, Any]:
    """A record on one line: medians in place of lists, without texts."""
    short = {name: value for name, value in found.items() if isinstance(value, int | float)}
    steps = found.get("milliseconds", {})
    return short | {name: statistics.median(times) for name, times in steps.items()}


# --- The table ------------------------------------------------------------------------------------


def as_table(records: Mapping[Key, Mapping[str, Any]]) -> str:
    lines = [
        f"| what | settings | {THEIRS} | {OURS} | share | runs |",
        "|---|---|---|---|---|---|",
        *(line for part in PARTS for line in lines_of(part, records)),
    ]
    return "\n".join(lines) + "\n"


def lines_of(part: str, records: Mapping[Key, Mapping[str, Any]]) -> list[str]:
    if part == "size":
        return size_lines(records)
    mine = {key: record for key, record in records.items() if key.part == part}
    rows = list(dict.fromkeys(key.row for key in mine))
    lines = []
    for row in rows:
        for title, theirs, ours in FIGURES[part]:
            values = [
                [pick(record) for key, record in mine.items() if (key.row, key.side) == (row, side)]
                for side, pick in ((THEIRS, theirs), (OURS, ours))
            ]
            if all(values):
                lines.append(line(title, row, *values))
        if part == "inspect":
            lines += limit_lines(row, mine)
    return lines


def line(title: str, row: str, theirs: Sequence[float], ours: Sequence[float]) -> str:
    left, right = statistics.median(theirs), statistics.median(ours)
    runs = f"{len(theirs)}, {len(ours)}"
    return f"| {title} | {row} | {spread(theirs)} | {spread(ours)} | {right / left:.3f} | {runs} |"


def spread(values: Sequence[float]) -> str:
    """The median, and from where to where where there are several."""
    middle = f"{statistics.median(values):.4g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.4g} to {max(values):.4g})"


def limit_lines(row: str, mine: Mapping[Key, Mapping[str, Any]]) -> list[str]:
    """How often the bare backbone's time each way takes, in this project's own engine."""
    found = [record for key, record in mine.items() if (key.row, key.side) == (row, OURS)]
    lines = []
    for step in ("prepared", "memory", "file", "decode", "prepare"):
        times = [of(step)(record) / of("backbone")(record) for record in found]
        if times:
            lines.append(
                f"| {step}, in bare backbones | {row} | | {spread(times)} | | {len(times)} |"
            )
    return lines


def size_lines(records: Mapping[Key, Mapping[str, Any]]) -> list[str]:
    sizes = {name: footprint for key, record in records.items() if key.part == "size"
             for name, footprint in record.items() if isinstance(footprint, dict)}  # fmt: skip
    if "anomalib" not in sizes or OURS not in sizes:
        return []
    theirs, ours = sizes["anomalib"], sizes[OURS]
    net = [[side["megabytes"] - side["gpu_megabytes"]] for side in (theirs, ours)]
    return [
        line("packages, to fit and inspect", "", [theirs["packages"]], [ours["packages"]]),
        line("MB installed", "", [theirs["megabytes"]], [ours["megabytes"]]),
        line("MB without the GPU's packages", "", *net),
    ]


Pick = Callable[[Mapping[str, Any]], float]


def of(step: str) -> Pick:
    """The median milliseconds of a step in one process."""
    return lambda record: statistics.median(record["milliseconds"][step])


def value(name: str) -> Pick:
    return lambda record: record[name]


def both(title: str, pick: Pick) -> tuple[str, Pick, Pick]:
    return title, pick, pick


# Title, what of anomalib's record, what of this project's.
FIGURES: Mapping[str, Sequence[tuple[str, Pick, Pick]]] = {
    "fit": [
        both("fit, s", value("seconds")),
        both("fit, peak MB", value("peak_megabytes")),
    ],
    "inspect": [
        ("from file, ms (Engine.predict)", of("engine"), of("file")),
        both("from file, ms", of("file")),
        both("of it decoding, ms", of("decode")),
        both("from memory, ms", of("memory")),
        both("from a prepared tensor, ms", of("prepared")),
        both("bare backbone, ms", of("backbone")),
        both("inspect, peak MB", value("peak_megabytes")),
    ],
    "first": [
        both("first photo in a new process, s", value("seconds")),
        both("first photo, peak MB", value("peak_megabytes")),
    ],
    "import": [
        both("import in a new process, s", value("seconds")),
        both("import less an empty Python, s", lambda r: r["seconds"] - r["empty_seconds"]),
    ],
}


if __name__ == "__main__":
    main()
