"""All starts of one torchrun job go on in one run folder, and nobody else's do."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import free_port, run_ranks

from fastpose.cli import train as train_verb
from fastpose.train.parallel.distributed import World, start_world
from fastpose.train.parallel.meeting import job_of_store
from fastpose.train.parallel.place import Job, torchrun_job
from fastpose.train.saving.job import folder_of_job, job_of, note_job

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, Job("", 0)),
        ({"TORCHELASTIC_RUN_ID": "w48", "TORCHELASTIC_RESTART_COUNT": "2"}, Job("w48", 2)),
        ({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"}, Job("", 1)),
        ({"TORCHELASTIC_RUN_ID": "w48", "TORCHELASTIC_RESTART_COUNT": "?"}, Job("w48", 0)),
    ],
    ids=["alone", "named", "default-id", "not-a-number"],
)
def test_job_is_read_from_the_variables(monkeypatch, variables, expected):
    for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert torchrun_job() == expected
    world = World(CPU)
    assert (world.job, world.restarts) == expected, "a process alone may have been started by torchrun too"


def test_folder_is_found_by_its_job(tmp_path):
    folder = tmp_path / "run"
    assert folder_of_job(folder, "w48") is None
    for path, job in [(folder, "w32"), (tmp_path / "run-2", "w48"), (tmp_path / "run-3", "")]:
        path.mkdir()
        note_job(path, job)
    assert folder_of_job(folder, "w48") == tmp_path / "run-2"
    assert folder_of_job(folder, "w32") == folder
    assert folder_of_job(folder, "other") is None
    assert folder_of_job(folder, "") is None
    note_job(tmp_path / "run-3", "w48")
    assert folder_of_job(folder, "w48") == tmp_path / "run-3"
    note_job(folder, "")
    assert job_of(folder) == "w32"
    (folder / ".job").write_bytes(b"\xff")
    assert job_of(folder) == ""


class Started(Exception):
    pass


@pytest.fixture
def start(tmp_path, monkeypatch):
    """`fastpose train` without --resume as torchrun starts it: which folder it trains in."""

    def start_once(job: str, restarts: int = 0) -> str:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", job)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))
        chosen: list[Path] = []

        def trained(config, folder, world):
            chosen.append(folder)
            folder.mkdir(parents=True, exist_ok=True)
            note_job(folder, world.job)

        monkeypatch.setattr(train_verb, "train", trained)
        train_verb.run(
            argparse.Namespace(
                config="samples/figures", settings=[f"run.dir={tmp_path}", "run.name=x", "run.device=cpu"],
                named=None, resume=False, list=False, describe=False,
            )
        )  # fmt: skip
        return chosen[0].name

    return start_once


def test_a_change_of_machines_counts_as_the_same_job(start):
    assert start("w48") == "x"
    assert start("w48") == "x", "machines joined: the count of restarts stays"
    assert start("w48", 1) == "x"
    assert start("w32") == "x-2"
    assert start("w48", 1) == "x", "not the latest folder, which is another job's"
    assert start("w32") == "x-2"


def test_a_job_without_a_name_goes_by_the_restarts(start):
    assert start("none") == "x"
    assert start("none", 1) == "x"
    assert start("none") == "x-2"
    assert start("none", 1) == "x-2"


needs_processes = pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")


@needs_processes
def test_starts_that_share_a_store_are_one_job():
    stores = [dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False) for _ in range(2)]
    again = dist.TCPStore("127.0.0.1", stores[0].port, is_master=False)
    first = job_of_store(stores[0])
    assert first
    assert first == job_of_store(again) == job_of_store(stores[0])
    assert job_of_store(stores[1]) != first


def tell_job(rank: int, folder: Path) -> None:
    with start_world("cpu", patience=20.0) as world:
        (folder / f"{rank}.txt").write_text(world.job)


@needs_processes
def test_processes_of_an_unnamed_job_agree_on_a_name(tmp_path):
    run_ranks(tell_job, 2, tmp_path)
    names = {(tmp_path / f"{rank}.txt").read_text() for rank in range(2)}
    assert len(names) == 1
    assert "" not in names


SCRIPT = """
import sys, time
from pathlib import Path
from fastpose.cli.train import _own_folder
from fastpose.train.parallel.distributed import start_world
from fastpose.train.saving.job import note_job

place = Path(sys.argv[1])
with start_world("cpu", patience=20.0) as world:
    folder = Path(world.from_main(lambda: str(_own_folder(place / "x", world))))
    if world.is_main:
        folder.mkdir(exist_ok=True)
        note_job(folder, world.job)
        with (place / "starts.txt").open("a") as file:
            file.write(f"{world.size} {world.restarts} {folder.name}\\n")
    if world.size == 1:
        time.sleep(60)
"""


@needs_processes
@pytest.mark.slow
def test_a_machine_that_joins_a_real_torchrun(tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=1:2", "--nproc-per-node=1"]
    command += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=w48"]
    command += [
        "--rdzv-conf=last_call_timeout=1",
        "--max-restarts=3",
        str(tmp_path / "run.py"),
        str(tmp_path),
    ]
    # Where it shares its store with the processes torch 2.13 leaves a machine that joins waiting.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    machines = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)]
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "starts.txt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        machines.append(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
        assert [machine.wait(90) for machine in machines] == [0, 0]
    finally:
        for machine in machines:
            machine.terminate()
    starts = (tmp_path / "starts.txt").read_text().splitlines()
    assert starts == ["1 0 x", "2 0 x"], "torchrun counted no restart, and the folder is the same"
