"""What a run is, as ml_collections. Nothing here imports the package."""
