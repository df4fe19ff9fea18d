"""Mean intersection over union, pixel accuracy and their table by class, from one confusion matrix."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastpose.classes import ClassSet
from fastpose.errors import DataError


class ClassScore(NamedTuple):
    """How one class was found; nan where there is nothing to measure."""

    name: str
    iou: float
    accuracy: float  # share of its labelled pixels that were found
    labelled: int  # pixels of the class, of those that count
    predicted: int  # pixels predicted as the class, of those that count


def confusion_matrix(
    predicted: Tensor | np.ndarray, labels: Tensor | np.ndarray, num_classes: int
) -> np.ndarray:
    """(C, C) int64: [i, j] counts the pixels labelled i and predicted j. Those of several batches add up.

    Only pixels labelled 0 to C - 1 count, so neither IGNORE nor a label beyond the set does. The work is
    done where `predicted` is.

    Args:
        predicted: (...) integers, classes from 0 to C - 1.
        labels: the same shape, integers.

    Raises:
        DataError: shapes differ, numbers are no integers, or a prediction is none of the classes.
    """
    predicted, labels = torch.as_tensor(predicted), torch.as_tensor(labels)
    if predicted.shape != labels.shape:
        raise DataError(f"labels: expected shape {tuple(predicted.shape)}, got {tuple(labels.shape)}")
    for name, tensor in (("predicted", predicted), ("labels", labels)):
        if tensor.is_floating_point() or tensor.is_complex():
            raise DataError(f"{name}: expected integers, got {tensor.dtype}; take the argmax of scores first")
    found, truth = predicted.flatten(), labels.flatten().to(predicted.device)
    if found.numel() == 0:
        return np.zeros((num_classes, num_classes), np.int64)
    low, high = (int(bound) for bound in found.aminmax())
    if low < 0 or high >= num_classes:
        wrong = low if low < 0 else high
        raise DataError(f"predicted: {wrong} is none of the classes 0 to {num_classes - 1}")
    counts = (truth >= 0) & (truth < num_classes)
    # One more bin takes the pixels that do not count: cheaper than leaving them out.
    pairs = torch.where(counts, truth.to(torch.int64) * num_classes + found, num_classes**2)
    bins = torch.bincount(pairs, minlength=num_classes**2 + 1)[:-1]
    return bins.reshape(num_classes, num_classes).cpu().numpy()


def class_scores(confusion: np.ndarray, classes: ClassSet) -> list[ClassScore]:
    """The table by class of a `confusion_matrix`: IoU is the intersection of the labelled and the predicted
    pixels over their union, nan for a class that is neither labelled nor predicted anywhere.

    Raises DataError for a matrix of another number of classes.
    """
    if confusion.shape != (classes.num_classes,) * 2:
        expected = f"{classes.num_classes}x{classes.num_classes} for {classes.name}"
        raise DataError(f"confusion: expected {expected}, got shape {confusion.shape}")
    hits, labelled, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    columns = zip(classes.names, hits.tolist(), labelled.tolist(), predicted.tolist(), strict=True)
    return [
        ClassScore(name, _share(hit, is_so + said - hit), _share(hit, is_so), is_so, said)
        for name, hit, is_so, said in columns
    ]


def segmentation_scores(
    confusion: np.ndarray, classes: ClassSet, *, absent: Literal["skip", "zero"] = "skip"
) -> dict[str, float]:
    """`mIoU`, `pixel accuracy`, `mean accuracy`, and `IoU NAME` of every class, from 0 to 1.

    With `absent="skip"` a class that is neither labelled nor predicted is nan and takes no part in the mean
    IoU, and one that is not labelled takes no part in the mean accuracy. With "zero" both count as 0, as in
    the official code, whose denominators are at least 1 (HRNet-Semantic-Segmentation lib/core/function.py);
    the two agree where every class is labelled, as in the published test sets.
    Raises DataError for a matrix of another number of classes and where no pixel counts.
    """
    rows = class_scores(confusion, classes)
    total = int(confusion.sum())
    if total == 0:
        raise DataError(
            "no labelled pixel was evaluated: no picture could be read, or their labels are all to be ignored"
        )
    iou, accuracy = np.array([row.iou for row in rows]), np.array([row.accuracy for row in rows])
    if absent == "zero":
        iou, accuracy = np.nan_to_num(iou), np.nan_to_num(accuracy)
    elif absent != "skip":
        raise DataError(f"absent must be 'skip' or 'zero', got {absent!r}")
    return {
        "mIoU": float(np.nanmean(iou)),
        "pixel accuracy": float(np.diag(confusion).sum() / total),
        "mean accuracy": float(np.nanmean(accuracy)),
        **{f"IoU {row.name}": float(value) for row, value in zip(rows, iou, strict=True)},
    }


def class_table(confusion: np.ndarray, classes: ClassSet) -> str:
    """`class_scores` as lines of text: class, IoU and accuracy in percent, share of the labelled pixels."""
    rows = class_scores(confusion, classes)
    total = max(1, sum(row.labelled for row in rows))
    wide = max(len("class"), *(len(row.name) for row in rows))
    lines = [f"{'class'.ljust(wide)}    IoU  accuracy  pixels"]
    for row in rows:
        iou, accuracy = (_percent(value) for value in (row.iou, row.accuracy))
        share = _percent(row.labelled / total)
        lines.append(f"{row.name.ljust(wide)}  {iou:>5}  {accuracy:>8}  {share:>6}")
    return "\n".join(lines)


def segmentation_results(confusion: np.ndarray, classes: ClassSet) -> list[dict[str, Any]]:
    """One row a class, as JSON takes it: `label`, `name`, `IoU` and `accuracy` (None where there is nothing
    to measure), and `predicted_as`, the pixels of the class by the label that they were given."""
    return [
        {
            "label": label,
            "name": row.name,
            "IoU": None if np.isnan(row.iou) else row.iou,
            "accuracy": None if np.isnan(row.accuracy) else row.accuracy,
            "predicted_as": confusion[label].tolist(),
        }
        for label, row in enumerate(class_scores(confusion, classes))
    ]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _percent(share: float) -> str:
    return "n/a" if np.isnan(share) else f"{100 * share:.1f}"
