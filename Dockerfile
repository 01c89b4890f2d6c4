# An image of one BalsaDB server. It needs an id, the members and a volume; see deploy/compose.yaml and
# deploy/kubernetes/ for whole clusters.
#
#   docker build -t balsadb .

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md ./
COPY src ./src
RUN python -m venv /opt/balsadb && /opt/balsadb/bin/pip install --no-cache-dir .

FROM python:3.11-slim-bookworm
RUN groupadd --system --gid 10001 balsadb \
    && useradd --system --uid 10001 --gid balsadb --no-create-home --home-dir /var/lib/balsadb \
               --shell /usr/sbin/nologin balsadb \
    && install --directory --owner=balsadb --group=balsadb --mode=0700 /var/lib/balsadb
COPY --from=build /opt/balsadb /opt/balsadb
# Flags win over these. What clients and peers are told must be said where it is known: --advertise, --cluster.
ENV PATH=/opt/balsadb/bin:$PATH \
    BALSADB_DATA_DIR=/var/lib/balsadb \
    BALSADB_LISTEN=0.0.0.0:7001 \
    BALSADB_PEER_LISTEN=0.0.0.0:8001 \
    BALSADB_HTTP_LISTEN=0.0.0.0:9001
USER 10001:10001
WORKDIR /var/lib/balsadb
VOLUME ["/var/lib/balsadb"]
EXPOSE 7001 8001 9001
# The server is the first process, so it gets the signal itself: it hands leadership over and ends with 0.
STOPSIGNAL SIGTERM
# Ready means: it can serve. A node that waits for a majority is unhealthy and must not be killed for it.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9001/readyz', timeout=2)"]
ENTRYPOINT ["balsadb"]
CMD ["serve"]
