"""Audiences: the YAML files, their schema, and the way from segment to members."""
