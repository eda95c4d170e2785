"""The modules that know image files, URLs and base64."""
