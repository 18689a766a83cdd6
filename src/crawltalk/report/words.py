"""Names of figures in words."""

METRICS = {
    "vocab_size": "tokens in the vocabulary",
    "merges": "merges learned",
    "chunks": "different words and other pieces that it learned from",
    "train_bytes": "bytes that it learned from",
    "bytes_per_token": "bytes in a token",
    "train_tokens": "tokens to train on",
    "val_tokens": "tokens to measure on",
    "documents": "documents",
    "flagships": "documents shown most often",
    "train": "documents shown once in a pass",
    "graded": "documents shown a few times in a pass",
    "heldout": "documents that no training sees",
    "validation": "documents to measure on",
    "outside": "documents left over",
    "val_bpb": "bits per byte of documents that are not trained on",
    "steps": "steps",
    "loss": "loss of the last steps, nats a token",
    "tokens_per_second": "tokens a second",
    "dtype": "precision of the products",
    "peak_fraction": "share of the processor's peak that was used",
    "peak_gflops": "that peak, billions of operations a second",
    "parameters": "parameters",
    "tokens": "tokens read, repetitions included",
    "epochs": "passes over the training tokens",
    "flop": "operations of the training (FLOP)",
    "conversations": "conversations",
    "assistant_tokens": "tokens of replies that were learned",
    "reward": "mean reward",
    "accuracy": "share of right replies",
    "pass_at_k": "share of problems with one right reply at least",
    "length": "tokens of a reply",
    "entropy": "entropy of the next token, nats",
    "kl": "distance from the model at the start (KL), nats a token",
    "clip_share": "share of tokens whose update was clipped",
    "groups_without_signal": "share of problems whose replies were all equally good",
}
"""Metrics of the stages and of their logs."""


def words(name: str) -> str:
    """What a figure's name means; the name itself if it has no other."""
    head, _, of = name.partition(".")
    return METRICS.get(head, head.replace("_", " ")) + (f" ({of.replace('.', ', ')})" if of else "")
