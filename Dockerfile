# The image of dr: the compiled program and its run-time dependencies on Node, without tools and without root.
#
#   docker build -t dr .
#   docker run --read-only --tmpfs /tmp -v /etc/dr:/etc/dr:ro -e DR_CONFIG=/etc/dr/dr.yaml dr daemon
#
# Restoring, verifying and failing over a database starts a PostgreSQL server, so it needs the programs of its major version.
# They are not in this image; "postgresql" below is the same image with them:
#
#   docker build -t dr-postgresql --target postgresql --build-arg POSTGRESQL_VERSIONS="15" .
#
# Debian 12 has 15; for other versions add the PostgreSQL project's own apt repository to that stage, or mount a folder of
# programs and name it under postgresql.binaries in the configuration. Backups need none of this.
#
# The same sources give the same files: packages by the lock file, times by SOURCE_DATE_EPOCH (git log -1 --format=%ct). To pin
# the base too: --build-arg NODE_IMAGE=node:24-bookworm-slim@sha256:…
# What is inside, Debian's packages included, is in /app/sbom/dr.cdx.json (CycloneDX).
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# The compiler comes as an optional package for each system, so none can be left out here.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The optional koffi belongs in here (extended attributes, exact times); the PostgreSQL packages are for tests and the demo.
RUN npm ci --omit=dev --ignore-scripts && rm -rf node_modules/pg[0-9]* node_modules/.cache \
  && npm sbom --package-lock-only --sbom-format=cyclonedx > /npm.cdx.json

# What goes into the image, in its final form: readable by all, writable by nobody, as old as its sources.
FROM ${NODE_IMAGE} AS layout
ARG SOURCE_DATE_EPOCH=0
WORKDIR /app
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY package.json LICENSE ./
COPY config ./config
COPY runbooks ./runbooks
COPY restore-script ./restore-script
COPY docs ./docs
COPY scripts/sbom.mjs ./sbom/sbom.mjs
COPY --from=dependencies /npm.cdx.json /npm.cdx.json
RUN export SOURCE_DATE_EPOCH \
  && node sbom/sbom.mjs --installed . < /npm.cdx.json > sbom/npm.cdx.json \
  && node sbom/sbom.mjs --system --installed . < sbom/npm.cdx.json > sbom/dr.cdx.json \
  && chown -R root:root . && chmod -R u=rwX,go=rX . \
  && find . -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

FROM ${NODE_IMAGE} AS program
ARG SOURCE_DATE_EPOCH=0
LABEL org.opencontainers.image.title="dr" \
  org.opencontainers.image.description="Disaster recovery orchestrator" \
  org.opencontainers.image.licenses="Apache-2.0"
ENV NODE_ENV=production MALLOC_ARENA_MAX=2
# No package managers, and no program that gives its caller the rights of another user.
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /usr/local/bin/yarn* /opt/yarn* \
  && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
  && printf '#!/bin/sh\nexec node --max-semi-space-size=4 --heap-growing-percent=50 /app/dist/main.js "$@"\n' > /usr/local/bin/dr \
  && chmod 755 /usr/local/bin/dr && touch --date="@$SOURCE_DATE_EPOCH" /usr/local/bin/dr
WORKDIR /app
COPY --from=layout /app ./
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
# The port follows daemon.listen; DR_HEALTH_URL says where it is when that was changed.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(process.env.DR_HEALTH_URL ?? 'http://127.0.0.1:8080/health').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
# So "kubectl exec dr-0 -- dr status" works as well.
ENTRYPOINT ["dr"]
CMD ["daemon"]

FROM program AS postgresql
ARG POSTGRESQL_VERSIONS="15"
ARG SOURCE_DATE_EPOCH=0
USER root
RUN apt-get update \
  && mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
  && apt-get install -y --no-install-recommends $(for version in $POSTGRESQL_VERSIONS; do echo "postgresql-$version"; done) \
  && rm -rf /var/lib/apt/lists/* /var/cache/debconf /var/log/* \
  && find / -xdev -type f -perm /6000 -exec chmod ug-s {} + \
  && SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH node /app/sbom/sbom.mjs --system --installed /app < /app/sbom/npm.cdx.json > /tmp/dr.cdx.json \
  && mv /tmp/dr.cdx.json /app/sbom/dr.cdx.json
USER 1000:1000

# The last stage is what "docker build ." makes.
FROM program
