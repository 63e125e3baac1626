"""TensorBoard, W&B and MLflow as further outputs of a run, each in a thread of its own."""
