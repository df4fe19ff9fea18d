"""Keypoints of millions of pictures, a process for each GPU; stop it whenever you like and start it again.

torchrun --nproc-per-node 8 examples/torchrun_predict.py best.safetensors shards/ out/
"""

import argparse
import logging
import os

import torch

from fastpose import Predictor
from fastpose.errors import FastposeError
from fastpose.infer.shard_run import ShardRun, run_settings
from fastpose.infer.shards import find_shards


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .safetensors, a run folder or an exported network")
    parser.add_argument("source", help="a folder of pictures, of tar or of Parquet files")
    parser.add_argument("out", help="folder of the results, one file a shard")
    parser.add_argument("--format", default="parquet", help="parquet or coco")
    parser.add_argument("--pictures", type=int, default=1000, help="in a shard, where the source is pictures")
    parser.add_argument("--detector", help="as of fastpose predict, for pictures without boxes of their own")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--amp", default="auto")
    options = parser.parse_args(arguments)

    # torchrun says who we are; the processes have nothing to tell each other.
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    logging.basicConfig(level=logging.WARNING, format=f"[{rank}] %(message)s")
    network = {"detector": options.detector, "batch_size": options.batch_size, "amp": options.amp}
    run = ShardRun(
        find_shards(options.source, pictures=options.pictures),
        options.out,
        run_settings(options.model, **network),
        format=options.format,
    )
    predictor = Predictor(options.model, device=device, **network)
    done = []
    for record in run.run(predictor, rank, world):
        done.append(record["shard"])
        counts = f"{record['people']} people, {len(record['errors'])} errors"
        print(f"[{rank}] {record['shard']}: {counts}", flush=True)
    return done


if __name__ == "__main__":
    try:
        main()
    except FastposeError as error:
        raise SystemExit(f"error: {error}") from error
