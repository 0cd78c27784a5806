"""The warehouse: the only place that knows which engine it is."""
