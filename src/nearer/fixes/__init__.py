"""Simpler fixes than fine-tuning: one file per fix, the bench that measures them, the ladder that combines them.

A fix is one file of this folder and one line of the table in `nearer.plugins` (seam `fix`);
`base.py` has the contract.
"""
