"""Speed on the devices that are there, within some minutes.

    python -m benchmarks.accelerator --minutes=10 --json=report.json

Measures, most important first: whether each attention implementation has the values of the einsum;
the train step and the forward pass of `albert_base` and `albert_large` at 128 and 512 tokens, in
bfloat16, in the largest batch that fits; Hugging Face's ALBERT in torch beside it, eager and
compiled, where torch sees the device; and the attention implementations' speed. On a CPU the shapes
are tiny, which shows that the program works and nothing else.

Everything runs in processes of its own, so that a crash or a hang costs one measurement and JAX and
torch do not share memory. The file is written after every result. The program ends within its
minutes with what it has. It needs jax, flax, optax, orbax-checkpoint, numpy and jaxtyping.
"""
