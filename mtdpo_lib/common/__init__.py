"""What all rooms use and no reader needs first: files, named seeds, progress, provenance, kept stages."""
