"""Readers and writers of the formats that other programs use."""
