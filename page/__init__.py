"""The web page, tab by tab: handlers and the parts of the page that call them. `gradio_app.py` puts them together."""
