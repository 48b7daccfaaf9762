# The server, its worker and all commands: `docker build -t registry-notification-server .`
#
# It runs as a user, on a read-only root; /data is the only place it writes to:
#   docker run --read-only --tmpfs /tmp -v rns-data:/data -p 8000:8000 \
#     -e RNS_REGISTRIES__0__TOKEN=… registry-notification-server
FROM python:3.11-slim-bookworm AS build
# Without a way to PyPI: put wheels into wheels/ and give --build-arg PIP_NO_INDEX=1.
ARG PIP_NO_INDEX
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_FIND_LINKS=/src/wheels
WORKDIR /src
COPY requirements*.txt ./
COPY wheels ./wheels
RUN python3 -m venv /opt/rns \
 && /opt/rns/bin/pip install -r requirements.txt -r requirements-embedded.txt
COPY setup.cfg setup.py README.md LICENSE config.yml ./
COPY app ./app
RUN /opt/rns/bin/pip install --no-deps . \
 && /opt/rns/bin/pip uninstall -y -q setuptools pip

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Registry Notification Server" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --home-dir /data --no-create-home --shell /usr/sbin/nologin rns \
 && install -d -o rns -g rns -m 0700 /data \
 && install -d /etc/rns
COPY --from=build /opt/rns /opt/rns
COPY config.yml /etc/rns/config.yml
ENV PATH=/opt/rns/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    RNS_CONFIG=/etc/rns/config.yml RNS_SERVER__BIND=0.0.0.0:8000 RNS_MONGODB__DATA_DIR=/data
USER rns
WORKDIR /data
VOLUME /data
EXPOSE 8000
# Of a server that speaks https: give another one, or none.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python3", "-c", \
  "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["rns"]
CMD ["serve"]
