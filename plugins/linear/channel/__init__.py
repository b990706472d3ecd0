"""Products decayed by channel within a chunk."""
