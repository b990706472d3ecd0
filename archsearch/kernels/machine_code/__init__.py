"""Machine code: what the compiler's PTX and SASS tell of a kernel, and the limits of the cards that run it."""
