"""The tests of the package, one file for each subject.

The files of a subject start alike: test_service_*, test_interop_*, test_tasks_*. What they share:

conftest.py: fixtures (a corpus and its vocabulary, a pretrained and a fine-tuned model on disk, a
    running service), and the switches of JAX for all tests.
tiny.py: small models, parameters, batches, task files and runs.
reference_*.py: NumPy versions of the model, of LAMB and of the metrics.
fake_*.py: stand-ins for training runs and gcloud.
distillation_models.py, huggingface_files.py, pretraining_rows.py, running_service.py: what the
    tests of one subject share.

No test file imports from another. Tests marked slow run under make test-slow.
"""
