"""Queries: what the pages show, as frames, records and sentences; nothing of Streamlit. One noun a file."""
