"""What D's features are worth: extraction, the exact L2-SVM, the paper's protocol, and its opponents.

Uses `nets`, `images` and `study`; knows no training of GANs. Begin with `splits.load` and `features.extract`, then
`protocol`; `newton` solves what `l2svm` states, block by block (`blocks`).
"""
