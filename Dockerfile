# The worker as an image: no shell, no package manager, an unprivileged user. docs/DEPLOY.md says how to run it.
#
#   docker build --tag sqs-etl .
#   docker run --rm --env-file worker.env sqs-etl
#
# Builder and base are both of Debian 12, so that the program finds the C library that it was linked with.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock contract.toml ./
COPY benches benches
COPY bench bench
COPY certs certs
COPY cli cli
COPY local local
COPY migrations migrations
COPY src src
# Crates and objects are kept between builds; what is kept there is in no layer, so the program is moved out.
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=sqs-etl-target-$TARGETARCH,target=/src/target \
    cargo build --release --locked -p sqs-etl-cli --bin sqs-etl \
    && cp target/release/sqs-etl /usr/local/bin/sqs-etl \
    && mkdir /health

# The C library, libgcc and root certificates, and little else. Its tag moves on with Debian's security fixes.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /usr/local/bin/sqs-etl /usr/local/bin/sqs-etl
# A volume takes its owner from here, on ECS too: so the worker can touch its health file where all else is read-only.
COPY --from=build --chown=65532:65532 /health /run/sqs-etl
VOLUME /run/sqs-etl
ENV HEALTH_FILE=/run/sqs-etl/health
# As numbers, so that Kubernetes can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/sqs-etl", "worker-health", "/run/sqs-etl/health"]
ENTRYPOINT ["/usr/local/bin/sqs-etl"]
CMD ["worker"]
