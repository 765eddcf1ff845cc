"""Helpers of the DCGAN replication study, in reading order.

`paths` -> `toys` -> `data` -> `models` -> `figures` -> `results` -> `train` -> `nets` -> `latent` -> `attribution`
-> `pooling` -> `features` -> `probe`; `batch` runs the notebooks. Images are float32 NCHW in [-1, 1] everywhere but
in `data` (uint8 at rest) and `figures`.
"""
