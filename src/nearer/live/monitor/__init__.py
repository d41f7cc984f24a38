"""Is production still good, and which condition fired?"""
