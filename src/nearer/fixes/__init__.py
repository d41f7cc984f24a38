"""Simpler fixes than fine-tuning."""
