"""Results files made up for tests, consistent in themselves."""

from bench.rows import Row
from bench.schema import SCHEMA
from bench.stats import ratio, spread, verdict

CPU = {
    "gpu": None, "driver": None, "cuda": None, "cudnn": None, "torch": "2.13.0+cpu", "triton": "3.7.1",
    "numpy": "2.4.6", "python": "3.11.7", "cpu": "Test CPU (family 1, model 2)", "cores": 2, "knobs": {},
}  # fmt: skip
GPU = CPU | {"gpu": "Test GPU", "driver": "580.1", "cuda": "13.0", "cudnn": 91000, "torch": "2.11.0"}
CODE = {"commit": "0123456789abcdef", "dirty": False, "source": "abcdef012345"}
CEILINGS = {
    "copy_bytes_per_s": 2e10,
    "flops_per_s": 5e10,
    "read_bytes_per_s": 2e10,
    "write_bytes_per_s": 2e10,
}


def made_row(
    identity="fuse/cpu/small", own=(1e-3, 1.01e-3, 0.99e-3, 1e-3, 1.02e-3), date="2026-01-01", **rivals
):
    """A measured record; rivals: name -> how many times the candidate's seconds it takes."""
    noise = ratio(own, own)
    columns = {"fastpose": list(own)} | {name: [factor * s for s in own] for name, factor in rivals.items()}
    pairs = {name: ratio(columns[name], own) for name in rivals}
    return {
        **made_header(identity, date),
        "status": "measured", "axes": {}, "seed": 1, "threads": 1, "rounds": len(own), "rejected": 0,
        "shared": 0,
        "cache": {"mode": "cold", "sets": 4, "bytes": 1e8},
        "sides": [{"name": n, "method": "wall", **spread(c), "rounds_s": c} for n, c in columns.items()],
        "noise": {"ratio": noise.value, "low": noise.low, "high": noise.high},
        "pairs": [
            {"rival": n, "ratio": p.value, "low": p.low, "high": p.high, "verdict": verdict(p, noise)}
            for n, p in pairs.items()
        ],
        "limit": {"bytes": 1e7, "flops": 1e6, "traffic": "copy", "ceilings": dict(CEILINGS), "floor_s": 5e-4,
                  "fraction": 0.5},
        "items": 64, "unit": "images", "absent": {}, "figures": {}, "before": None, "after": None,
    }  # fmt: skip


def made_header(identity, date="2026-01-01"):
    device = identity.split("/")[1]
    return {"id": identity, "group": "micro", "device": device, "what": f"what {identity} does", "date": date,
            "code": dict(CODE)}  # fmt: skip


def made_results(*rows, machine=CPU):
    return {"schema": SCHEMA, "machine": machine, "rows": list(rows)}


def made_declarations(*identities, **options):
    """Declared rows of these ids that nothing can build."""
    return {
        name: Row(name, "micro", name.split("/")[1], f"what {name} does", build=lambda: None, **options)
        for name in identities
    }
