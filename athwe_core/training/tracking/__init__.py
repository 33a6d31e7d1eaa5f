"""The course of a run in TensorBoard, MLflow or Weights & Biases."""
