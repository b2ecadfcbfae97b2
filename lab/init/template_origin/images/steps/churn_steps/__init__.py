"""The steps of `churn_pipeline`, the same on every backend.

    report   how many files, bytes and rows a data set has

It knows its environment only: DATA_<NAME> says where a data set is. The same data make the same
bytes.
"""
