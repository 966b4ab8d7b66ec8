"""Picture files, private regions and the detectors that find them."""
