"""A fresh lab for tests: what pytest's plugin is made of.

choices   which backends a test runs on, and why one is not here
fresh     a lab in a temporary home, ended afterwards; what a failed one has to say
failures  a short list of failures, with what was wrong with the lab
witness   the attestation of a green session on kind

Nothing here is imported before a test asks for a lab, but pytest and the standard library.
"""
