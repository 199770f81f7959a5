"""An inspection station: service and page, records, versions of models, watched folders, drift.

`station` is the core without HTTP; `service` puts HTTP and the page (`web/`) before it.
"""
