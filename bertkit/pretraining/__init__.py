"""Pre-training data: LDDL's Parquet, HDF5 and TFRecord, read shard by shard into the ragged batches of the seam."""

from __future__ import annotations

from bertkit.pretraining.binned import BinnedSampler, updates
from bertkit.pretraining.data import PretrainingData, open_data
from bertkit.pretraining.masking import MaskingRule

__all__ = ["BinnedSampler", "MaskingRule", "PretrainingData", "open_data", "updates"]
