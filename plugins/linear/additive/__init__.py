"""Forms of the Hebbian rule beyond decay: what a token writes, how it is read, and how states are organised."""
