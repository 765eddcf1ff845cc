"""G against D: one minibatch, a training that survives, what shows that it failed, and which snapshot to keep.

Uses `nets`, `images` and `study`. Begin with `game` plays one minibatch, `train` plays many; `conditional` is the
appendix's net for digits.
"""
