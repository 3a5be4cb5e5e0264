# Stands in for the official image of PostgreSQL where that cannot be pulled: its names, and Debian's PostgreSQL.
FROM python:3.12-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends postgresql-15 && rm -rf /var/lib/apt/lists/*
COPY postgres-entrypoint.sh /usr/local/bin/postgres-entrypoint
USER postgres
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["postgres-entrypoint"]
