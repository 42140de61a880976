"""From documents to batches: tokenizer, corpus, the prepared dataset, pretraining examples."""
