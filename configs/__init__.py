"""What a run is, as ml_collections: each run as its difference from the defaults in runs/."""
