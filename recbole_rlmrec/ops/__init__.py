"""Numbers only: tensors in, tensors out; nothing here knows a model, a configuration or a file."""
