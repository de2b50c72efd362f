"""Each explanation: what it needs of the network, and how it combines that."""

from onnxcam.methods.gradcam import GradCam

__all__ = ["GradCam"]
