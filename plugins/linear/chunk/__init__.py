"""The chunkwise form: products over chunks of tokens, and one pass over chunks."""
