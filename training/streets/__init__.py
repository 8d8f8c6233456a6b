"""Streets: a procedural road-scene data set with Cityscapes' 19 classes, painted by NumPy and OpenCV alone.

It stands in for a driving simulator: pictures and pixel-exact labels come from the same polygons, any number of them,
at any size, and the same seed gives the same pixels.
"""

from training.streets.cache import Cached, cached
from training.streets.dataset import RENDERER_VERSION, Drive, Streets, render_still

__all__ = ["RENDERER_VERSION", "Cached", "Drive", "Streets", "cached", "render_still"]
