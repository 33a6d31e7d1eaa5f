"""The same preparation on Apache Spark: the local readers run on the workers, and everything behind them is DataFrames.

Only `session` and `failures` may be imported without pyspark.
"""
