"""SIGKILL at any moment of saving: what is loaded next is whole, and at most one interval old."""

import random
import signal
import time
from itertools import count

import pytest
from processes import context
from tiny_state import FULL, fill, numbers, trained

from fastpose.files import remove_leftovers
from fastpose.train.saving.async_save import StateSaver
from fastpose.train.saving.checkpoint import Progress, damaged_file, list_states, load_state
from fastpose.train.saving.retention import Retention

WIDTH = 20_000  # 730 kB a state


def save_on_and_on(folder, background, connection):
    """Goes on from the state in `folder`, and tells each epoch once its save has returned."""
    model, optimizer = trained(width=WIDTH)
    remove_leftovers(folder)
    progress = load_state(folder, model, optimizer, None) or Progress()
    with StateSaver(folder, Retention(2), background=background) as saver:
        for epoch in count(progress.epoch + 1):
            fill(model, optimizer, epoch)
            saver.save(model, optimizer, None, Progress(epoch=epoch))
            connection.send(epoch)


def kill_one(folder, background, delay):
    """Returns the last epoch that was told, and whether a save was under way."""
    mine, theirs = context().Pipe()
    process = context().Process(target=save_on_and_on, args=(folder, background, theirs), daemon=True)
    process.start()
    theirs.close()
    told = [mine.recv(), mine.recv()]
    time.sleep(delay)
    process.kill()
    try:
        while True:
            told.append(mine.recv())
    except EOFError:
        process.join(20)
    assert process.exitcode == -signal.SIGKILL
    return told[-1], any(folder.glob(".*.new.tmp"))


@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_kill_while_saving(tmp_path, background):
    kills = 200 if FULL else 6
    moment = random.Random(kills)
    inside, lost = 0, []
    model, optimizer = trained(width=WIDTH)
    for _ in range(kills):
        told, under_way = kill_one(tmp_path, background, moment.uniform(0.0, 0.05))
        inside += under_way
        progress = load_state(tmp_path, model, optimizer, None)
        lost.append(told - progress.epoch)
        found = {value for tensor in numbers(model, optimizer) for value in tensor.unique().tolist()}
        assert found == {float(progress.epoch)}, "one moment's values, all of them"
        whole = [path for path in list_states(tmp_path) if damaged_file(path) is None]
        assert len(whole) == len(list_states(tmp_path)), "also the older states"
    assert max(lost) <= background, (
        "a save that has returned is on the disk; in the background, the one before"
    )
    assert inside >= kills // 50 - 1, "the kills hit saves"
    print(f"{kills} kills, {inside} within a save, at most {max(lost)} saves lost")
