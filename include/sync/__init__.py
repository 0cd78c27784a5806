"""Sync: plan, push, acknowledge; what the destination acknowledged is the only memory."""
