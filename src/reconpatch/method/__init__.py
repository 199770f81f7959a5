"""The method, equation by equation, numpy in and out: f, coreset, bank, scores, thresholds.

Eq. 1-6: `similarity`; 7: `loss`; 8: `representation`; 9-10: `memory_bank` and `scoring`.
`torch_training` is a fit's on a GPU, and the tests'; nothing here imports it.
"""
