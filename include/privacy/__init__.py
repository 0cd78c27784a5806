"""Privacy: one request takes a person out of the warehouse and off every list she was ever on, with a receipt."""
