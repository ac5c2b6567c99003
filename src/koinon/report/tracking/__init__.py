"""Experiment trackers that watch a run: TensorBoard, MLflow, Weights & Biases."""
