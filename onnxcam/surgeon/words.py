"""Words that stand in a request in place of names of tensors and layers."""

WEIGHTED = "onnxcam:weighted:"  # before a tensor's name, or one of these, in ``Request.element``
SWEEP, STAGES = "sweep", "onnxcam:stages"  # alone in ``Request.layers``
SCORES, DENSE, EMBEDDING = "", "onnxcam:dense", "onnxcam:embedding"
SEQUENCE, DETECTIONS = "onnxcam:sequence", "onnxcam:detections"
