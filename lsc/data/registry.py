"""The data sets by name."""

from lsc.registry import Registry

DATASETS = Registry(
    "data set",
    {
        "digits": "lsc.data.digits:DigitsOptions",
        "glyphs": "lsc.data.glyphs:GlyphsOptions",
        "fractals": "lsc.data.fractals:FractalsOptions",
        "cinic10": "lsc.data.cinic10:Cinic10Options",
        "imagenet": "lsc.data.imagenet:ImagenetOptions",
        "instances": "lsc.data.instances:InstancesOptions",
        "folder": "lsc.data.folder:FolderOptions",
        "given": "lsc.data.given:GivenOptions",
    },
)
