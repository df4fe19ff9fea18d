"""The embedded data set: rendered, articulated human figures with exact labels."""

from fastpose.data.figures.disk import write_figures
from fastpose.data.figures.parts import read_figure_parts, write_figure_parts
from fastpose.data.figures.shapes import PARTS
from fastpose.data.figures.style import FigureStyle
from fastpose.data.figures.table import FigureImages, read_figures

__all__ = [
    "PARTS",
    "FigureImages",
    "FigureStyle",
    "read_figure_parts",
    "read_figures",
    "write_figure_parts",
    "write_figures",
]
