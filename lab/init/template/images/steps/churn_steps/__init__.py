"""The steps of `churn_pipeline`, the same on every backend.

    clean       each order once, and none without a customer
    summarise   what all orders say, by month

They know their environment only: DATA_<NAME> says where a data set is. What is left there is
published. The same data make the same bytes.
"""
