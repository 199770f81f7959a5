"""From a folder of good photos to a model: reading, the steps of a fit, made defects, update.

Not `fit`: that is the function `reconpatch.fit`, which a package of that name would hide.
"""
