"""A run over shards that may be killed at any moment and started again: no shard is lost or done twice."""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastpose.errors import DataError, OutputError
from fastpose.files import make_folder, sha256, write_text
from fastpose.infer.network_in import StrPath
from fastpose.infer.predictor import Predictor
from fastpose.infer.shard_output import FORMATS, check_format
from fastpose.infer.shards import Shard
from fastpose.models.checkpoint_formats import weights_file

logger = logging.getLogger(__name__)

MANIFEST, SUMMARY, DONE = "manifest.json", "summary.json", "done"
Fields = dict[str, Any]


class ShardRun:
    """Predictions of shards, one file for each in the folder `out`.

    `out` gets manifest.json, what the run is about; NAME.parquet or NAME.coco.json for each shard, see
    `fastpose.infer.shard_output`; done/NAME.json with its counts and errors; and summary.json once all are
    done. Every file is written under another name and renamed, and a shard counts as done once its file in
    done/ is there, which is written last: a shard that was being worked on when the process was killed is
    done again as a whole, and others are not touched. Any number of processes may work on one folder, on
    shards of their own (`share`), and a restart may have another number of them.

    Args:
        shards: of `find_shards`.
        out: the folder of the results, made where it is not there.
        settings: what the results depend on, such as `run_settings` says, ready for JSON.
        format: 'parquet', or 'coco' for a json of COCO results.

    Raises OutputError where the folder belongs to a run over other shards or with other settings, and
    ConfigError for another format or without the package that it needs.
    """

    def __init__(
        self, shards: Sequence[Shard], out: StrPath, settings: Mapping[str, Any], *, format: str = "parquet"
    ) -> None:
        check_format(format)
        self.shards = list(shards)
        self.out = Path(out).absolute()  # other processes may have another working folder
        self.suffix, self._write = FORMATS[format]
        make_folder(self.out / DONE)
        self._check_manifest({"format": format, "settings": dict(settings)})

    def share(self, rank: int = 0, world: int = 1) -> list[Shard]:
        """The shards of process `rank` of `world`, whether they are done or not: of the whole list, since
        what is left of it changes while others work."""
        if not 0 <= rank < world:
            raise DataError(f"rank: expected 0 to {world - 1}, got {rank}")
        return self.shards[rank::world]

    def is_done(self, shard: Shard) -> bool:
        """Whether its results are there, as large as they were written."""
        record = _read(self._record(shard))
        try:
            return record is not None and self._results(shard).stat().st_size == record.get("bytes")
        except OSError:
            return False

    def predict(self, shard: Shard, predictor: Predictor) -> Fields:
        """Predicts a shard, done before or not, and returns its record: `shard`, `pictures`, `people`,
        `errors` [{key, error}] of pictures that could not be read, `bytes` of the results.

        DataError where the shard itself cannot be read: nothing is written then. OutputError where the
        results cannot be written.
        """
        path = self._results(shard)
        self._sweep(path)  # after a process that was killed
        self._sweep(self._record(shard))
        try:
            counts = self._write(path, predictor.run_items(shard.items(upright=predictor.upright)))
        except DataError:
            self._sweep(path)
            raise
        record = {"shard": shard.name, **counts, "bytes": path.stat().st_size}
        write_text(self._record(shard), json.dumps(record, indent=1))
        return record

    def attempt(self, shard: Shard, predictor: Predictor) -> Fields:
        """`predict`; the record of a shard that cannot be read has `shard` and `problem`, the reason, which
        is logged too."""
        try:
            return self.predict(shard, predictor)
        except DataError as error:
            logger.error("%s: left out: %s", shard.name, error)
            return {"shard": shard.name, "problem": str(error)}

    def run(self, predictor: Predictor, rank: int = 0, world: int = 1) -> Iterator[Fields]:
        """Predicts what is left of a process's share, and yields each record when the shard is done.

        A shard that cannot be read does not stop the others: it is named in the log, and in the DataError at
        the end. The process that finds all shards done writes summary.json.
        """
        broken: list[str] = []
        for shard in self.share(rank, world):
            if self.is_done(shard):
                continue
            record = self.attempt(shard, predictor)
            if "problem" in record:
                broken.append(f"{shard.name} ({record['problem']})")
            else:
                yield record
        self.summarize()
        if broken:
            reasons = "; ".join(broken)
            raise DataError(
                f"{len(broken)} shards cannot be read: {reasons}; start again once they are mended"
            )

    def summarize(self) -> Fields | None:
        """Writes summary.json with the sums over all shards and their files, and returns it; None, and
        nothing written, while one is missing."""
        if not all(map(self.is_done, self.shards)):
            return None
        records = [_read(self._record(shard)) or {} for shard in self.shards]
        summary: Fields = {
            "pictures": sum(record["pictures"] for record in records),
            "people": sum(record["people"] for record in records),
            "errors": sum(len(record["errors"]) for record in records),
            "files": [self._results(shard).name for shard in self.shards],
        }
        write_text(self.out / SUMMARY, json.dumps(summary, indent=1))
        return summary

    def _sweep(self, path: Path) -> None:
        """Deletes what was being written under other names for this path."""
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            left.unlink(missing_ok=True)

    def _results(self, shard: Shard) -> Path:
        return self.out / f"{shard.name}{self.suffix}"

    def _record(self, shard: Shard) -> Path:
        return self.out / DONE / f"{shard.name}.json"

    def _check_manifest(self, run: Fields) -> None:
        """Processes that start together all write the same."""
        shards = [{"name": shard.name, "digest": shard.digest} for shard in self.shards]
        wanted = json.loads(json.dumps({**run, "shards": shards}))
        path = self.out / MANIFEST
        there = _read(path)
        if there is None and path.exists():
            raise OutputError(f"{path}: is damaged; choose another folder")
        if there is None:
            write_text(path, json.dumps(wanted, indent=1))
        elif there != wanted:
            names = [name for name in wanted if there.get(name) != wanted[name]]
            raise OutputError(
                f"{self.out}: was begun with other {' and '.join(names)}; choose another folder, or start as "
                f"{path} says"
            )


UNIMPORTANT = ("device", "batch_size", "workers", "compile", "graph")
"""Options of a `Predictor` that change no result beyond rounding: a restart may have others."""


def run_settings(model: StrPath, **options: Any) -> Fields:
    """Model and options of a `Predictor` as a run's `settings`: files are told by what is in them.

    CheckpointError where a file of weights is not there.
    """
    files = {"model": model, "weights": options.pop("weights", None)}
    told: Fields = {}
    for name, value in files.items():
        named = value is None or (name == "model" and not Path(value).exists())
        told[name] = value if named else sha256(weights_file(Path(value)))
    return told | {name: value for name, value in options.items() if name not in UNIMPORTANT}


def _read(path: Path) -> Fields | None:
    """A json object, or None where there is none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
