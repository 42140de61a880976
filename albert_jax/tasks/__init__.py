"""Task families, a file each: read → encode → head → metric → predictions."""
