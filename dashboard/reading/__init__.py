"""Reading: what pages ask of a search, kept until the search has changed and shared by all viewers."""
