"""From documents to a base model: token shards, and next-token prediction on them."""
