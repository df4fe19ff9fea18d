"""The official losses in PyTorch, written from their description: the rivals of bench_loss.py.

They keep what decides the time: a loop over the joints on stored targets, for the hard keypoints another one
over the samples.
Source: hrnet lib/core/loss.py, JointsMSELoss and JointsOHKMMSELoss.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def joints_mse(output: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(B, K, H, W), the same, (B, K, 1) -> scalar."""
    batch, joints = output.shape[:2]
    predicted = output.reshape(batch, joints, -1).split(1, 1)
    wanted = target.reshape(batch, joints, -1).split(1, 1)
    loss = output.new_zeros((), dtype=target.dtype)
    for k in range(joints):
        of_joint = weight[:, k]
        loss = loss + 0.5 * F.mse_loss(
            predicted[k].squeeze(1).mul(of_joint), wanted[k].squeeze(1).mul(of_joint)
        )
    return loss / joints


def joints_ohkm(output: Tensor, target: Tensor, weight: Tensor, topk: int) -> Tensor:
    """The same for the `topk` joints of each sample whose loss is largest."""
    batch, joints = output.shape[:2]
    predicted = output.reshape(batch, joints, -1).split(1, 1)
    wanted = target.reshape(batch, joints, -1).split(1, 1)
    losses = []
    for k in range(joints):
        of_joint = weight[:, k]
        error = 0.5 * F.mse_loss(
            predicted[k].squeeze(1).mul(of_joint), wanted[k].squeeze(1).mul(of_joint), reduction="none"
        )
        losses.append(error.mean(dim=1, keepdim=True))
    return _hard_keypoints(torch.cat(losses, dim=1), topk)


def _hard_keypoints(losses: Tensor, topk: int) -> Tensor:
    total = losses.new_zeros(())
    for of_sample in losses:
        _, places = torch.topk(of_sample, k=topk, dim=0, sorted=False)
        total = total + torch.gather(of_sample, 0, places).sum() / topk
    return total / len(losses)
