"""Official-style training: targets drawn as heatmaps by the loader, their mean squared error as the loss.

python examples/train_heatmap_targets.py --model hrnet_w18_small --size 64 64 --steps 4
"""

import argparse

import torch
from torch.utils.data import DataLoader, Dataset

import fastpose
from fastpose.models import create_model
from fastpose.ops import gaussian_heatmaps


class Persons(Dataset):
    """Stands for a dataset like the official JointsDataset: image, heatmaps, weight of each joint."""

    def __init__(self, count, joints, size):
        self.count, self.joints, self.size = count, joints, size

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        width, height = self.size
        draw = torch.Generator().manual_seed(index)
        places = torch.rand(1, self.joints, 2, generator=draw) * torch.tensor([width, height])
        heatmaps, weight = gaussian_heatmaps(
            places, torch.ones(1, self.joints), heatmap_size=(width // 4, height // 4), input_size=self.size
        )
        return torch.randn(3, height, width, generator=draw), heatmaps[0], weight[0]


def joints_mse(prediction, target, weight):
    """JointsMSELoss with USE_TARGET_WEIGHT of the official code, all joints at once."""
    weight = weight[:, :, None, None]
    return 0.5 * ((prediction * weight - target * weight) ** 2).mean()


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hrnet_w48")
    parser.add_argument("--size", type=int, nargs=2, default=[192, 256], metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args(arguments)
    size = tuple(options.size)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    torch.manual_seed(0)
    model = create_model(options.model, 17, input_size=size)
    model.reset_parameters("kaiming")
    model = model.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    persons = Persons(options.steps * options.batch_size, 17, size)
    loader = DataLoader(persons, options.batch_size, pin_memory=device.type == "cuda")

    step = fastpose.graph_step(model, joints_mse, optimizer)
    losses = torch.stack([step(images, target, weight) for images, target, weight in loader]).tolist()
    print(f"loss {losses[0]:.6f} -> {losses[-1]:.6f}")
    return losses


if __name__ == "__main__":
    main()
