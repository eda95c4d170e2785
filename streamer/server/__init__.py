"""The network edge: HTTP, WHEP and the pages."""
