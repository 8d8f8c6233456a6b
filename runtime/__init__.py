"""The schedule of split batches over contexts, video in and out, comparing. Works without PyTorch."""
