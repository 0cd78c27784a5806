"""New parts of the project, written as files to fill in."""
