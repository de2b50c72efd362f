"""``python -m onnxcam``."""

from onnxcam.cli import main

main()
