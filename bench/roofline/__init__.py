"""The limit model: what a forward pass or a training step reads, writes and multiplies under a scheme.

Everything follows from the network itself, which `trace` runs without data. Convolutions stay; the
pointwise operators between them are gathered into sums (`sums`); a scheme lists the kernels (`eager`,
`compiled`, `fused`, `inference`), each with the tensors it reads and writes, and `step_time` turns them into
seconds with ceilings that somebody measured.

In tensors E of one size a BasicBlock costs, forward + backward: a 17 + 27, b 11 + 23, p 6 + 18, c 6 + 16,
x 6 + 10, d 4 + 8. The backward pass of a convolution inside a block, with its BatchNorm:

    b   reduce (g, y, z) 3, dx (g, y, z; dz) 4, dgrad (dz; g') 2, wgrad (dz, x) 2
    p   dz pass (g, z; dz) 3, dgrad (dz, z'; g') 3, wgrad (dz, z') 2
    c   dgrad (g, z, z'; g') 4, wgrad (g, z, z') 3
    x   one kernel (g, z, z'; g') 4
    and for the first convolution of a block, whose input y is a stored sum, dgrad reads the shortcut's
    gradient and y besides z'

Against the tables of PERFORMANCE.md 2 the multiply-adds agree to the digit, bytes and kernels within 5 %:

- No dgrad is counted for the first convolution, because nobody wants the gradient of the images: one kernel
  and 1.9 MB an image (256x192) less than the tables, which count three passes for all 293 convolutions.
- Where a pointwise pass can take in the BatchNorm of a shortcut, or is a block's end in all but name (row 1
  of stage 2), it does: one or two kernels of about two thousand.
- The forward bytes of p, c and x are 4 % lower for W48 (165 MB for 172): the end of a bottleneck is applied
  in the prologue of the next block, as the text says of BasicBlocks, where the tables have another 5 MB.
- The text gives a BasicBlock 23 E under p and 15 E under x. Its own figures for one convolution (8, 7 and
  4 E) and its totals in MB give 24 and 16 beside c's 22, which is what is counted here.
- The times are those of the tables within 2 % or their last digit, except for x at 88 to 98 % of them: the
  tables' x takes longer than their own bytes and FLOPs need at one maximum a kernel.

Weights are counted in times and limits, once for each pass that reads or writes them; the tables' bytes an
image are activations alone, as `Work.image_bytes` is.
"""

from bench.roofline.kernels import Kernel, Work
from bench.roofline.limits import decode_limit, fuse_limit, heatmap_limit, loss_limit, network_limit
from bench.roofline.schemes import INFERENCE, TRAINING, work
from bench.roofline.times import practical_time, step_time
from bench.roofline.trace import Graph, trace

__all__ = [
    "INFERENCE",
    "TRAINING",
    "Graph",
    "Kernel",
    "Work",
    "decode_limit",
    "fuse_limit",
    "heatmap_limit",
    "loss_limit",
    "network_limit",
    "practical_time",
    "step_time",
    "trace",
    "work",
]
