"""The report: a search as one HTML file that opens without a network."""
