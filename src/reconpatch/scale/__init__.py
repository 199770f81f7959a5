"""Many products and many photos: workers, manifests, tables of scores, the distributed fit."""
