"""The paper's nets and the authors' weights, files of nets, and nets that learn from labels.

Uses `images` and `study`. Begin with `description`, of which `models.build` makes G and D; `weights.load_net` loads
them, `batchnorm` fits their statistics to images, `supervised` trains judges and opponents.
"""
