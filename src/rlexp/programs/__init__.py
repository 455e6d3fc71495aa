"""What a function of tensors does, recorded once and then done again without torch's autograd, in NumPy where known."""
