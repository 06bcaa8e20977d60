"""Trivet in other frameworks: one file each, none of which is imported before it is asked for."""
