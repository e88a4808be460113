"""More training data by words that are replaced: `bertkit data augment`, without the model that proposes the words."""
