"""Pages and tables made out of manifests and records; nothing here measures anything itself."""
