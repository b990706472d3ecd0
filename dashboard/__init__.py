"""The dashboard: a Streamlit app over a store, read-only."""
