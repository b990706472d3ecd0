"""Kernels: configurations by architecture, their proofs on a card, and their compilation ahead of time.

Importing this package imports neither torch nor triton.
"""

from archsearch.kernels.build import Build
from archsearch.kernels.config import Config, Key, Table
from archsearch.kernels.device import arch_of, interpreting, obstacle

__all__ = ["Build", "Config", "Key", "Table", "arch_of", "interpreting", "obstacle"]
