"""The modules that know PyAV: sources, sinks and pictures."""
