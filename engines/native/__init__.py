"""Trunks compiled for the CPU at hand, by LLVM: convolutions by minimal filtering, with nothing between them.

Split batches are never copied apart. A value stays one map of all pixels, channels innermost, and a convolution behind
a split by 2x2 reads every second pixel: four convolutions whose tiles are multiplied by the same weights.
Whole networks, whose maps have several sizes, are in `whole`.
"""
