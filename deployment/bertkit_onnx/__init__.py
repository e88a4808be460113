"""A trained model as an ONNX file, written from its weights without any framework; and as OpenVINO's form of it."""
