"""The web page: plain files, no build, nothing from elsewhere."""
