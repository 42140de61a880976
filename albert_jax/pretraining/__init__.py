"""Pretraining: the job, its start from other weights, what a pretrained model knows."""
