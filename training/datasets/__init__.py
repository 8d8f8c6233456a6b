"""The official data sets, one module each: which files belong together, and what their labels mean.

A module holds one or more `Layout`s (`training.datasets.layout`): classes, splits, folders, how files pair and how a
label file is decoded. `training.datasets.known` lists them all. NumPy and OpenCV only; `classes.yaml` takes PyYAML.
"""
