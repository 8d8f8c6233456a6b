"""Whole networks compiled for the CPU at hand, as `engines.native` does it with trunks: frames in, labels out.

Maps may have other sizes than the frame here: convolutions with strides, poolings and what resamples a map are among
the steps. A frame's work is shared out among threads that never leave compiled code until it is done.
"""
