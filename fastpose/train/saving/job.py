"""Which torchrun job a run folder belongs to, so that all starts of the job go on in it."""

from __future__ import annotations

from pathlib import Path

from fastpose.files import write_text

FILE = ".job"


def note_job(folder: Path, job: str) -> None:
    """Writes the job's name into the run folder; a run without a job leaves what is there."""
    if job and job_of(folder) != job:
        write_text(folder / FILE, job)


def job_of(folder: Path) -> str:
    """The last job that trained in `folder`; empty for none."""
    try:
        return (folder / FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def folder_of_job(folder: Path, job: str) -> Path | None:
    """The last of `folder`, `folder`-2, -3, ... that `job` trained in, or None."""
    found, candidate, number = None, folder, 2
    while candidate.exists():
        if job and job_of(candidate) == job:
            found = candidate
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return found
