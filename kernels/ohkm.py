"""Which joints of each sample have the largest loss; the specification is fastpose.reference.loss."""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 16  # joints compared with all at a time
NUM_WARPS = 4


@triton.jit
def _joint_losses(p_partial, o_map, mask, parts):
    b_loss = tl.zeros(o_map.shape, tl.float32)
    for i_part in range(parts):
        b_loss += tl.load(p_partial + o_map * parts + i_part, mask=mask, other=0.0)
    return b_loss


@triton.jit
def heatmap_ohkm_kernel(
    p_partial,  # [B * COUNT, parts] float32
    p_kept,  # [B * COUNT] float32
    p_loss,  # [B] float32
    parts,
    topk,
    COUNT: tl.constexpr,
    JOINTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One sample: 1 for the topk joints of largest loss, their sum; NaN is largest, ties go to low joints."""
    i_sample = tl.program_id(0).to(tl.int64)
    o_joint = tl.arange(0, JOINTS)  # [JOINTS]
    m_joint = o_joint < COUNT
    b_loss = _joint_losses(p_partial, i_sample * COUNT + o_joint, m_joint, parts)
    b_rank = tl.zeros([JOINTS], tl.int32)
    for i_block in range(tl.cdiv(COUNT, BLOCK)):
        o_other = i_block * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
        m_other = o_other < COUNT
        b_other = _joint_losses(p_partial, i_sample * COUNT + o_other, m_other, parts)[None, :]
        b_mine = b_loss[:, None]
        other_nan, mine_nan = b_other != b_other, b_mine != b_mine
        m_above = (b_other > b_mine) | (other_nan & (b_mine == b_mine))
        m_equal = (b_other == b_mine) | (other_nan & mine_nan)
        m_above = m_above | (m_equal & (o_other[None, :] < o_joint[:, None]))
        b_rank += tl.sum((m_above & m_other[None, :]).to(tl.int32), axis=1)
    m_kept = m_joint & (b_rank < topk)
    tl.store(p_kept + i_sample * COUNT + o_joint, m_kept.to(tl.float32), mask=m_joint)
    tl.store(p_loss + i_sample, tl.sum(tl.where(m_kept, b_loss, 0.0), axis=0))


def launch_heatmap_ohkm(partial: Tensor, batch: int, count: int, topk: int) -> tuple[Tensor, Tensor]:
    """Sum of the `topk` largest losses of each sample, (B,), and 1 for their joints, (B, K), else 0.

    partial: (B * K, parts) float32, the losses of the joints in parts. No tensor is looked at from the host.
    """
    loss, kept = partial.new_empty(batch), partial.new_empty((batch, count))
    if partial.numel() == 0:
        return loss, kept
    joints = triton.next_power_of_2(count)
    with torch.cuda.device_of(partial):
        heatmap_ohkm_kernel[(batch,)](
            partial,
            kept,
            loss,
            partial.shape[1],
            topk,
            COUNT=count,
            JOINTS=joints,
            BLOCK=min(BLOCK, joints),
            num_warps=NUM_WARPS,
        )
    return loss, kept
