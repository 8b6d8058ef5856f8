"""The local stack: Kafka, ClickHouse, PostgreSQL, Redis and the Millrace services, without Docker.

Only the standard library is used, and nothing newer than Python 3.9.
"""
