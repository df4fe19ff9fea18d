"""Class sets: their palettes and their trip through JSON."""

import json
from dataclasses import asdict

import pytest

from fastpose.classes import BACKGROUND, CITYSCAPES_19, CLASS_SETS, IGNORE, VOC_21, ClassSet, voc_color
from fastpose.errors import ConfigError

# From the colour table printed in the VOC development kit's documentation.
VOC_COLORS = {
    "background": (0, 0, 0),
    "aeroplane": (128, 0, 0),
    "bicycle": (0, 128, 0),
    "boat": (0, 0, 128),
    "cat": (64, 0, 0),
    "person": (192, 128, 128),
    "pottedplant": (0, 64, 0),
    "tvmonitor": (0, 64, 128),
}


def test_voc_has_the_colours_of_its_development_kit():
    assert {name: VOC_21.colors[VOC_21.names.index(name)] for name in VOC_COLORS} == VOC_COLORS
    assert voc_color(IGNORE) == (224, 224, 192)
    assert len({voc_color(label) for label in range(256)}) == 256


@pytest.mark.parametrize("name", sorted(CLASS_SETS))
def test_sets_survive_json_and_tell_their_classes_apart(name):
    classes = CLASS_SETS[name]
    assert ClassSet.from_dict(json.loads(json.dumps(asdict(classes)))) == classes
    assert len(set(classes.colors)) == classes.num_classes == int("".join(filter(str.isdigit, name)))
    assert BACKGROUND not in classes.names[1:]
    assert (classes.names[0] == BACKGROUND) == (classes is not CITYSCAPES_19)


@pytest.mark.parametrize(
    ("names", "colors", "message"),
    [
        ((), (), "needs one colour"),
        (("a", "b"), ((0, 0, 0),), "needs one colour"),
        (("a", "a"), ((0, 0, 0), (1, 1, 1)), "twice"),
        (("a",), ((0, 0, 256),), "0 to 255"),
        (("a",), ((0, 0),), "0 to 255"),
    ],
    ids=["none", "lengths", "twice", "range", "channels"],
)
def test_sets_that_cannot_be_are_refused(names, colors, message):
    with pytest.raises(ConfigError, match=message):
        ClassSet("made up", names, colors)
