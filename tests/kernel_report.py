"""What compiled kernels take of a GPU, collected over a run of the tests and told at its end."""

records: dict[str, dict[int, list[str]]] = {}
"""Kernel variant -> capability -> its entries, plain enough to travel between the processes of a run."""


def record_resources(name: str, capability: int, registers: int, spills: int, shared: int) -> None:
    """Adds a kernel variant to the report; equal figures under one name and capability are one entry."""
    _add(name, capability, f"{registers}/{spills}/{shared}")


def add_records(others: dict[str, dict[int, list[str]]]) -> None:
    """Adds what another process has recorded."""
    for name, columns in others.items():
        for capability, entries in columns.items():
            for entry in entries:
                _add(name, capability, entry)


def report_lines() -> list[str]:
    """One line for each recorded variant, a column for each capability; empty where nothing was recorded."""
    if not records:
        return []
    capabilities = sorted({capability for columns in records.values() for capability in columns})
    rows = [["kernel", *(f"sm_{capability}" for capability in capabilities)]]
    for name, columns in sorted(records.items()):
        rows.append([name, *(" ".join(columns.get(capability, ["-"])) for capability in capabilities)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        " ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _add(name: str, capability: int, entry: str) -> None:
    entries = records.setdefault(name, {}).setdefault(capability, [])
    if entry not in entries:
        entries.append(entry)
