"""hrnet_w48() in an ordinary PyTorch loop: your own data, loss and schedule, and a graphed step.

python examples/train_plain_loop.py --model hrnet_w18_small --size 64 64 --steps 4
"""

import argparse

import torch

import fastpose
from fastpose.models import create_model
from fastpose.ops import heatmap_loss


def batches(count, batch_size, joints, size):
    """Stands for your DataLoader: normalised images, joints in input pixels, weights."""
    width, height = size
    draw = torch.Generator().manual_seed(0)
    for _ in range(count):
        images = torch.randn(batch_size, 3, height, width, generator=draw)
        places = torch.rand(batch_size, joints, 2, generator=draw) * torch.tensor([width, height])
        yield images, places, torch.ones(batch_size, joints)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hrnet_w48")
    parser.add_argument("--size", type=int, nargs=2, default=[192, 256], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--amp", default="none", choices=["none", "bf16", "fp16", "auto"])
    options = parser.parse_args(arguments)
    size = tuple(options.size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    torch.manual_seed(0)
    model = create_model(options.model, 17, input_size=size)
    model.reset_parameters("kaiming")
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    # Without cycle_momentum: betas that change every step cannot be held in a graph, a rate can.
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=options.steps, cycle_momentum=False
    )

    def loss_fn(heatmaps, joints, weight):
        return heatmap_loss(heatmaps, joints, weight, input_size=size)

    step = fastpose.graph_step(model, loss_fn, optimizer, amp=options.amp, clip_grad=1.0)
    losses = []
    for images, joints, weight in batches(options.steps, options.batch_size, 17, size):
        if device.type == "cuda":
            images, joints, weight = images.pin_memory(), joints.pin_memory(), weight.pin_memory()
        losses.append(step(images, joints, weight))  # still on the device: nothing waits for it
        schedule.step()
    losses = torch.stack(losses).tolist()
    print(f"loss {losses[0]:.6f} -> {losses[-1]:.6f}, {step.skipped} steps skipped")
    print(f"no CUDA graph: {step.reason}" if step.reason else "on a CUDA graph after the first steps")
    return losses


if __name__ == "__main__":
    main()
