"""A result as dicts, JSON and a table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpose.errors import ConfigError
from fastpose.infer.results import person_scores

if TYPE_CHECKING:
    import pandas

    from fastpose.infer.result import Result

DIGITS = 4


def summary(result: Result) -> list[dict[str, Any]]:
    """See `Result.summary`."""
    scores = person_scores(result.keypoints.conf, result.boxes.conf)
    rows = []
    for person in range(len(result)):
        row: dict[str, Any] = {
            "box": result.boxes.xywh[person].round(DIGITS).tolist(),
            "box_score": float(result.boxes.conf[person]),
            "score": float(scores[person]),
        }
        if result.boxes.id is not None:
            row["id"] = int(result.boxes.id[person])
        row["keypoints"] = dict(zip(result.names, _joints(result, person), strict=True))
        rows.append(row)
    return rows


def _joints(result: Result, person: int) -> list[dict[str, float] | None]:
    points = result.keypoints
    triples = np.concatenate([points.xy[person], points.conf[person, :, None]], axis=1, dtype=np.float64)
    return [
        dict(zip(("x", "y", "score"), triple.round(DIGITS).tolist(), strict=True)) if there else None
        for triple, there in zip(triples, points.valid[person], strict=True)
    ]


def to_json(result: Result) -> str:
    """See `Result.to_json`."""
    record: dict[str, Any] = {
        "name": result.name,
        "width": result.orig_shape[1],
        "height": result.orig_shape[0],
        "found_by": result.found_by,
        "people": summary(result),
        "skipped": result.skipped,
        "error": None if result.error is None else str(result.error),
    }
    if result.frame is not None:
        record |= {"frame": result.frame, "time": result.time}
    return json.dumps(record, allow_nan=False)


def to_df(result: Result) -> pandas.DataFrame:
    """Columns: name, person, id, joint, x, y (NaN where absent), score, box_x, box_y, box_width, box_height,
    box_score."""
    try:
        import pandas
    except ImportError as error:
        raise ConfigError("to_df: needs pandas: pip install pandas, or use summary() or to_json()") from error
    people, joints = result.keypoints.conf.shape
    table = {
        "name": [result.name] * (people * joints),
        "person": np.repeat(np.arange(people), joints),
        "id": np.repeat(np.full(people, -1) if result.boxes.id is None else result.boxes.id, joints),
        "joint": list(result.names) * people,
        "x": result.keypoints.xy[..., 0].ravel(),
        "y": result.keypoints.xy[..., 1].ravel(),
        "score": result.keypoints.conf.ravel(),
        **{
            f"box_{side}": np.repeat(result.boxes.xywh[:, column], joints)
            for column, side in enumerate(("x", "y", "width", "height"))
        },
        "box_score": np.repeat(result.boxes.conf, joints),
    }
    return pandas.DataFrame(table)
