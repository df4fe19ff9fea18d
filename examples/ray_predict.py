"""Keypoints of millions of pictures on a Ray cluster; stop it whenever you like and start it again.

python examples/ray_predict.py best.safetensors shards/ out/ --workers 16 --gpus 1
"""

import argparse
import os

import ray

from fastpose import Predictor
from fastpose.errors import FastposeError
from fastpose.infer.shard_run import ShardRun, run_settings
from fastpose.infer.shards import find_shards


class PredictShards:
    """What an actor of Ray Data holds: a network. Batches of shards' names in, what became of them out."""

    def __init__(self, run, model, network):
        self.run, self.predictor = run, Predictor(model, **network)
        self.shards = {shard.name: shard for shard in run.shards}

    def __call__(self, batch):
        records = [self.run.attempt(self.shards[name], self.predictor) for name in batch["shard"]]
        return {
            "shard": batch["shard"],
            "people": [record.get("people", 0) for record in records],
            "errors": [len(record.get("errors", ())) for record in records],
            "problem": [record.get("problem", "") for record in records],
        }


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a .safetensors, a run folder or an exported network")
    parser.add_argument("source", help="a folder of pictures, of tar or of Parquet files, seen by every node")
    parser.add_argument("out", help="folder of the results, one file a shard, seen by every node")
    parser.add_argument("--format", default="parquet", help="parquet or coco")
    parser.add_argument("--pictures", type=int, default=1000, help="in a shard, where the source is pictures")
    parser.add_argument("--detector", help="as of fastpose predict, for pictures without boxes of their own")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--amp", default="auto")
    parser.add_argument("--workers", type=int, default=2, help="networks at work")
    parser.add_argument("--gpus", type=float, default=0, help="for each of them")
    options = parser.parse_args(arguments)

    model = os.path.abspath(options.model) if os.path.exists(options.model) else options.model
    network = {"detector": options.detector, "batch_size": options.batch_size, "amp": options.amp}
    run = ShardRun(
        find_shards(options.source, pictures=options.pictures),
        options.out,
        run_settings(model, **network),
        format=options.format,
    )
    left = [{"shard": shard.name} for shard in run.shards if not run.is_done(shard)]
    done, problems = [], []
    if left:
        found = ray.data.from_items(left, override_num_blocks=len(left)).map_batches(
            PredictShards,
            fn_constructor_args=(run, model, network),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=options.workers),
            num_gpus=options.gpus,
        )
        for row in found.iter_rows():
            print(f"{row['shard']}: {row['people']} people, {row['errors']} errors", flush=True)
            (problems if row["problem"] else done).append(row["shard"])
    run.summarize()
    if problems:
        raise SystemExit(f"error: shards that cannot be read: {', '.join(problems)}; mend them, start again")
    return done


if __name__ == "__main__":
    try:
        main()
    except FastposeError as error:
        raise SystemExit(f"error: {error}") from error
