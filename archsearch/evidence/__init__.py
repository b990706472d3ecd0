"""Evidence: what was shown, by whom it was run and of which source, as files of records in the packages it is about.

`records` is the one format and its reader, `digests` the one digest of files. Proofs are of kernels on a card, records
of conformance of a mixer's laws, compile reports of kernels ahead of time. None of it imports torch or triton.
"""
