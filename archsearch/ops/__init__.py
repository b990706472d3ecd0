"""Functions of tensors that layers share: softmax cores, caches, convolution, norms, rotary, choice of impl."""
