"""The dataset that a lab versions.

employees      the default one, made here
inspection     the check of a person's own
first_version  the commit that a new lab begins with
"""
