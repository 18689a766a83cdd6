"""Finding text: suffix arrays over a corpus."""
