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

FROM node:24-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
# The compiler comes as an optional package for each system, so none can be left out here.
RUN npm ci --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build

FROM node:24-bookworm-slim AS dependencies
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
# The optional koffi belongs in here (extended attributes, exact times); the PostgreSQL packages are for tests and the demo.
RUN npm ci --omit=dev --ignore-scripts && rm -rf node_modules/pg[0-9]* && npm cache clean --force

FROM node:24-bookworm-slim AS program
WORKDIR /app
ENV NODE_ENV=production MALLOC_ARENA_MAX=2
COPY package.json LICENSE ./
COPY --from=dependencies /app/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY config ./config
COPY runbooks ./runbooks
COPY restore-script ./restore-script
COPY docs ./docs
USER 1000:1000
EXPOSE 8080
# The port follows daemon.listen; DR_HEALTH_URL says where it is when that was changed.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(process.env.DR_HEALTH_URL ?? 'http://127.0.0.1:8080/health').then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "--max-semi-space-size=4", "--heap-growing-percent=50", "/app/dist/main.js"]
CMD ["daemon"]

FROM program AS postgresql
ARG POSTGRESQL_VERSIONS="15"
USER root
RUN apt-get update \
  && mkdir -p /etc/postgresql-common && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
  && apt-get install -y --no-install-recommends $(for version in $POSTGRESQL_VERSIONS; do echo "postgresql-$version"; done) \
  && rm -rf /var/lib/apt/lists/*
USER 1000:1000

# The last stage is what "docker build ." makes.
FROM program
