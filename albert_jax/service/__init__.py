"""Answers over HTTP: models that wait for texts, batches of what waits, routes, the page."""
