"""A student that learns from a teacher: losses and the job."""
