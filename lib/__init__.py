"""Helpers of the DCGAN replication study, in reading order.

`paths` -> `toys` -> `sources` -> `data` -> `models` -> `pooling` -> `features` -> `published` -> `nets` -> `results`
-> `checkpoints` -> `supervised` -> `attributes` -> `health` -> `gradients` -> `graphs` -> `game` -> `train` ->
`conditional` -> `figures` -> `intervals` -> `latent` -> `forgetting` -> `memorisation` -> `attribution` -> `newton` ->
`probe` -> `baselines` -> `explore` -> `verdicts` -> `report`; `rows` reads batch files, `cards` lends GPUs to their
runs and `batch` runs them. Images are float32 NCHW in [-1, 1] everywhere but in `data` (uint8 at rest), `figures` and
`conditional` ([0, 1], as the authors have it).
"""
