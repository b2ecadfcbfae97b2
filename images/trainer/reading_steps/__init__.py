"""The steps of `readings_pipeline`, as somebody writes them who knows a step's environment alone.

    collect     one more day of readings, as a Parquet file in a directory
    summarise   what all days say, as one Parquet file

They import nothing of the kit. Where the data is, WORKSPACE and DATA_<NAME> say; what was pulled is
there, and what is left there is published.
"""
