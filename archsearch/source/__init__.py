"""Source: digests of the code that computes a result, so that a result of other code is never taken for it."""

from archsearch.source.closure import LEFT_OUT, core_digest, core_modules
from archsearch.source.parts import UNKNOWN, Part, Sources

__all__ = ["LEFT_OUT", "UNKNOWN", "Part", "Sources", "core_digest", "core_modules"]
