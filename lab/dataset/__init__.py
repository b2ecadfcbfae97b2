"""The dataset that a lab versions.

employees      the generated default dataset
inspection     the check of a user's own data
first_version  the import that gives a new lab its first commit
"""
