"""Training of our own detector, from the data folder to an ONNX file: `python -m models.training --help`."""
