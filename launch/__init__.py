"""How runs get onto machines: sweeps, reports, Cloud TPU VMs."""
