"""Source-tree alias of the top-level kernels/ folder; an installed wheel has that folder itself here.

Never import a top-level `kernels`: that name belongs to a package on PyPI.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[2] / "kernels")]
