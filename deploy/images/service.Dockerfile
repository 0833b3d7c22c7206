# One service and nothing else: its static binary and the certificates of public authorities. The context is bin/.
ARG BASE=openaperture/debian:12
FROM ${BASE} AS base

FROM scratch
ARG SERVICE
ARG VERSION=dev
LABEL org.opencontainers.image.title=openaperture/${SERVICE} org.opencontainers.image.version=${VERSION}
COPY --from=base /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY ${SERVICE} /app
USER 65532:65532
HEALTHCHECK --interval=5s --timeout=3s --retries=3 CMD ["/app", "--config", "/etc/openaperture.yaml", "healthcheck", "ready"]
ENTRYPOINT ["/app"]
CMD ["--config", "/etc/openaperture.yaml"]
