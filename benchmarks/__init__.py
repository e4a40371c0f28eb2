"""Measurements against PyTorch and other engines: ``python -m benchmarks.race resnet50``."""
