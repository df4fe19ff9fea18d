"""Signs of life between the processes of a run, so that none waits for one that is gone."""

from __future__ import annotations

import logging
import os
import threading
import time

import torch.distributed as dist

from fastpose.errors import FastposeError

logger = logging.getLogger(__name__)

LOST_PEER = 3
"""Exit code of a process that ended because another one was gone."""

GRACE_S = 5.0
"""Left to the main thread to end by itself, with its own message."""

_LOST = ("gloo", "nccl", "connection", "socket", "timed out", "timeout")

Store = dist.TCPStore | dist.PrefixStore


class PeerWatch:
    """Ends this process, with exit code LOST_PEER, when another of the run is dead, frozen or out of reach.

    Collectives do not: of a captured CUDA graph NCCL's own watchdog sees none, and a machine that loses power
    closes no connection. Each process adds to a counter in the store and watches that of the next one, so the
    traffic grows with the number of processes and not with its square. The first that misses one tells all.
    A process that is only slow goes on counting, from a thread of its own.

    Args:
        store: a connection of its own, for a blocked one would block the counting.
        patience: seconds without a sign of life, or without an answer of the store, until the end.
    """

    def __init__(self, store: Store, rank: int, size: int, patience: float) -> None:
        self.store, self.rank, self.next, self.patience = store, rank, (rank + 1) % size, patience
        self.interval = patience / 10
        self.closed = threading.Event()
        self._count, self._seen = 0, time.monotonic()
        self._heard = time.monotonic()
        self._talker = threading.Thread(target=self._talk, name="fastpose-peers", daemon=True)
        self._judge = threading.Thread(target=self._listen, name="fastpose-peers-judge", daemon=True)

    def start(self) -> None:
        self._talker.start()
        self._judge.start()

    def stop(self, failure: str | None = None) -> None:
        """Ends the watch, and lets the others know of a `failure`."""
        if self.closed.is_set():
            return
        self.closed.set()
        if failure is None:
            return
        self._talker.join(2 * self.interval)
        if self._talker.is_alive():  # stuck in the store, whose lock it holds
            return
        try:
            self._announce(f"rank {self.rank} ended: {failure}")
        except RuntimeError as error:
            logger.debug("the store is gone: %s", error)

    def failure(self) -> str | None:
        """What another process has said about its end, if one has and the store still answers."""
        try:
            return self.store.get("failure").decode() if self.store.add("failures", 0) else None
        except RuntimeError:
            return None

    def _talk(self) -> None:
        while not self.closed.wait(self.interval):
            try:
                trouble = self._round()
            except RuntimeError as error:
                trouble = f"the process that keeps contact is gone ({_first_line(error)})"
            if trouble is not None:
                self._end(trouble)
                return
            self._heard = time.monotonic()

    def _round(self) -> str | None:
        self.store.add(f"beats/{self.rank}", 1)
        if self.store.add("failures", 0):
            return self.store.get("failure").decode()
        count, now = self.store.add(f"beats/{self.next}", 0), time.monotonic()
        if count != self._count:
            self._count, self._seen = count, now
        elif now - self._seen > self.patience:
            trouble = f"rank {self.next} has given no sign of life for {self.patience:g} s"
            self._announce(trouble)
            return trouble
        return None

    def _listen(self) -> None:
        while not self.closed.wait(self.interval):
            if time.monotonic() - self._heard > self.patience:
                self._end(f"the process that keeps contact has not answered for {self.patience:g} s")
                return

    def _announce(self, failure: str) -> None:
        if self.store.add("failures", 0) == 0:
            self.store.set("failure", failure)
        self.store.add("failures", 1)

    def _end(self, trouble: str) -> None:
        if self.closed.wait(min(GRACE_S, self.patience)):
            return
        logger.error("rank %d stops: %s; go on with --resume", self.rank, trouble)
        os._exit(LOST_PEER)  # the main thread may hang in a collective, where no exception reaches it


def lost_contact(error: BaseException) -> bool:
    """Whether this is how torch says that an exchange failed because of another process."""
    if not isinstance(error, RuntimeError) or isinstance(error, FastposeError):
        return False
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in _LOST)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
