"""Classifies photos with torchvision's ResNet-50: ``python run.py -p fp32``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.classify import main

if __name__ == "__main__":
    sys.exit(main("resnet50", "ResNet-50"))
