"""Interpretability: attention maps, rollout, integrated gradients."""
