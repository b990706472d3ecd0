"""The reference pages of the documentation, made from the code they speak of: no torch, no mkdocs."""
