"""AP of COCO keypoint results, by pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastpose.errors import DataError
from fastpose.keypoints import COCO_17
from fastpose.metrics.coco_results import coco_results

__all__ = ["STATISTICS", "coco_results", "evaluate_coco"]

logger = logging.getLogger(__name__)

STATISTICS = ("AP", "Ap .5", "AP .75", "AP (M)", "AP (L)", "AR", "AR .5", "AR .75", "AR (M)", "AR (L)")
"""The official names, in the order of COCOeval.stats."""


def evaluate_coco(
    ground_truth: str | Path | dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    sigmas: Sequence[float] | np.ndarray | None = None,
    image_ids: Iterable[Any] | None = None,
) -> dict[str, float]:
    """The ten official statistics of keypoint AP, computed by pycocotools without its printing.

    Rows that are not finite are left out (a warning says how many). Where the ground truth has no person of a
    size, that statistic is -1, as in pycocotools. Annotations may lack `area` (the box's is taken),
    `num_keypoints` and `iscrowd`; annotations without keypoints are ignored.

    Args:
        ground_truth: COCO json file, or its content (not changed).
        results: rows as from `coco_results` (not changed); may be empty.
        sigmas: (K,), COCO's when K is 17 and none are given.
        image_ids: evaluate these images only; all of the ground truth by default.

    Returns:
        `STATISTICS` -> value in 0..1 or -1.

    Raises:
        DataError: the file is missing or broken, there is no person to compare with, a result names an image
            or category that the ground truth has not, or the number of keypoints differs.
    """
    truth = _load(ground_truth)
    chosen = _choose_images(truth, image_ids)
    sigmas = _sigmas(truth, sigmas)
    annotations = _truth_annotations(truth, chosen, len(sigmas))
    rows = _usable_results(truth, results, len(sigmas))
    values = _run_pycocotools({**truth, "annotations": annotations}, rows, sigmas, chosen)
    return {name: float(value) for name, value in zip(STATISTICS, values, strict=True)}


def _run_pycocotools(
    truth: dict[str, Any], rows: list[dict[str, Any]], sigmas: np.ndarray, chosen: list[Any]
) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        expected = COCO()
        expected.dataset = truth
        expected.createIndex()
        found = expected.loadRes(rows) if rows else COCO()
        evaluation = COCOeval(expected, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = sigmas
        evaluation.params.imgIds = chosen
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


def _load(ground_truth: str | Path | dict[str, Any]) -> dict[str, Any]:
    content: Any = ground_truth
    name = "ground truth"
    if isinstance(ground_truth, str | Path):
        name = str(ground_truth)
        try:
            content = json.loads(Path(ground_truth).read_bytes())
        except OSError as error:
            raise DataError(f"{name}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise DataError(f"{name}: not a json file ({error}); give a COCO keypoint json") from error
    keys = {"images": {"id"}, "categories": {"id"}, "annotations": {"image_id", "category_id"}}
    for part, needed in keys.items():
        rows = content.get(part) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(_has(row, needed) for row in rows):
            wanted = f"a list {part!r} whose rows have {', '.join(sorted(needed))}"
            raise DataError(f"{name}: expected {wanted}; give a COCO keypoint json")
    return content


def _has(row: Any, keys: set[str]) -> bool:
    return isinstance(row, dict) and keys <= row.keys()


def _choose_images(truth: dict[str, Any], image_ids: Iterable[Any] | None) -> list[Any]:
    known = {image["id"] for image in truth["images"]}
    chosen = known if image_ids is None else set(image_ids)
    _expect_known("image_ids", chosen, known)
    return sorted(chosen)


def _expect_known(what: str, given: set[Any], known: set[Any]) -> None:
    unknown = sorted(given - known, key=str)
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise DataError(
            f"{what}: {', '.join(map(str, unknown[:5]))}{more} not in the ground truth; "
            "results and ground truth must be of the same split"
        )


def _sigmas(truth: dict[str, Any], sigmas: Any) -> np.ndarray:
    if sigmas is not None:
        return np.asarray(sigmas, dtype=np.float64)
    count = max((len(row.get("keypoints", ())) // 3 for row in truth["annotations"]), default=17)
    if count not in (0, COCO_17.num_joints):
        raise DataError(f"sigmas: needed for ground truth of {count} keypoints; only COCO's 17 are built in")
    return np.asarray(COCO_17.sigmas)


def _truth_annotations(truth: dict[str, Any], chosen: list[Any], joints: int) -> list[dict[str, Any]]:
    """Copies of the annotations with keypoints, numbered from 1: COCOeval takes id 0 for "unmatched"."""
    wanted = set(chosen)
    rows = [row for row in truth["annotations"] if row.get("keypoints") and row["image_id"] in wanted]
    if not rows:
        raise DataError(f"ground truth: no person with keypoints in {len(wanted)} images; nothing to compare")
    copies = []
    for number, row in enumerate(rows, start=1):
        if len(row["keypoints"]) != 3 * joints or len(row.get("bbox", ())) != 4:
            raise DataError(
                f"ground truth annotation {row.get('id')}: expected {3 * joints} numbers in keypoints and "
                f"4 in bbox, got {len(row['keypoints'])} and {len(row.get('bbox', ()))}"
            )
        defaults = {
            "iscrowd": 0,
            "area": row["bbox"][2] * row["bbox"][3],
            "num_keypoints": sum(v > 0 for v in row["keypoints"][2::3]),
        }
        copies.append({**defaults, **row, "id": number})
    return copies


def _usable_results(
    truth: dict[str, Any], results: Sequence[dict[str, Any]], joints: int
) -> list[dict[str, Any]]:
    needed = {"image_id", "category_id", "keypoints", "score"}
    for number, row in enumerate(results):
        if not _has(row, needed) or len(row["keypoints"]) != 3 * joints:
            raise DataError(
                f"results row {number}: expected {', '.join(sorted(needed))}, "
                f"with 3 numbers for each of {joints} keypoints"
            )
    _expect_known("image_id", {row["image_id"] for row in results}, {row["id"] for row in truth["images"]})
    known = {row["id"] for row in truth["categories"]}
    _expect_known("category_id", {row["category_id"] for row in results}, known)
    usable = [dict(row) for row in results if np.isfinite([*row["keypoints"], row["score"]]).all()]
    dropped = len(results) - len(usable)
    if dropped:
        logger.warning("left out %d of %d results that are not finite", dropped, len(results))
    return usable
