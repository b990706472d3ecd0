"""The entry: the one script that Streamlit runs."""
