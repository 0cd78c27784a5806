"""Rekindle's one importable package: everything the DAGs call, and nothing that needs Airflow to run."""
