"""Ground truth: spaces that are measured exhaustively, and searches run against such a table without training."""
