"""Pre-training data: LDDL's Parquet, HDF5 and TFRecord, read shard by shard into the ragged batches of the seam."""

from __future__ import annotations

from bertkit.data.pretraining.dataset import PretrainingData, open_data
from bertkit.data.pretraining.masking import MaskingRule
from bertkit.data.pretraining.sampler import BinnedSampler, updates

__all__ = ["BinnedSampler", "MaskingRule", "PretrainingData", "open_data", "updates"]
