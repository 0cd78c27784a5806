"""Quality: the Great Expectations gate between segments and sync."""
