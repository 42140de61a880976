"""Tasks, a file for each shape of task: read → encode → head → metric → predictions."""
