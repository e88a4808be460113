"""What the torch vendors share: TorchEngine, Device (how a vendor differs from plain torch), the BERT model."""
