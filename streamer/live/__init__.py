"""Live streams: cameras in, protected streams out, for weeks."""
