"""GLUE and one's own data sets through tensorflow-datasets: `tfds:glue/sst2`."""
